//! `joinload run` against a real authority on a real PostgreSQL: its books are right, and it leaves nothing behind.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use join_credential::{MasterKey, Role};
use join_domain::id::Name;
use join_ledger::{Ledger, PgConnectOptions, Settings, provision};
use join_server::{
    administrators, cluster,
    config::Limits,
    service::{self, Node, Parts},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

struct Authority {
    runtime: Runtime,
    node: Option<Node>,
    superuser: PgConnectOptions,
    database: String,
    folder: TempDir,
}

impl Authority {
    fn start(test: &str) -> Self {
        Self::with_limits(test, Limits::default())
    }

    fn with_limits(test: &str, limits: Limits) -> Self {
        let superuser: PgConnectOptions = join_embedded::for_tests().url("postgres", "postgres").parse().unwrap();
        let runtime = Runtime::new().unwrap();
        let database = format!("joinload_{test}_{}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let node = runtime.block_on(serve(&superuser, &database, folder.path(), limits));
        Self { runtime, node: Some(node), superuser, database, folder }
    }

    /// A run of some bots.
    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of("admin", self.address(), arguments)
    }

    /// The same of an administrator, who reaches the node there.
    fn command_of(&self, administrator: &str, address: SocketAddr, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joinload"));
        command.args(["run", "--addr", &address.to_string(), "--bots", "6"]).args(arguments);
        command.arg("--identity").arg(self.folder.path().join(administrator));
        command.arg("--out").arg(self.folder.path().join("report")).stdin(Stdio::null());
        command
    }

    /// The report of a run that must succeed.
    fn run(&self, arguments: &[&str]) -> Value {
        let told = self.command(arguments).output().unwrap();
        assert!(told.status.success(), "{arguments:?}: {}", stderr(&told));
        self.report()
    }

    fn address(&self) -> SocketAddr {
        self.node.as_ref().unwrap().address
    }

    /// The report of the last run.
    fn report(&self) -> Value {
        let report = std::fs::read(self.folder.path().join("report/report.json")).unwrap();
        serde_json::from_slice(&report).unwrap()
    }

    /// How many bots, tokens and locks there are.
    fn resources(&self) -> i64 {
        self.count("SELECT count(*) FROM stream WHERE live AND kind IN ('bot', 'token', 'lock')")
    }

    /// How many lineages there are: a bot has one once it has joined.
    fn joined(&self) -> i64 {
        self.count("SELECT count(*) FROM stream WHERE live AND instance_id IS NOT NULL")
    }

    fn count(&self, query: &'static str) -> i64 {
        self.runtime.block_on(async {
            let database = self.superuser.clone().database(&self.database);
            let mut connection = sqlx::PgConnection::connect_with(&database).await.unwrap();
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
        })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.runtime.block_on(node.stop());
        }
        let removed = self.runtime.block_on(provision::remove(&self.superuser, &self.database));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

async fn serve(superuser: &PgConnectOptions, database: &str, folder: &Path, limits: Limits) -> Node {
    let roles = provision::fresh(superuser, database).await.unwrap();
    let ledger = Ledger::connect(roles.service, Settings::default()).await.unwrap();
    let name: Name = "test.example".parse().unwrap();
    let master = MasterKey::create(&folder.join("master.key")).unwrap();
    cluster::create(&ledger, &name, &master).await.unwrap();
    for role in [Role::Admin, Role::Operator] {
        let who = role.as_str().parse().unwrap();
        administrators::issue(&ledger, &master, &who, role, &folder.join(role.as_str())).await.unwrap();
    }
    service::start(Parts { cluster: Some(name), limits, ..Parts::on_loopback(ledger, master) }).await.unwrap()
}

/// A way to a node that closes a connection on which nothing comes for two seconds, as the node does after ten minutes.
async fn impatient(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, to));
        }
    });
    address
}

async fn pass_on(client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let node = TcpStream::connect(to).await?;
    let ((mut from_client, mut to_client), (mut from_node, mut to_node)) = (client.into_split(), node.into_split());
    let answers = async {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(length) = tokio::time::timeout(Duration::from_secs(2), from_node.read(&mut piece)).await {
            match length? {
                0 => break,
                length => to_client.write_all(&piece[..length]).await?,
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_node) => ended.map(drop),
        ended = answers => ended,
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn each_profile_gives_figures_and_leaves_nothing_behind() {
    let authority = Authority::start("profiles");
    let second = ["--at-once", "4", "--warm-up", "0", "--seconds", "1"];
    let profiles: [(&str, &str, &[&str]); 9] = [
        ("renewals", "renewal", &second),
        ("renewals", "renewal", &["--rate", "20", "--warm-up", "0", "--seconds", "1", "--transport", "http"]),
        ("recoveries", "recovery", &second),
        ("recoveries", "recovery", &["--connections", "resumed", "--rate", "20", "--warm-up", "0", "--seconds", "1"]),
        ("registrations", "registration", &["--at-once", "2"]),
        ("storm", "storm", &[]),
        ("rotation", "rotation", &[]),
        ("clones", "clone", &[]),
        // What happens has to get its place in the log, and then to who follows.
        ("administrators", "administrators_renewal", &["--at-once", "4", "--warm-up", "0", "--seconds", "5"]),
    ];
    for (profile, of, options) in profiles {
        let report = authority.run(&[&["--profile", profile], options].concat());
        let figure = |name: &str| report["figures"][name].as_f64();
        for name in ["joins_per_s", "p50_ms", "p99_ms"] {
            assert!(figure(&format!("{of}_{name}")) > Some(0.0), "{profile}: {}", report["figures"]);
        }
        assert!(figure("full_handshakes_seen") > Some(0.0) && figure("resumed_handshakes_seen") == Some(0.0));
        let measured = report["measured"].as_array().unwrap();
        assert!(measured.iter().all(|one| one["cpu"]["joind_us"].is_null()), "nobody can see another's processes");
        let checked = report["checked"].to_string();
        assert!(checked.contains("of each of 6 bots the authority counts"), "{profile}: {checked}");
        let row = measured.last().unwrap();
        let seen = |kind: &str| row["handshakes"][kind].as_u64();
        match row["what"].as_str().unwrap() {
            what if what.contains("kept connections") => assert_eq!(seen("full"), (profile != "clones").then_some(0)),
            _ => assert_eq!(seen("full"), row["made"].as_u64(), "{row}"),
        }
        assert!(seen("resumed").unwrap_or_default() == 0 && row["made"].as_u64() > Some(0), "{row}");
        assert!(report["machine"].as_str().unwrap().starts_with("generator on "), "{}", report["machine"]);
        assert_eq!(checked.contains("2 cloned tokens are locked"), profile == "clones", "{checked}");
        assert_eq!(authority.resources(), 0, "{profile} left something");
    }

    // The node is this very process.
    let report = authority.run(&["--seconds", "1", "--warm-up", "0", "--joind-pid", &std::process::id().to_string()]);
    let renewals = report["measured"].as_array().unwrap().last().unwrap();
    assert!(renewals["cpu"]["joind_us"].as_f64() > Some(0.0) && renewals["cpu"]["postgres_us"].is_null(), "{renewals}");
}

#[test]
fn what_is_interrupted_is_removed_and_what_is_kept_is_there() {
    let authority = Authority::start("interrupted");
    // What an administrator needs at the end comes when the connection of the beginning is closed.
    let way = authority.runtime.block_on(impatient(authority.address()));
    let long = ["--warm-up", "0", "--seconds", "600"];
    let mut running = authority.command_of("admin", way, &long).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while authority.joined() < 6 {
        assert!(begun.elapsed() < Duration::from_secs(30), "the bots don't join");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(4));
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(authority.resources(), 0);
    let report = authority.report();
    let row = &report["measured"][0];
    assert_eq!(row["what"], "renewals, full handshake each (interrupted)");
    assert!(row["joins"].as_u64() > Some(0) && report["figures"].as_object().unwrap().is_empty(), "{report}");

    authority.run(&["--profile", "registrations", "--keep"]);
    assert_eq!(authority.resources(), 7, "a bot and six tokens");
}

#[test]
fn an_administrator_whose_connection_was_closed_compares_and_removes() {
    let authority = Authority::start("reopened");
    let way = authority.runtime.block_on(impatient(authority.address()));
    let arguments = ["--rate", "20", "--warm-up", "0", "--seconds", "4"];
    let told = authority.command_of("admin", way, &arguments).output().unwrap();
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(authority.report()["checked"].to_string().contains("of each of 6 bots the authority counts"));
    assert_eq!(authority.resources(), 0);
}

#[test]
fn refused_joins_are_reported_and_fail_the_run() {
    // So many requests at once from one address, and as many of administrators.
    let limits = Limits { streams_per_address: 4.try_into().unwrap(), ..Limits::default() };
    let authority = Authority::with_limits("crowded", limits);
    let told = authority.command(&["--profile", "registrations"]).output().unwrap();
    assert!(!told.status.success());
    let (told, table) = (stderr(&told), String::from_utf8_lossy(&told.stdout).into_owned());
    assert!(told.contains("of 6 joins were refused") && told.contains("RATE_LIMITED"), "{told}");
    assert!(table.contains("refused") && table.contains("RATE_LIMITED"), "{table}");
    let report = authority.report();
    assert!(report["notes"]["refused"].as_str().unwrap().contains("of accepted joins only"), "{report}");
    assert_eq!(report["measured"][0]["what"], "first joins by secret, kept connections (refused)");
    assert_eq!(authority.resources(), 0);
}

#[test]
fn who_may_not_make_bots_is_told_so_and_nothing_is_removed() {
    let authority = Authority::start("operator");
    let told = authority.command_of("operator", authority.address(), &[]).output().unwrap();
    assert!(!told.status.success());
    let told = stderr(&told);
    assert!(told.starts_with("joinload: --identity ") && told.contains("operator lacks the role admin"), "{told}");
    assert!(!told.contains("DELETE") && !told.contains("left"), "{told}");
}

#[test]
fn what_a_profile_has_no_use_for_is_refused_before_anything_is_made() {
    let authority = Authority::start("refused");
    let told = authority.command(&["--profile", "registrations", "--rate", "5"]).output().unwrap();
    assert!(!told.status.success());
    assert!(stderr(&told).contains("--rate is not for --profile registrations"), "{}", stderr(&told));
    assert_eq!(authority.resources(), 0);
}

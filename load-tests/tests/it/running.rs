//! `joinload run` against a real authority on a real PostgreSQL: its books are right, and it leaves nothing behind.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use join_credential::{MasterKey, Role};
use join_domain::id::Name;
use join_ledger::{Ledger, PgConnectOptions, Settings, provision};
use join_server::{
    administrators, cluster,
    service::{self, Node, Parts},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

struct Authority {
    runtime: Runtime,
    node: Option<Node>,
    superuser: PgConnectOptions,
    database: String,
    folder: TempDir,
}

impl Authority {
    fn start(test: &str) -> Self {
        let superuser: PgConnectOptions = join_embedded::for_tests().url("postgres", "postgres").parse().unwrap();
        let runtime = Runtime::new().unwrap();
        let database = format!("joinload_{test}_{}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let node = runtime.block_on(serve(&superuser, &database, folder.path()));
        Self { runtime, node: Some(node), superuser, database, folder }
    }

    /// A run of some bots.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_joinload"));
        let address = self.node.as_ref().unwrap().address.to_string();
        command.args(["run", "--addr", &address, "--bots", "6"]).args(arguments);
        command.arg("--identity").arg(self.folder.path().join("admin"));
        command.arg("--out").arg(self.folder.path().join("report")).stdin(Stdio::null());
        command
    }

    /// The report of a run that must succeed.
    fn run(&self, arguments: &[&str]) -> Value {
        let told = self.command(arguments).output().unwrap();
        assert!(told.status.success(), "{arguments:?}: {}", stderr(&told));
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

async fn serve(superuser: &PgConnectOptions, database: &str, folder: &Path) -> Node {
    let roles = provision::fresh(superuser, database).await.unwrap();
    let ledger = Ledger::connect(roles.service, Settings::default()).await.unwrap();
    let name: Name = "test.example".parse().unwrap();
    let master = MasterKey::create(&folder.join("master.key")).unwrap();
    cluster::create(&ledger, &name, &master).await.unwrap();
    let (who, identity) = ("admin".parse().unwrap(), folder.join("admin"));
    administrators::issue(&ledger, &master, &who, Role::Admin, &identity).await.unwrap();
    service::start(Parts { cluster: Some(name), ..Parts::on_loopback(ledger, master) }).await.unwrap()
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
        assert!(checked.contains("the authority knows each of"), "{profile}: {checked}");
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
    let mut running = authority.command(&["--seconds", "600"]).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while authority.joined() < 6 {
        assert!(begun.elapsed() < Duration::from_secs(30), "the bots don't join");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&running), Signal::INT).unwrap();
    assert!(!running.wait().unwrap().success());
    assert_eq!(authority.resources(), 0);

    authority.run(&["--profile", "registrations", "--keep"]);
    assert_eq!(authority.resources(), 7, "a bot and six tokens");
}

#[test]
fn what_a_profile_has_no_use_for_is_refused_before_anything_is_made() {
    let authority = Authority::start("refused");
    let told = authority.command(&["--profile", "registrations", "--rate", "5"]).output().unwrap();
    assert!(!told.status.success());
    assert!(stderr(&told).contains("--rate is not for --profile registrations"), "{}", stderr(&told));
    assert_eq!(authority.resources(), 0);
}

//! `joind dev`: everything on this machine, with a private PostgreSQL. The same code and schema as in production.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use join_credential::{
    MasterKey, Presented, Role,
    presented::{CertificateReader, NotLive},
};
use join_domain::id::Name;
use join_embedded::{Address, Cluster, Options};
use join_ledger::{Ledger, PgConnectOptions, PgSslMode, Settings, provision};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    DevArgs,
    terminal::{print, say},
};
use crate::{
    administrators, cluster,
    service::{self, Node, Parts},
};

/// The cluster of `joind dev`.
const CLUSTER: &str = "dev.local";
const DATABASE: &str = "joinauthority";

pub(super) async fn run(args: &DevArgs) -> anyhow::Result<u8> {
    for address in [args.listen, args.metrics_listen] {
        // Found out before anything is made; the service itself listens much later.
        service::bind(address, "gRPC, HTTP and metrics").await?;
    }
    let directory = prepare(&args.data_dir)?;
    let postgres_directory = directory.join("postgres");
    let postgres =
        tokio::task::spawn_blocking(move || Cluster::start(&postgres_directory, &Options::durable())).await??;
    let served = serve(args, &directory, postgres.address()).await;
    let stopped = tokio::task::spawn_blocking(move || postgres.stop()).await?;
    served?;
    stopped?;
    Ok(0)
}

/// Ledger and master key of a `joind dev` that runs in `directory`.
pub(super) async fn running(directory: &Path) -> anyhow::Result<(Ledger, MasterKey)> {
    let file = directory.join("postgres.address");
    let text = fs::read_to_string(&file).with_context(|| {
        format!(
            "{} is not there: start `joind dev --data-dir {}`, or give -c FILE",
            file.display(),
            directory.display()
        )
    })?;
    let (socket, port) = text.trim().rsplit_once(' ').context("postgres.address is damaged")?;
    let options = superuser(Path::new(socket), port.parse().context("postgres.address is damaged")?)
        .username(provision::SERVICE)
        .database(DATABASE);
    let ledger = Ledger::connect(options, Settings::default()).await.context("does `joind dev` run?")?;
    Ok((ledger, MasterKey::read(&directory.join("master.key"))?))
}

async fn serve(args: &DevArgs, directory: &Path, postgres: &Address) -> anyhow::Result<()> {
    let superuser = superuser(postgres.socket_dir(), postgres.port());
    let provisioned = provision::provision(&superuser, DATABASE).await?;
    write_private(
        &directory.join("postgres.address"),
        &format!("{} {}\n", postgres.socket_dir().display(), postgres.port()),
    )?;
    let settings = Settings { node: "joind dev".to_owned(), ..Settings::default() };
    let ledger = Ledger::connect(provisioned.service, settings).await?;
    let master_file = directory.join("master.key");
    let cluster: Name = CLUSTER.parse().context("the cluster's name")?;
    let is_new = cluster::name(&ledger).await?.is_none();
    anyhow::ensure!(
        is_new || master_file.exists(),
        "{} is missing: without it the keys of this cluster can't be opened; put it back, or begin with another --data-dir",
        master_file.display()
    );
    let master = if master_file.exists() { MasterKey::read(&master_file)? } else { MasterKey::create(&master_file)? };
    if is_new {
        cluster::create(&ledger, &cluster, &master).await?;
    }
    let identity = directory.join("identity");
    if let Some(aside) = put_aside(&ledger, &master, &identity).await? {
        say(format_args!(
            "the administrator's identity has expired, or is of a CA that is trusted no more: it is in {} now, and {} \
             has a new one",
            aside.display(),
            identity.display()
        ));
    }
    // The last of its files: what was broken off before is no identity.
    if !identity.join("ca.crt").exists() {
        for broken_off in ["tls.key", "tls.crt"] {
            let _ = std::fs::remove_file(identity.join(broken_off));
        }
        let name: Name = "admin".parse().context("the administrator's name")?;
        administrators::issue(&ledger, &master, &name, Role::Admin, &identity).await?;
    }
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listen_ip = args.listen.ip().to_string();
    if !args.listen.ip().is_unspecified() && !names.contains(&listen_ip) {
        names.push(listen_ip);
    }
    let node = service::start(Parts {
        cluster: Some(cluster),
        listen: args.listen,
        metrics_listen: args.metrics_listen,
        names,
        log_directory: Some(directory.join("log")),
        ..Parts::on_loopback(ledger, master)
    })
    .await?;
    // Who reads that it is ready may stop it at once.
    let interrupted = super::interrupted()?;
    announce(&node, directory, &identity)?;
    interrupted.await;
    say("stopping");
    node.stop().await;
    Ok(())
}

/// Renames an identity that has expired, or is of a CA that is trusted no more; where it went to. One that was revoked was
/// revoked on purpose.
async fn put_aside(ledger: &Ledger, master: &MasterKey, identity: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !identity.join("ca.crt").exists() {
        return Ok(None);
    }
    let pem = fs::read(identity.join("tls.crt")).unwrap_or_default();
    let certificate: Vec<_> = CertificateDer::pem_slice_iter(&pem).take(1).flatten().collect();
    let (reader, now) = (CertificateReader::new(&cluster::open_keys(ledger, master).await?)?, ledger.now());
    if !matches!(reader.read(&certificate, now), Presented::None(NotLive::Expired(_) | NotLive::Foreign)) {
        return Ok(None);
    }
    let aside = identity.with_extension(format!("until-{}", now.format("%Y%m%dT%H%M%SZ")));
    fs::rename(identity, &aside).with_context(|| format!("{} can't be put aside", identity.display()))?;
    Ok(Some(aside))
}

/// Says that everything is ready, and how to use it.
fn announce(node: &Node, directory: &Path, identity: &Path) -> anyhow::Result<()> {
    let address = match node.address {
        bound if bound.ip().is_unspecified() => format!("localhost:{}", bound.port()),
        bound => bound.to_string(),
    };
    let pin = super::ca_pin(node)?;
    let exports =
        format!("export JOINCTL_ADDR={address}\nexport JOINCTL_IDENTITY={}\n", quote(&identity.display().to_string()));
    write_private(&directory.join("env"), &exports)?;
    print(&format!("ready {address} ca-pin={pin}\n{exports}"))?;
    say(format_args!("metrics on http://{}/metrics; stop with Ctrl-C", node.metrics_address));
    Ok(())
}

/// What `joind dev` makes first: a directory that has none of it, and something else, is not one of ours.
const MARKERS: [&str; 2] = ["postgres", "master.key"];

/// Makes the directory, in its absolute form: what is written into it must hold from anywhere. Other users see nothing in
/// it; when root makes it, the one that PostgreSQL runs as has to pass through.
fn prepare(directory: &Path) -> anyhow::Result<PathBuf> {
    if !MARKERS.iter().any(|marker| directory.join(marker).exists()) && holds_something(directory) {
        bail!(
            "the data directory {} is not empty and is not of `joind dev`: give another with --data-dir",
            directory.display()
        );
    }
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .with_context(|| format!("the data directory {} can't be made", directory.display()))?;
    directory.canonicalize().with_context(|| format!("the data directory {} can't be used", directory.display()))
}

/// A file system of its own has a directory for what is found after a crash.
fn holds_something(directory: &Path) -> bool {
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name() != "lost+found")
}

fn superuser(socket: &Path, port: u16) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .port(port)
        .username("postgres")
        .database("postgres")
        // What the environment asks for (PGSSLMODE) is of another server.
        .ssl_mode(PgSslMode::Disable)
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("{} can't be written", path.display()))
}

/// Quotes for a shell, when needed.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

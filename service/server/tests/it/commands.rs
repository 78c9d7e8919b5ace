//! What people type: `joind`'s commands, what they print, and how they end.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use tokio::process::Command;

use crate::{
    configuration::{DATABASE, Written},
    world::{Administrator, Bot, Database, Finished, Installed, Onboarding, Running, joind, open_directory, until},
};

async fn a_bot(admin: &Administrator, running: &Running) -> Bot {
    let mut bot = Onboarding::of(admin, &running.network, "example").await;
    bot.join().await.unwrap();
    bot
}

/// The same bot finds the authority at its new address.
async fn renews(bot: &mut Bot, running: &Running) {
    let (instance, generation) = (bot.certificate().instance(), bot.certificate().claims()["generation"].as_u64());
    bot.network = Arc::clone(&running.network);
    let joined = bot.join().await.unwrap();
    assert_eq!((joined.instance(), joined.generation()), (instance, generation.unwrap() + 1));
}

/// Rows of a table, without the headings.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn what_dev_made_outlives_a_kill() {
    let folder = open_directory();
    let data = folder.path().join("data");
    let first = Running::dev(&data).await;
    let address = first.network.address(0);
    let identity = data.join("identity");
    let exports = [format!("export JOINCTL_ADDR={address}"), format!("export JOINCTL_IDENTITY={}", identity.display())];
    assert_eq!(first.printed[1..], exports);
    assert_eq!(fs::read_to_string(data.join("env")).unwrap(), format!("{}\n{}\n", exports[0], exports[1]));
    let mode = |directory: &Path| fs::metadata(directory).unwrap().permissions().mode();
    assert_eq!(mode(&data) & 0o066, 0, "others see nothing in it");
    assert_eq!(mode(&data.join("log")) & 0o007, 0, "nor any entry");
    let admin = first.administrator(&identity);
    let (cluster, pin) = (admin.status().await.cluster_name, first.network.pin.clone());
    assert_eq!(cluster, "dev.local");
    let mut bot = a_bot(&admin, &first).await;
    let issued = folder.path().join("audrey").display().to_string();
    let issue = ["admin", "issue", "--role", "auditor", "--name", "audrey", "--out", &issued];
    let data_dir = ["--data-dir", &data.display().to_string()];
    Finished::of(joind(&[issue.as_slice(), &data_dir].concat())).await.done();
    let files: Vec<_> = ["master.key", "identity/tls.key"].map(|file| fs::read(data.join(file)).unwrap()).into();

    first.kill().await;
    let second = Running::dev(&data).await;

    assert_eq!(second.network.pin, pin);
    let kept: Vec<_> = ["master.key", "identity/tls.key"].map(|file| fs::read(data.join(file)).unwrap()).into();
    assert!(kept == files, "the keys are those of before");
    let admin = second.administrator(&identity);
    assert_eq!(admin.status().await.cluster_name, cluster);
    assert_eq!(second.administrator(Path::new(&issued)).status().await.cluster_name, cluster);
    renews(&mut bot, &second).await;
    let env = fs::read_to_string(data.join("env")).unwrap();
    assert!(env.starts_with(&format!("export JOINCTL_ADDR={}\n", second.network.address(0))), "{env}");

    assert!(second.stop().await.success());
    let lock = fs::File::open(data.join("postgres/server.lock")).unwrap();
    lock.try_lock().expect("its PostgreSQL has ended, too");
    let after = Finished::of(joind(&[["admin", "ls"].as_slice(), &data_dir].concat())).await.refused();
    assert!(after.contains("does `joind dev` run?"), "{after}");
}

#[tokio::test]
async fn dev_makes_a_new_identity_for_one_that_lets_nobody_in() {
    let (folder, another) = (open_directory(), Installed::with_cluster().await);
    let data = folder.path().join("data");
    let identity = data.join("identity");
    let first = Running::dev(&data).await;
    assert!(first.stop().await.success());
    // As after the CA was revoked.
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        fs::copy(another.path("admin").join(file), identity.join(file)).unwrap();
    }

    let second = Running::dev(&data).await;

    assert_eq!(second.administrator(&identity).status().await.cluster_name, "dev.local");
    let names = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let aside = names.into_iter().find(|name| name.starts_with("identity.until-")).expect("the old one is kept");
    let said = fs::read_to_string(data.with_extension("log")).unwrap();
    assert!(
        said.contains("the administrator's identity has expired, or is of a CA") && said.contains(&aside),
        "{said}"
    );
    assert!(second.stop().await.success());
}

#[tokio::test]
async fn dev_mixes_nothing_into_a_directory_of_others() {
    let folder = open_directory();
    fs::write(folder.path().join("letter"), "dear").unwrap();
    let data_dir = folder.path().display().to_string();
    let refused = Finished::of(joind(&["dev", "--data-dir", &data_dir, "--listen", "127.0.0.1:0"])).await.refused();
    let told = format!("error: the data directory {data_dir} is not empty and is not of `joind dev`");
    assert!(refused.starts_with(&told), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_others_wrote_does_not_steer_the_terminal() {
    let installed = Installed::new().await;
    let refused = installed.run(&["import", "--from", "an\u{1b}[2Jarchive\u{9b}1m"]).await.refused();
    assert!(refused.contains(r"an\u{1b}[2Jarchive\u{9b}1m"), "{refused:?}");
    assert!(!refused.replace('\n', "").contains(char::is_control), "{refused:?}");
}

#[tokio::test]
async fn a_cluster_is_made_once_on_a_schema_that_migrate_makes() {
    let installed = Installed::on(Database::bare().await);
    for _ in 0..2 {
        let migrated = installed.run(&["migrate"]).await.done();
        assert_eq!(migrated, "the schema is that of this version\n");
    }
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (99991231235959, 'later', true, '', 0)";
    installed.database.tamper(later).await;
    let migrated = installed.run(&["migrate"]).await.done();
    assert!(migrated.starts_with("the schema is newer than this version: nothing is migrated"), "{migrated}");
    installed.database.tamper("DELETE FROM _sqlx_migrations WHERE version = 99991231235959").await;
    let ownerless = Written::with(DATABASE);
    let refused = Finished::of(joind(&["migrate", "-c", &ownerless.path().display().to_string()])).await.refused();
    assert!(refused.contains("database.owner_url is missing"), "{refused}");
    let refused = installed.run(&["serve"]).await.refused();
    assert!(refused.contains("joind init"), "{refused}");

    // What stands in the way of its administrator makes no cluster.
    let occupied = installed.text("master.key/admin");
    let refused = installed.run(&["init", "--admin-identity", &occupied]).await.refused();
    assert!(refused.contains(&occupied), "{refused}");
    assert_eq!(refused.matches("os error").count(), 1, "the cause is told once: {refused}");

    let admin = installed.text("admin");
    let made = installed.run(&["init", "--admin-identity", &admin]).await.done();
    assert!(made.contains("cluster test.example is created") && made.contains(&admin), "{made}");
    let mode = |path: &str| installed.path(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("admin"), mode("admin/tls.key"), mode("admin/tls.crt")], [0o700, 0o600, 0o644]);
    let key = fs::read(installed.path("admin/tls.key")).unwrap();
    for directory in ["admin", "another"] {
        let again = installed.run(&["init", "--admin-identity", &installed.text(directory)]).await.refused();
        assert!(again.contains("test.example") && again.contains("once"), "{again}");
        assert!(again.contains("`joind admin issue -c FILE --role admin"), "{again}");
    }
    assert_eq!(fs::read(installed.path("admin/tls.key")).unwrap(), key);
    assert!(!installed.path("another").exists());

    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    assert_eq!(admin.status().await.cluster_name, "test.example");
    a_bot(&admin, &running).await;
    assert!(running.stop().await.success());

    let mut other = installed.command(&["serve"]);
    other.env("JOIND_CLUSTER_NAME", "other.example");
    let refused = Finished::of(other).await.refused();
    assert!(refused.contains("other.example") && refused.contains("test.example"), "{refused}");
}

#[tokio::test]
async fn init_migrates_a_database_when_it_may() {
    let installed = Installed::on(Database::bare().await);
    installed.run(&["init", "--admin-identity", &installed.text("admin")]).await.done();
    assert!(installed.path("admin/ca.crt").exists());
}

#[tokio::test]
async fn what_differs_from_the_events_is_found_and_made_again() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    let mut bot = a_bot(&admin, &running).await;
    until("the views show the bot", async || admin.instances().await.len() == 1).await;
    running.stop().await;
    let check = async || installed.run(&["rebuild", "--check"]).await;
    let equal = check().await.done();
    assert!(equal.ends_with(" 0 differences\n"), "{equal}");

    installed.database.tamper("UPDATE token_view SET bot_name = 'another'").await;
    installed.database.tamper("UPDATE stream SET live = NOT live WHERE kind = 'token'").await;
    let found = check().await;
    assert_eq!(found.status, Some(3), "{found:?}");
    assert!(found.stdout.ends_with(" 3 differences\n"), "{found:?}");
    for table in ["stream: ", "token_view: "] {
        assert!(found.stdout.lines().any(|line| line.starts_with(table)), "{found:?}");
    }

    assert_eq!(installed.run(&["rebuild"]).await.done(), "rebuilt\n");
    assert_eq!(check().await.done(), equal);
    let running = installed.serve().await;
    renews(&mut bot, &running).await;
    running.stop().await;
}

/// In a process of its own, as alarms are of the process.
#[tokio::test]
async fn who_says_that_more_is_signed_than_is_stops_the_log() {
    for statement in ["UPDATE log_head SET signed_size = 1000000", "UPDATE log_head SET signed_checkpoint = 'x'"] {
        let installed = Installed::with_cluster().await;
        let running = installed.serve_with_log().await;
        let admin = running.administrator(&installed.path("admin"));
        until("a checkpoint is signed", async || admin.status().await.log_signed > 0).await;
        assert!(admin.status().await.alarms.is_empty());

        installed.database.tamper(statement).await;

        until("the alarm", async || admin.status().await.alarms == ["log_rollback"]).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn the_end_of_a_log_that_is_not_the_newest_is_told() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve_with_log().await;
    let admin = running.administrator(&installed.path("admin"));
    until("a checkpoint is signed", async || admin.status().await.log_signed > 0).await;
    running.stop().await;
    for (ended, told) in [("tset.example/log", true), ("test.example/log", false)] {
        let mut begin = installed.command(&["log", "begin", "--reason", "restored", "--ended", ended]);
        begin.env("JOIND_LOG__ORIGIN", "test.example/log-2");
        let begun = Finished::of(begin).await;
        let note = format!("is of the log `test.example/log`, not of `{ended}`");
        assert_eq!(begun.stderr.contains(&note), told, "{}", begun.stderr);
        begun.done();
    }
}

/// How a command ends whose readers have left, as `| head` and a closed terminal leave it.
async fn unread(mut command: Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer.try_clone().unwrap()).stderr(writer).status().await.unwrap().code()
}

#[tokio::test]
async fn readers_that_left_change_no_outcome() {
    let installed = Installed::with_cluster().await;
    for directory in ["one", "two"] {
        let out = installed.text(directory);
        installed.run(&["admin", "issue", "--role", "auditor", "--name", "audrey", "--out", &out]).await.done();
    }
    assert_eq!(unread(installed.command(&["admin", "ls"])).await, Some(0));
    let revoke = ["admin", "revoke", "--name", "audrey", "--reason", "she left"];
    assert_eq!(unread(installed.command(&revoke)).await, Some(0));
    let listed = installed.run(&["admin", "ls"]).await.done();
    assert!(!listed.contains("audrey"), "both are revoked: {listed}");
    assert_eq!(unread(installed.command(&revoke)).await, Some(1));

    installed.database.tamper("UPDATE stream SET live = NOT live WHERE kind = 'administrator'").await;
    assert_eq!(unread(installed.command(&["rebuild", "--check"])).await, Some(3));
}

#[tokio::test]
async fn an_identity_works_until_it_is_revoked() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    for (role, name, directory) in
        [("auditor", "audrey", "one"), ("auditor", "audrey", "two"), ("operator", "oscar", "three")]
    {
        let out = installed.text(directory);
        let issue = ["admin", "issue", "--role", role, "--name", name, "--out", &out];
        let issued = installed.run(&issue).await.done();
        assert_eq!(issued, format!("the identity of {role} {name} is in {out}\n"));
        let again = installed.run(&issue).await.refused();
        assert!(again.contains("never overwritten"), "{again}");
    }
    let asks = async |directory: &str| running.administrator(&installed.path(directory)).get_bot("none").await;
    for directory in ["admin", "one", "two", "three"] {
        assert_eq!(asks(directory).await.unwrap_err(), "NOT_FOUND", "{directory} is let in");
    }

    let table = installed.run(&["admin", "ls"]).await.done();
    assert_eq!(table.split_whitespace().take(5).collect::<Vec<_>>(), ["SERIAL", "NAME", "ROLE", "STATE", "UNTIL"]);
    let listed = rows(&table);
    assert!(listed.iter().all(|row| row[4].ends_with('Z')), "{table}");
    let names: Vec<_> = listed.iter().map(|row| (row[1], row[2], row[3])).collect();
    let audrey = ("audrey", "auditor", "live");
    assert_eq!(names, [("admin", "admin", "live"), audrey, audrey, ("oscar", "operator", "live")]);

    let revoke = async |whose: &[&str], reason: &str| {
        installed.run(&[&["admin", "revoke", "--reason", reason], whose].concat()).await
    };
    let refused = revoke(&["--name", "audrey"], " ").await.refused();
    assert!(refused.contains("it is empty: say why"), "{refused}");
    let unprintable = revoke(&["--name", "audrey"], "she \u{7} left").await.refused();
    assert!(unprintable.contains("printable bytes"), "{unprintable}");
    revoke(&[], "she left").await.refused();
    let done = revoke(&["--name", "audrey"], "she left").await.done();
    assert_eq!(done.lines().count(), 2, "{done}");
    for directory in ["one", "two"] {
        let refused = asks(directory).await.unwrap_err();
        assert_eq!(refused, "UNAUTHENTICATED");
        assert!(refused.message.starts_with("the identity was revoked"), "{}", refused.message);
    }
    let serial = listed[3][0];
    assert_eq!(revoke(&["--serial", serial], "lost").await.done(), format!("identity {serial} is revoked\n"));
    assert_eq!(asks("three").await.unwrap_err(), "UNAUTHENTICATED");
    assert_eq!(asks("admin").await.unwrap_err(), "NOT_FOUND", "who is still let in");
    let twice = revoke(&["--serial", serial], "lost").await.refused();
    assert!(twice.contains("revoked before"), "{twice}");
    let unknown = revoke(&["--name", "audrey"], "she left").await.refused();
    assert!(unknown.contains("each identity of audrey was revoked before; see `joind admin ls --all`"), "{unknown}");
    let never = revoke(&["--name", "nobody"], "she left").await.refused();
    assert!(never.contains("no identity of that name is on record"), "{never}");
    assert_eq!(rows(&installed.run(&["admin", "ls"]).await.done()).len(), 1);
    let all = installed.run(&["admin", "ls", "--all"]).await.done();
    let states: Vec<_> = rows(&all).iter().map(|row| (row[1], row[3])).collect();
    let audrey = ("audrey", "revoked");
    assert_eq!(states, [("admin", "live"), audrey, audrey, ("oscar", "revoked")]);
    running.stop().await;
}

#[tokio::test]
async fn keys_go_through_their_phases() {
    let installed = Installed::with_cluster().await;
    let running = installed.serve().await;
    let admin = running.administrator(&installed.path("admin"));
    let mut bot = a_bot(&admin, &running).await;
    let keys = async |arguments: &[&str]| installed.run(&[&["keys"], arguments].concat()).await;
    // Phases last longer than a test.
    let waits = async |phase: &str, time: &str| {
        let sql =
            format!("UPDATE authority_key SET phase_since = phase_since - '{time}'::interval WHERE phase = '{phase}'");
        installed.database.tamper(&sql).await;
    };
    let table = keys(&["ls"]).await.done();
    let mut listed: Vec<_> = rows(&table).into_iter().map(|row| (row[1], row[2])).collect();
    listed.sort_unstable();
    let active = ["join-state", "log", "sealing", "ssh-ca", "x509-ca"].map(|purpose| (purpose, "active"));
    assert_eq!(listed, active);
    let kid = |table: &str, phase: &str| {
        let of_phase = rows(table).into_iter().find(|row| row[1] == "ssh-ca" && row[2] == phase);
        of_phase.unwrap_or_else(|| panic!("no {phase} key of ssh-ca: {table}"))[0].to_owned()
    };
    let old = kid(&table, "active");

    let fixed = keys(&["prepare", "log"]).await.refused();
    assert!(fixed.contains("x509-ca, ssh-ca, join-state"), "{fixed}");
    let nothing = keys(&["activate", "ssh-ca"]).await.refused();
    assert!(nothing.contains("prepare one first"), "{nothing}");
    let prepared = keys(&["prepare", "ssh-ca"]).await.done();
    let new = kid(&keys(&["ls"]).await.done(), "standby");
    assert!(prepared.starts_with(&format!("{new} is standby\n")), "{prepared}");
    let twice = keys(&["prepare", "ssh-ca"]).await.refused();
    assert!(twice.contains("on standby already"), "{twice}");
    let early = keys(&["activate", "ssh-ca"]).await.refused();
    assert!(early.contains("on standby for"), "{early}");
    waits("standby", "2 minutes").await;
    let activated = keys(&["activate", "ssh-ca"]).await.done();
    let told = [format!("{old} is retired\n"), format!("{new} is active\n")];
    assert!(told.iter().all(|line| activated.contains(line)), "{activated}");

    let early = keys(&["forget", &old]).await.refused();
    assert!(early.contains("must stay trusted until"), "{early}");
    let used = keys(&["revoke", &new, "--reason", "compromised"]).await.refused();
    assert!(used.contains("is the active key"), "{used}");
    let unsaid = keys(&["revoke", &old, "--reason", ""]).await.refused();
    assert!(unsaid.contains("it is empty: say why"), "{unsaid}");
    waits("retired", "2 days").await;
    let lives_longer =
        "INSERT INTO certificate_view SELECT 'older', token_id, token_name, bot_name, instance_id, generation,
        key, issued_at - '3 days'::interval, issued_at + '7 days'::interval FROM certificate_view LIMIT 1";
    installed.database.tamper(lives_longer).await;
    let in_use = keys(&["forget", &old]).await.refused();
    assert!(in_use.contains("must stay trusted until"), "more was allowed when it was issued: {in_use}");
    installed.database.tamper("DELETE FROM certificate_view WHERE serial = 'older'").await;
    assert_eq!(keys(&["forget", &old]).await.done(), format!("{old} is forgotten\n"));

    keys(&["prepare", "ssh-ca"]).await.done();
    waits("standby", "2 minutes").await;
    keys(&["activate", "ssh-ca"]).await.done();
    let revoked = keys(&["revoke", &new, "--reason", "compromised"]).await.done();
    assert_eq!(revoked, format!("{new} is revoked\n"));
    renews(&mut bot, &running).await;
    assert!(running.stop().await.success());
}

#[tokio::test]
async fn another_master_key_opens_the_keys_that_were_sealed_under_it() {
    let installed = Installed::with_cluster().await;
    let next = installed.path("next.key");
    fs::write(&next, "no key at all").unwrap();
    let reseal = ["keys", "reseal", "--new-master-key", &next.display().to_string()];
    let refused = installed.run(&reseal).await.refused();
    assert!(refused.contains("next.key") && !refused.contains("no key at all"), "{refused}");
    fs::write(&next, "5a".repeat(32)).unwrap();

    let done = installed.run(&reseal).await.done();
    assert!(done.contains("next.key"), "{done}");

    let refused = installed.run(&["serve"]).await.refused();
    assert!(refused.contains("the master key does not open"), "{refused}");
    fs::rename(&next, installed.path("master.key")).unwrap();
    let running = installed.serve().await;
    a_bot(&running.administrator(&installed.path("admin")), &running).await;
    running.stop().await;
}

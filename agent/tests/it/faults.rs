//! A disk that fails at the n-th write, for every n: no key is lost, nothing is half written, and the next run joins.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::TimeDelta;
use join_agent::{
    advice::{Then, advice},
    clock::Clock as _,
    config::Keypair,
    error::JoinError,
    key::PrivateKey,
    run,
    storage::{Memory, Storage, StorageError},
    vault::Vault,
};

use crate::{
    authority::Trouble,
    host::{Host, TestClock},
};

/// How a write fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing was written: the disk is full.
    Before,
    /// It was written, but nobody knows: the last fsync failed.
    After,
}

struct Faulty {
    disk: Arc<dyn Storage>,
    fault: Fault,
    writes_left: AtomicUsize,
}

impl Storage for Faulty {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.disk.read(name)
    }

    fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let fails = self.writes_left.fetch_sub(1, Ordering::SeqCst) == 0;
        if fails && matches!(self.fault, Fault::Before) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.replace(name, contents)?;
        if fails { Err(io::Error::other("fsync failed")) } else { Ok(()) }
    }

    fn place(&self) -> String {
        self.disk.place()
    }
}

#[derive(Debug, Clone, Copy)]
enum Case {
    FirstBySecret,
    FirstPreregistered,
    FirstWithRotation,
    Renewal,
    RenewalWithRotation,
    Recovery,
    RecoveryWithRotation,
    ResumedRenewal,
}

impl Case {
    const ALL: [Self; 8] = [
        Self::FirstBySecret,
        Self::FirstPreregistered,
        Self::FirstWithRotation,
        Self::Renewal,
        Self::RenewalWithRotation,
        Self::Recovery,
        Self::RecoveryWithRotation,
        Self::ResumedRenewal,
    ];

    /// A host on which this case is the next join.
    async fn prepare(self) -> Host {
        let mut host = Host::new().await;
        match self {
            Self::FirstBySecret | Self::FirstWithRotation => {}
            Self::FirstPreregistered => {
                let key = PrivateKey::generate_ed25519();
                Vault::open(host.disk.clone()).unwrap().add_key(key.clone()).unwrap();
                host.authority.book().bound = Some(key.public().clone());
                host.config.keypair = Keypair::Managed { registration_secret: None };
            }
            _ => drop(host.agent().join_once().await.unwrap()),
        }
        match self {
            Self::Recovery | Self::RecoveryWithRotation => host.let_certificate_expire(),
            Self::ResumedRenewal => {
                host.authority.trouble([Trouble::LoseAnswer]);
                host.agent().join_once().await.unwrap_err();
            }
            _ => {}
        }
        host.authority.book().rotate =
            matches!(self, Self::FirstWithRotation | Self::RenewalWithRotation | Self::RecoveryWithRotation);
        host
    }

    /// Joins accepted and recoveries counted when the case went through once.
    const fn expected(self) -> (u32, u32) {
        match self {
            Self::FirstBySecret | Self::FirstPreregistered | Self::FirstWithRotation => (1, 1),
            Self::Renewal | Self::RenewalWithRotation | Self::ResumedRenewal => (2, 1),
            Self::Recovery | Self::RecoveryWithRotation => (2, 2),
        }
    }
}

#[tokio::test]
async fn a_failed_write_at_any_point_costs_nothing() {
    let mut faults = 0;
    for case in Case::ALL {
        for fault in [Fault::Before, Fault::After] {
            for n in 0.. {
                let host = case.prepare().await;
                let disk = Faulty { disk: host.disk.clone(), fault, writes_left: AtomicUsize::new(n) };
                let outcome = host.agent_on(Arc::new(disk)).join_once().await;
                if outcome.is_ok() {
                    assert!(n >= 3, "{case:?}: a join writes its attempt, its certificate and its result");
                    break;
                }
                faults += 1;
                let error = outcome.unwrap_err();
                assert!(
                    matches!(error, JoinError::Storage(StorageError::Io { .. })),
                    "{case:?} {fault:?} {n}: {error}"
                );
                no_bound_key_is_lost(&host);

                let joined = host.agent().join_once().await.unwrap();
                let (accepted, recoveries) = case.expected();
                // A result that was stored although the disk said otherwise is not asked for again: the next run renews.
                let renewed = u32::from(joined.presented_certificate && host.authority.book().accepted > accepted);
                let book = host.authority.book();
                assert_eq!(book.locked, None, "{case:?} {fault:?} {n}");
                assert_eq!(
                    (book.accepted - renewed, book.recoveries),
                    (accepted, recoveries),
                    "{case:?} {fault:?} {n}"
                );
                assert!(renewed == 0 || matches!(fault, Fault::After), "{case:?} {fault:?} {n}");
                drop(book);
                no_bound_key_is_lost(&host);
                assert_eq!(host.agent().state().unwrap().pending, None);
            }
        }
    }
    assert_eq!(faults, 58, "three writes for each case, one more for each new key, in two ways");
}

#[tokio::test]
async fn a_slow_clock_is_corrected_also_when_the_result_that_told_the_time_was_stored_at_the_second_try() {
    // The attempt and its key are written before.
    for n in [2, 3] {
        let mut host = Host::new().await;
        host.clock.advance(TimeDelta::minutes(50));
        host.disk =
            Arc::new(Faulty { disk: host.disk.clone(), fault: Fault::Before, writes_left: AtomicUsize::new(n) });
        let joined = run::once(&mut host.agent_by(TestClock::default())).await.unwrap();
        let life = joined.certificate.not_after - host.clock.now();
        assert!(life > TimeDelta::minutes(59), "{life}");
        let book = host.authority.book();
        assert_eq!((book.accepted, book.resumed, book.recoveries, book.locked), (2, 1, 1, None));
    }
}

fn no_bound_key_is_lost(host: &Host) {
    if let Some(bound) = host.authority.book().bound.clone() {
        let state = host.agent().state().unwrap();
        assert!(state.held().any(|key| *key.public() == bound));
    }
}

#[tokio::test]
async fn a_damaged_state_is_not_sent() {
    let host = Host::new().await;
    host.agent().join_once().await.unwrap();
    let document = host.disk.read("state.json").unwrap().unwrap();
    for damage in [
        document[..document.len() / 2].to_vec(),
        Vec::new(),
        String::from_utf8(document.clone())
            .unwrap()
            .replacen("spiffe", "spoffe", 1)
            .replacen("\"token\":\"e", "\"token\":\"f", 1)
            .into_bytes(),
    ] {
        let disk = Arc::new(Memory::default());
        disk.replace("state.json", &damage).unwrap();
        let streams = host.authority.book().streams;
        let error = host.agent_on(disk).join_once().await.unwrap_err();
        assert!(matches!(error, JoinError::Storage(StorageError::Damaged { .. })), "{error}");
        assert_eq!(host.authority.book().streams, streams);
        assert!(advice(&error, "example", Then::Start).unwrap().contains("joinctl reopen example"));
    }
}

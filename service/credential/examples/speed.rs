//! Microseconds per operation on one thread: `cargo run --release -p join-credential --example speed`.

#[path = "../tests/it/world.rs"]
#[allow(dead_code)]
mod world;

use std::{hint::black_box, time::Instant};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use join_credential::{CertificateReader, Subject};
use rustls_pki_types::CertificateDer;

/// Samples of each operation; the median is shown.
const SAMPLES: usize = 21;
const CALLS: u32 = 1000;

fn measure<T>(what: &str, mut operation: impl FnMut() -> T) {
    let mut micros: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..CALLS {
                black_box(operation());
            }
            begin.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    println!("{what:<44} {:>7.1} µs  ({:.1} .. {:.1})", micros[SAMPLES / 2], micros[0], micros[SAMPLES - 1]);
}

fn main() {
    let world = world::World::new();
    let keys = world::subject_keys();
    let join = world.join();
    let grant = join.grant();
    let certificate = CertificateDer::from(world.issue(&join).tls_certificate);
    let certificates = CertificateReader::new(&world.keys).expect("the CA certificate is readable");
    let chain = [certificate];

    // What nothing can be faster than, in the same run.
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key can be made");
    let message = [7; 600];
    let signature = p256.sign(&SystemRandom::new(), &message).expect("a key can sign");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, p256.public_key().as_ref());
    let log = world.keys.log_signer();
    measure("(sign with P-256 alone)", || p256.sign(&SystemRandom::new(), &message));
    measure("(verify with P-256 alone)", || public.verify(&message, signature.as_ref()));
    measure("(sign with Ed25519 alone)", || log.sign(&message));

    measure("check subject keys (P-256 twice)", || Subject::read(&keys));
    measure("issue all three credentials", || world.issuer.issue(&grant));
    measure("  X.509 certificate", || world.issuer.client_certificate(&grant));
    measure("  SSH certificate", || world.issuer.ssh_certificate(&grant));
    measure("  join state", || world.issuer.join_state(&join.join_state));
    measure("read a client certificate", || certificates.read(&chain, world.now));
    let token = world.keys.sealer().seal_token("continuation", &join.join_state);
    measure("seal a continuation", || world.keys.sealer().seal_token("continuation", &join.join_state));
    measure("open a continuation", || {
        world.keys.sealer().open_token::<join_domain::proof::JoinState>("continuation", &token)
    });
}

use chrono::TimeDelta;
use join_credential::{CertificateReader, Presented, Purpose, Role, presented::NotLive};
use join_domain::Timestamp;
use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls_pki_types::CertificateDer;

use crate::{
    administrators::grant,
    world::{World, name},
};

fn read(world: &World, der: &[u8], now: Timestamp) -> Presented {
    let certificates = CertificateReader::new(&world.keys).unwrap();
    let der = CertificateDer::from(der);
    let presented = certificates.read(std::slice::from_ref(&der), now);
    assert_eq!(certificates.is_of_administrator(&der, now), matches!(presented, Presented::Administrator(_)));
    presented
}

#[test]
fn a_bots_certificate_names_token_bot_instance_and_generation() {
    let world = World::new();
    let join = world.join();
    let Presented::Bot(bot) = read(&world, &world.issue(&join).tls_certificate, world.now) else { panic!() };
    assert_eq!((bot.token, &bot.bot, bot.instance, bot.generation), (join.token, &join.bot, join.instance, 7));
    assert_eq!(bot.serial, join.serial.to_string());
}

#[test]
fn an_administrators_certificate_names_who_and_the_role() {
    let world = World::new();
    for role in Role::ALL {
        let mut grant = grant(&world);
        grant.role = role;
        let identity = world.issuer.generate_administrator(&grant).unwrap();
        let der = pem::parse(&identity.certificate).unwrap().into_contents();
        let Presented::Administrator(administrator) = read(&world, &der, world.now) else { panic!("{role}") };
        assert_eq!((administrator.name, administrator.role), (name("alice"), role));
        assert_eq!(administrator.serial, grant.serial);
    }
}

#[test]
fn a_certificate_counts_from_its_first_second_to_its_last() {
    let world = World::new();
    let join = world.join();
    let der = world.issue(&join).tls_certificate;
    let second = TimeDelta::seconds(1);
    assert_eq!(read(&world, &der, join.not_before - second), Presented::None(NotLive::NotYetValid(join.not_before)));
    assert!(matches!(read(&world, &der, join.not_before), Presented::Bot(_)));
    assert!(matches!(read(&world, &der, join.not_after), Presented::Bot(_)));
    assert_eq!(read(&world, &der, join.not_after + second), Presented::None(NotLive::Expired(join.not_after)));
}

#[test]
fn what_this_node_has_issued_is_not_verified_again() {
    let (world, other) = (World::new(), World::new());
    // The only certificates that read without a signature of ours are those that the node says it made.
    let der = other.issue(&other.join()).tls_certificate;
    let certificates = CertificateReader::new(&world.keys).unwrap();
    assert_eq!(certificates.read(&[CertificateDer::from(&*der)], world.now), Presented::None(NotLive::Foreign));
    certificates.issued(&der);
    assert!(matches!(certificates.read(&[CertificateDer::from(&*der)], world.now), Presented::Bot(_)));
}

#[test]
fn a_certificate_that_is_remembered_ends_like_any_other() {
    let world = World::new();
    let join = world.join();
    let der = world.issue(&join).tls_certificate;
    let certificates = CertificateReader::new(&world.keys).unwrap();
    certificates.issued(&der);
    let read = |now| certificates.read(&[CertificateDer::from(&*der)], now);
    let second = TimeDelta::seconds(1);
    assert_eq!(read(join.not_before - second), Presented::None(NotLive::NotYetValid(join.not_before)));
    assert!(matches!(read(join.not_before), Presented::Bot(_)));
    assert!(matches!(read(join.not_after), Presented::Bot(_)));
    assert_eq!(read(join.not_after + second), Presented::None(NotLive::Expired(join.not_after)));
}

#[test]
fn no_certificate_is_none() {
    let world = World::new();
    let certificates = CertificateReader::new(&world.keys).unwrap();
    assert_eq!(certificates.read(&[], world.now), Presented::None(NotLive::Absent));
    assert_eq!(read(&world, b"", world.now), Presented::None(NotLive::Foreign));
    assert_eq!(read(&world, b"rubbish", world.now), Presented::None(NotLive::Foreign));
}

#[test]
fn another_cluster_is_foreign_even_under_the_same_name() {
    let (world, other) = (World::new(), World::new());
    let der = other.issue(&other.join()).tls_certificate;
    assert_eq!(read(&world, &der, world.now), Presented::None(NotLive::Foreign));
}

#[test]
fn our_own_certificates_of_other_use_are_foreign() {
    let world = World::new();
    let server = world.issuer.generate_server_identity(&["localhost".into()], world.now).unwrap();
    for certificate in server.chain {
        assert_eq!(read(&world, &certificate, world.now), Presented::None(NotLive::Foreign));
    }
}

/// A certificate that says everything right, made by somebody with a key of their own.
fn forged(world: &World, template: &[u8]) -> CertificateParams {
    let (_, ours) = x509_parser::parse_x509_certificate(template).unwrap();
    let own = ours.extensions().iter().find(|e| e.oid.to_id_string() == "2.25.424518259384859741").unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "bot-miner");
    params.subject_alt_names = vec![SanType::URI("spiffe://dev.local/bot/miner/x".try_into().unwrap())];
    params.serial_number = Some(ours.raw_serial().to_vec().into());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&[2, 25, 424_518_259_384_859_741], own.value.to_vec())];
    params.not_before = time::OffsetDateTime::from_unix_timestamp(world.now.timestamp() - 60).unwrap();
    params.not_after = time::OffsetDateTime::from_unix_timestamp(world.now.timestamp() + 60).unwrap();
    params
}

#[test]
fn a_forged_certificate_is_foreign() {
    let world = World::new();
    let ours = world.issue(&world.join()).tls_certificate;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificates = CertificateReader::new(&world.keys).unwrap();

    let self_signed = forged(&world, &ours).self_signed(&key).unwrap();
    let none = Presented::None(NotLive::Foreign);
    assert_eq!(read(&world, self_signed.der(), world.now), none);

    // Signed by a key of the forger's under the name of our CA, with our CA in the chain.
    let ca = CertificateDer::from(world.ca_certificate());
    let issuer = rcgen::Issuer::from_ca_cert_der(&ca, &key).unwrap();
    let leaf = forged(&world, &ours).signed_by(&key, &issuer).unwrap();
    assert_eq!(certificates.read(&[leaf.der().clone(), ca.clone()], world.now), none);

    // Signed by a CA of the forger's, which is sent along.
    let mut params = forged(&world, &ours);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own_ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let leaf = forged(&world, &ours).signed_by(&key, &own_ca).unwrap();
    assert_eq!(certificates.read(&[leaf.der().clone(), own_ca.der().clone(), ca], world.now), none);
}

#[test]
fn a_bot_cannot_certify_others_with_its_own_key() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut join = world.join();
    let mut keys = crate::world::subject_keys();
    keys.tls = rcgen::PublicKeyData::subject_public_key_info(&key);
    join.subject = join_credential::Subject::read(&keys).unwrap();
    let own = CertificateDer::from(world.issue(&join).tls_certificate);
    let issuer = rcgen::Issuer::from_ca_cert_der(&own, &key).unwrap();
    let leaf = forged(&world, &own).signed_by(&key, &issuer).unwrap();
    let certificates = CertificateReader::new(&world.keys).unwrap();
    assert_eq!(certificates.read(&[leaf.der().clone(), own], world.now), Presented::None(NotLive::Foreign));
}

#[test]
fn a_certificate_that_was_changed_anywhere_counts_as_none() {
    let world = World::new();
    let der = world.issue(&world.join()).tls_certificate;
    let certificates = CertificateReader::new(&world.keys).unwrap();
    certificates.issued(&der);
    for at in 0..der.len() {
        for bit in [0x01, 0x80] {
            let mut changed = der.clone();
            changed[at] ^= bit;
            let read = certificates.read(&[CertificateDer::from(changed)], world.now);
            assert!(matches!(read, Presented::None(_)), "byte {at}");
        }
    }
}

#[test]
fn certificates_of_a_retired_ca_count_until_it_is_revoked() {
    let mut world = World::new();
    let old = world.keys.active(Purpose::X509Ca).kid().to_owned();
    let before = world.issue(&world.join()).tls_certificate;
    world.keys.prepare(Purpose::X509Ca, world.now).unwrap();
    world.keys.activate(Purpose::X509Ca, world.now).unwrap();
    world.reload();
    let after = world.issue(&world.join()).tls_certificate;
    assert!(matches!(read(&world, &before, world.now), Presented::Bot(_)));
    assert!(matches!(read(&world, &after, world.now), Presented::Bot(_)));
    world.keys.revoke(&old, world.now).unwrap();
    assert_eq!(read(&world, &before, world.now), Presented::None(NotLive::Foreign));
    assert!(matches!(read(&world, &after, world.now), Presented::Bot(_)));
}

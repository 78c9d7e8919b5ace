//! The list of revoked SSH certificates: an OpenSSH key revocation list (PROTOCOL.krl), not signed; it comes over TLS.

use join_domain::Timestamp;

use crate::{issuer::Issuer, serial::Serial};

/// `SSHKRL\n\0`.
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT_VERSION: u32 = 1;
/// `KRL_SECTION_CERTIFICATES`
const CERTIFICATES: u8 = 1;
/// `KRL_SECTION_CERT_SERIAL_LIST`
const SERIAL_LIST: u8 = 0x20;

impl Issuer {
    /// A list with all revoked certificates under each trusted SSH CA: an answer that was given again after a rotation
    /// was signed by two. `version` must grow with every change.
    pub fn key_revocation_list(&self, revoked: &[Serial], version: u64, generated_at: Timestamp) -> Vec<u8> {
        let mut list = Vec::new();
        list.extend(MAGIC.to_be_bytes());
        list.extend(FORMAT_VERSION.to_be_bytes());
        list.extend(version.to_be_bytes());
        list.extend(u64::try_from(generated_at.timestamp()).unwrap_or_default().to_be_bytes());
        list.extend(0_u64.to_be_bytes()); // flags
        string(&mut list, b""); // reserved
        string(&mut list, self.cluster().as_str().as_bytes()); // comment
        if revoked.is_empty() {
            return list;
        }
        let serials: Vec<u8> = revoked.iter().flat_map(|serial| serial.ssh().to_be_bytes()).collect();
        for ca in self.ssh_ca_keys() {
            let mut section = Vec::new();
            string(&mut section, ca);
            string(&mut section, b""); // reserved
            section.push(SERIAL_LIST);
            string(&mut section, &serials);
            list.push(CERTIFICATES);
            string(&mut list, &section);
        }
        list
    }
}

/// A `string` of RFC 4251: its length and its bytes.
fn string(list: &mut Vec<u8>, bytes: &[u8]) {
    list.extend(u32::try_from(bytes.len()).expect("a revocation list stays below 4 GiB").to_be_bytes());
    list.extend_from_slice(bytes);
}

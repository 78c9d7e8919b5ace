//! Randomness: the only place of this crate that asks for it. Keys, and what seals with them, come from `join-credential`.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use join_domain::Timestamp;
use uuid::Uuid;

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct Entropy(SystemRandom);

impl Entropy {
    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        // Without randomness nothing here is safe: stopping is the only right answer.
        self.0.fill(&mut bytes).expect("the operating system gives random bytes");
        bytes
    }

    /// A random UUID (version 4).
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A UUID of a moment (version 7, RFC 9562 section 5.7). Nobody can guess 74 bits of it; and those that are made one
    /// after another stand side by side in an index.
    pub fn uuid_of(&self, moment: Timestamp) -> Uuid {
        let millis = u64::try_from(moment.timestamp_millis()).unwrap_or_default();
        uuid::Builder::from_unix_timestamp_millis(millis, &self.bytes()).into_uuid()
    }

    /// A fraction from 0 up to 1, for jitter.
    pub fn fraction(&self) -> f64 {
        f64::from(u32::from_be_bytes(self.bytes())) / (f64::from(u32::MAX) + 1.0)
    }

    /// A registration secret: 256 bits in hex.
    pub fn secret(&self) -> String {
        hex::encode(self.bytes::<32>())
    }
}

//! Serial numbers of certificates.

use std::{fmt, str::FromStr};

/// The serial number of a pair of certificates: all of it in X.509, its first half in OpenSSH.
///
/// The two highest bits are always 01. So it is a positive DER integer of exactly 16 bytes, it is never zero for
/// OpenSSH, and every tool shows the same 32 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

/// Text that is not a serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number: 32 hex digits, the first of them 4 to 7")]
pub struct SerialError;

impl Serial {
    /// A serial number of 126 of these random bits.
    pub fn from_random(mut bits: [u8; 16]) -> Self {
        bits[0] = bits[0] & 0x3f | 0x40;
        Self(bits)
    }

    /// The bytes as they stand in an X.509 certificate; `None` when this authority never issues such a number.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().filter(|bytes: &[u8; 16]| bytes[0] & 0xc0 == 0x40).map(Self)
    }

    /// The bytes as they stand in an X.509 certificate.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The serial number of the SSH certificate: the first half.
    pub fn ssh(&self) -> u64 {
        let (first, _) = self.0.split_at(8);
        first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| SerialError)?;
        Self::from_bytes(&bytes).ok_or(SerialError)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

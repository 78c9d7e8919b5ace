//! The text of a checkpoint (c2sp.org/tlog-checkpoint).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use crate::merkle::Hash;

/// What a log says of itself: its name, its size and its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// The number of entries.
    pub size: u64,
    /// The root of the tree.
    #[serde(serialize_with = "in_base64")]
    pub root: Hash,
}

impl Checkpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines();
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err("it is not three lines: origin, size and root");
        };
        let number: u64 = size.parse().map_err(|_| "its size is not a number")?;
        if origin.is_empty() || number.to_string() != size {
            return Err("its origin is empty, or its size is not a plain decimal");
        }
        let root = BASE64
            .decode(root)
            .ok()
            .and_then(|root| root.try_into().ok())
            .ok_or("its root is not 32 bytes in base64")?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

fn in_base64<S: serde::Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(hash))
}

//! Where one message on the wire ends and the next begins.

use bytes::{Bytes, BytesMut};

/// Cuts a direction of a connection into messages.
#[derive(Debug)]
pub enum Framing {
    /// TLS records (RFC 8446, 5.1).
    Tls,
    /// What a client says to PostgreSQL; its first messages have no type. True once those are over.
    Frontend(bool),
    /// What PostgreSQL says; true once its first byte was looked at.
    Backend(bool),
}

/// Of `StartupMessage` 3.0 and the cancellation of a request; the third untyped message asks for TLS.
const ASKS_FOR_TLS: u32 = 80_877_103;

impl Framing {
    /// Takes the next whole message out of `buffer`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Option<Bytes> {
        let length = match self {
            Self::Tls => 5 + usize::from(u16::from_be_bytes([*buffer.get(3)?, *buffer.get(4)?])),
            Self::Frontend(false) => number(buffer, 0)? as usize,
            // No TLS: one byte, which no length follows.
            Self::Backend(false) if *buffer.first()? == b'N' => 1,
            Self::Frontend(true) | Self::Backend(_) => 1 + number(buffer, 1)? as usize,
        };
        if buffer.len() < length {
            return None;
        }
        match self {
            Self::Tls => {}
            Self::Frontend(typed) => *typed = *typed || number(buffer, 4)? != ASKS_FOR_TLS,
            Self::Backend(begun) => *begun = true,
        }
        Some(buffer.split_to(length).freeze())
    }
}

fn number(buffer: &BytesMut, at: usize) -> Option<u32> {
    buffer.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end() {
        let cut = |mut framing: Framing, bytes: &[u8]| {
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            // Byte by byte: nothing is concluded from a message that is not whole.
            for byte in bytes {
                found.extend(framing.next(&mut buffer).map(|message| message.len()));
                buffer.extend([*byte]);
            }
            found.extend(framing.next(&mut buffer).map(|message| message.len()));
            (found, buffer.len())
        };
        assert_eq!(cut(Framing::Tls, &[22, 3, 3, 0, 2, 1, 2, 23, 3, 3, 0, 1, 9, 23, 3]), (vec![7, 6], 2));
        let mut asked = vec![0, 0, 0, 8, 4, 210, 22, 47];
        asked.extend([0, 0, 0, 9, 0, 3, 0, 0, 7]);
        asked.extend([b'S', 0, 0, 0, 4]);
        assert_eq!(cut(Framing::Frontend(false), &asked), (vec![8, 9, 5], 0));
        assert_eq!(cut(Framing::Backend(false), &[b'N', b'R', 0, 0, 0, 8, 0, 0, 0, 0, b'Z']), (vec![1, 9], 1));
    }
}

//! Rows in PostgreSQL's binary COPY format, the fastest way into a table.
//!
//! Written by hand because the driver takes the bytes as they are, inside a transaction that it also uses for everything
//! else; the format (PostgreSQL's manual, "COPY", "Binary Format") is a header, then for each row its number of fields and
//! each field's length and bytes, and an end.

use join_domain::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::LedgerError;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// PostgreSQL counts microseconds from 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// A field of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uuid(Uuid),
    Text(&'a str),
    Time(Timestamp),
}

impl<'a> Field<'a> {
    /// NULL where there is nothing.
    pub(crate) fn or_null<T>(value: Option<T>, field: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, field)
    }
}

/// Rows on their way into a table.
#[derive(Debug)]
pub(crate) struct Rows(Vec<u8>);

impl Rows {
    pub(crate) fn new() -> Self {
        Self(HEADER.to_vec())
    }

    pub(crate) fn push<const N: usize>(&mut self, row: [Field<'_>; N]) {
        self.0.extend(i16::try_from(N).unwrap_or(i16::MAX).to_be_bytes());
        for field in row {
            match field {
                Field::Null => self.0.extend(NULL),
                Field::Bool(value) => self.bytes(&[u8::from(value)]),
                Field::Int(value) => self.bytes(&value.to_be_bytes()),
                Field::Uuid(value) => self.bytes(value.as_bytes()),
                Field::Text(value) => self.bytes(value.as_bytes()),
                Field::Time(value) => {
                    self.bytes(&value.timestamp_micros().saturating_sub(EPOCH).to_be_bytes());
                }
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // PostgreSQL itself refuses a field of a gigabyte.
        self.0.extend(i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// Sends them; `into` names table, columns and options: `COPY {into}`.
    pub(crate) async fn send(mut self, connection: &mut PgConnection, into: &str) -> Result<(), LedgerError> {
        self.0.extend(END);
        let mut copy = connection.copy_in_raw(into).await?;
        copy.send(self.0).await?;
        copy.finish().await?;
        Ok(())
    }
}

//! What stands around a specification.

use join_domain::{
    Timestamp,
    id::Name,
    refusal::Refusal,
    resource::{Labels, MAX_ITEMS, MAX_VALUE, is_label},
};
use join_proto::v1;

use crate::{
    shown,
    time::{optional_time, to_wire_time},
};

/// What stands around a specification.
#[derive(Debug, Clone)]
pub struct Head {
    /// The name; empty when none was written.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Expiry.
    pub expires: Option<Timestamp>,
    /// The revision that was edited; empty when none was written.
    pub revision: String,
    kind: &'static str,
}

impl Head {
    /// Reads kind, version and metadata.
    pub(crate) fn read(
        expected: (&'static str, &str),
        kind: &str,
        version: &str,
        metadata: Option<v1::Metadata>,
    ) -> Result<Self, Refusal> {
        for (field, written, expected) in [("kind", kind, expected.0), ("version", version, expected.1)] {
            if !written.is_empty() && written != expected {
                return Err(Refusal::invalid(field, format!("`{}` must be `{expected}` here", shown(written))));
            }
        }
        let metadata = metadata.unwrap_or_default();
        if metadata.labels.len() > MAX_ITEMS {
            return Err(Refusal::invalid("metadata.labels", format!("more than {MAX_ITEMS} labels")));
        }
        if let Some((key, _)) = metadata.labels.iter().find(|(key, value)| !is_label(key, value)) {
            return Err(Refusal::invalid(
                &format!("metadata.labels.{}", shown(key)),
                format!(
                    "a label has a key of 1 to {MAX_VALUE} printable bytes without = and , and a value up to that length"
                ),
            ));
        }
        Ok(Self {
            name: metadata.name,
            labels: metadata.labels.into_iter().collect(),
            expires: optional_time("metadata.expires", metadata.expires.as_ref())?,
            revision: metadata.revision,
            kind: expected.0,
        })
    }

    /// The name, which must be one.
    ///
    /// # Errors
    /// INVALID_REQUEST.
    pub fn name(&self) -> Result<Name, Refusal> {
        let invalid = |why: String| Refusal::invalid("metadata.name", why);
        if self.name.is_empty() {
            return Err(invalid(format!("missing; a {} needs a name", self.kind)));
        }
        self.name.parse::<Name>().map_err(|error| invalid(error.to_string()))
    }

    /// Refuses what this kind has no use for: dropped in silence, it would look as if it counted.
    pub(crate) fn has_none(&self, field: &str, is_empty: bool) -> Result<(), Refusal> {
        let refused =
            || Refusal::invalid(&format!("metadata.{field}"), format!("not for the kind {}: leave it out", self.kind));
        is_empty.then_some(()).ok_or_else(refused)
    }

    pub(crate) fn write(name: String, labels: &Labels, expires: Option<Timestamp>, revision: u64) -> v1::Metadata {
        v1::Metadata {
            name,
            labels: labels.clone().into_iter().collect(),
            expires: expires.map(to_wire_time),
            revision: revision.to_string(),
        }
    }
}

//! Exemptions.

use join_domain::{
    Timestamp,
    decision::administer::{GrantAsked, ONLY_REVISION},
    refusal::Refusal,
    resource::ExemptionKind,
    state::{TokenState, token::Grant},
};
use join_proto::v1;

use crate::{Head, time::to_wire_time};

/// Reads an exemption: the token's name (empty with a selector) and what is asked for.
///
/// # Errors
/// INVALID_REQUEST with the field.
pub fn read_exemption(exemption: v1::Exemption) -> Result<(String, GrantAsked), Refusal> {
    let head = Head::read(("exemption", "v1"), &exemption.kind, &exemption.version, exemption.metadata)?;
    head.has_none("name", head.name.is_empty())?;
    head.has_none("labels", head.labels.is_empty())?;
    head.has_none("revision", head.revision.is_empty())?;
    let spec = exemption.spec.unwrap_or_default();
    let kind = spec.kind.parse::<ExemptionKind>().map_err(|error| Refusal::invalid("spec.kind", error))?;
    let asked = GrantAsked { kind, count: spec.count, uses: spec.uses, expires: head.expires, reason: spec.reason };
    Ok((spec.token_name, asked))
}

/// Writes an exemption of a token.
pub fn write_exemption(token: &TokenState, grant: &Grant, now: Timestamp) -> v1::Exemption {
    let state = if grant.revoked {
        "revoked"
    } else if grant.uses_left == 0 {
        "spent"
    } else if now >= grant.expires {
        "expired"
    } else {
        "open"
    };
    v1::Exemption {
        kind: "exemption".to_owned(),
        version: "v1".to_owned(),
        metadata: Some(Head::write(grant.id.to_string(), &token.spec.labels, Some(grant.expires), ONLY_REVISION)),
        spec: Some(v1::ExemptionSpec {
            token_name: token.name.to_string(),
            kind: grant.kind.as_str().to_owned(),
            count: 1,
            uses: grant.uses,
            reason: grant.reason.clone(),
        }),
        status: Some(v1::ExemptionStatus {
            granted_by: grant.granted_by.clone(),
            granted_at: Some(to_wire_time(grant.granted_at)),
            uses_left: grant.uses_left,
            state: state.to_owned(),
        }),
    }
}

//! What each kind of join leaves in its token's history: kinds of events, in their order.

/// A first join by registration secret.
pub(crate) const REGISTERED: &[&str] = &[
    "challenge.issued",
    "challenge.solved",
    "registration_secret.spent",
    "keypair.bound",
    "recovery.consumed",
    "join.accepted",
];
/// A first join by preregistered key.
pub(crate) const FIRST: &[&str] =
    &["challenge.issued", "challenge.solved", "keypair.bound", "recovery.consumed", "join.accepted"];
pub(crate) const RECOVERED: &[&str] = &["challenge.issued", "challenge.solved", "recovery.consumed", "join.accepted"];
pub(crate) const RENEWED: &[&str] = &["challenge.issued", "challenge.solved", "generation.bumped", "join.accepted"];
/// A renewal with a rotation.
pub(crate) const RENEWED_AND_ROTATED: &[&str] = &[
    "challenge.issued",
    "challenge.solved",
    "challenge.issued",
    "challenge.solved",
    "keypair.rotated",
    "generation.bumped",
    "join.accepted",
];
/// A recovery with a rotation.
pub(crate) const RECOVERED_AND_ROTATED: &[&str] = &[
    "challenge.issued",
    "challenge.solved",
    "challenge.issued",
    "challenge.solved",
    "keypair.rotated",
    "recovery.consumed",
    "join.accepted",
];
pub(crate) const RESUMED: &[&str] = &["challenge.issued", "challenge.solved", "join.resumed"];
/// A refusal after a key was proven.
pub(crate) const REFUSED: &[&str] = &["challenge.issued", "challenge.solved", "join.refused"];
/// The same, by a rule that locks.
pub(crate) const REFUSED_AND_LOCKED: &[&str] =
    &["challenge.issued", "challenge.solved", "join.refused", "lock.created"];
/// A refusal after the registration secret was shown.
pub(crate) const REFUSED_AFTER_SECRET: &[&str] = &["join.refused"];
/// Nothing at all: strangers write nothing.
pub(crate) const NOTHING: &[&str] = &[];

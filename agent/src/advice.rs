//! What an administrator must type, when a join can't succeed without one.

use join_domain::refusal::Code;

use crate::{
    error::{JoinError, Refused},
    storage::StorageError,
};

/// How the next join comes about, once somebody has done what is advised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// This process ends: somebody starts it again.
    Start,
    /// This process is a daemon that goes on trying.
    Wait,
}

/// What to do about a failed join of token `name`, in words that can be typed; nothing when trying again is all.
pub fn advice(error: &JoinError, name: &str, then: Then) -> Option<String> {
    let start = match then {
        Then::Start => "start",
        Then::Wait => "restart",
    };
    let reopen =
        format!("`joinctl reopen {name} --reason \"…\"`; then {start} this agent with the new registration secret");
    match error {
        JoinError::Refused(refused) => of_refusal(refused, name, &reopen, then),
        JoinError::Secret(_) => Some(find_secret(name, &reopen)),
        JoinError::KeyNotHeld(_) => Some(format!(
            "use the storage directory that holds this key; if the host was reinstalled, or the authority was restored to a \
             time before this agent's newest key, an administrator types {reopen}"
        )),
        JoinError::NoStaticKey(_) => Some(format!(
            "set JOINBOT_STATIC_KEY, or static_private_key_path under onboarding.bound_keypair, to the key that the token \
             is bound to (`joinctl get token/{name}` shows its public half); or use a storage directory, which keeps the \
             key from one start to the next"
        )),
        JoinError::StaticKey => Some(format!(
            "make a new static key (`joinbot keypair create --static`); an administrator types \
             `joinctl reopen {name} --reason \"…\"`, and then sets the public half as \
             spec.bound_keypair.onboarding.initial_public_key with `joinctl edit token/{name}`; or unset rotate_after"
        )),
        JoinError::Storage(StorageError::Damaged { .. }) => Some(format!(
            "do not put an older copy in its place, it would look like a second holder; move the file away and have an \
             administrator type {reopen}"
        )),
        JoinError::Certificate(_) => Some(
            "check this host's clock, and that `auth_server` is a name or address in the server's certificate"
                .to_owned(),
        ),
        JoinError::Network(_)
        | JoinError::Untrusted(_)
        | JoinError::NoTrust
        | JoinError::NoPinInUri
        | JoinError::OtherIdentity { .. }
        | JoinError::Challenge(_)
        | JoinError::Result(_)
        | JoinError::Unexpected(_)
        | JoinError::Storage(_)
        | JoinError::Output(_) => None,
    }
}

fn find_secret(name: &str, reopen: &str) -> String {
    format!(
        "an administrator finds the secret with `joinctl get token/{name} --format json`; if it was used or has \
         expired: {reopen}"
    )
}

fn of_refusal(refused: &Refused, name: &str, reopen: &str, then: Then) -> Option<String> {
    let unchanged = match then {
        Then::Start => "then start this agent again; nothing has to change on this host",
        Then::Wait => "this agent then goes on by itself; nothing has to change on this host",
    };
    let after_check = || {
        let lock =
            refused.lock_id.as_ref().map(|id| format!(" (lock {id}: `joinctl get lock/{id}`)")).unwrap_or_default();
        format!(
            "two holders of this identity may exist{lock}: check this host, then an administrator types \
             `joinctl reinstate {name} --reason \"…\"`; {unchanged}"
        )
    };
    Some(match refused.code? {
        Code::RecoveryLimitExhausted => format!(
            "an administrator raises spec.bound_keypair.recovery.limit with `joinctl edit token/{name}`, or allows one more \
             recovery with `joinctl exempt {name} --kind recoveries --reason \"…\"`; {unchanged}"
        ),
        Code::JoinStateInvalid | Code::GenerationMismatch | Code::RetiredKey => after_check(),
        Code::Locked => {
            let id = refused.lock_id.as_deref().unwrap_or("ID");
            format!(
                "`joinctl get lock/{id}` says who locked and why. If a rule did, two holders of this identity may exist: check \
                 this host, then an administrator types `joinctl reinstate {name} --reason \"…\"`. If an administrator did, \
                 `joinctl rm lock/{id}` ends it. In both cases, {unchanged}"
            )
        }
        Code::JoinStateRequired => {
            format!("an administrator types `joinctl exempt {name} --kind join_state --reason \"…\"`; {unchanged}")
        }
        Code::RegistrationSecretRequired => format!(
            "{}. A static key needs no secret: its public half is set as spec.bound_keypair.onboarding.initial_public_key \
             with `joinctl edit token/{name}`",
            find_secret(name, reopen)
        ),
        Code::ChallengeFailed => format!(
            "the key in this storage is not the one that the token is bound to; if the host was reinstalled an administrator \
             types {reopen}"
        ),
        Code::AccessDenied => format!(
            "an administrator checks with `joinctl get token/{name}` that the token exists and has not expired, and with \
             `joinctl get bot/BOT` that neither has its bot"
        ),
        Code::BindingNotAllowed | Code::InstanceMismatch => {
            format!("an administrator looks at `joinctl get token/{name}` and `joinctl audit ls --token {name}`")
        }
        Code::AuthorityBehind => format!(
            "the authority has lost history (restored from a backup?): once that is understood, an administrator types the \
             command that it names, such as `joinctl exempt {name} --kind join_state --reason \"…\"`; {unchanged}"
        ),
        Code::RotationFailed | Code::KeyReused | Code::KeyAlreadyBound => format!(
            "an administrator looks at `joinctl audit ls --token {name}`; without the rotation the join would go on: \
             unset rotate_after with `joinctl edit token/{name}`"
        ),
        Code::UnsupportedKey => "use an Ed25519 or ECDSA P-256 key: `joinbot keypair create`".to_owned(),
        Code::Unimplemented => {
            format!("the token's join method must be bound_keypair: `joinctl get token/{name}`")
        }
        Code::Conflict
        | Code::RateLimited
        | Code::Unavailable
        | Code::Internal
        | Code::InvalidRequest
        | Code::Unauthenticated
        | Code::RoleRequired
        | Code::NotFound
        | Code::AlreadyExists
        | Code::StaleRevision => return None,
    })
}

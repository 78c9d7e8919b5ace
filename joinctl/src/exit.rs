//! How a command ends: what stderr says, and the exit code that scripts read.

use std::{fmt, process::ExitCode};

use anyhow::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    connection::Unreachable,
    explain,
    interrupt::{INTERRUPTED, Interrupted},
    output,
};

/// Refused, or wrong usage.
const REFUSED: u8 = 1;
/// The server could not be reached, or can't serve at the moment.
const UNREACHABLE: u8 = 2;
/// A verification found a fault.
const FAULT: u8 = 3;

/// What a verification found to be wrong; the command ends with exit code 3.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Prints what clap has to say. Help and version are no errors; wrong usage ends with 1, not with clap's own 2.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the terminal is gone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

/// Prints why the command failed and chooses its exit code. A reader of stdout that has gone away (`| head`) is no
/// failure and gets no message.
pub(crate) fn report(error: &Error) -> ExitCode {
    if output::is_unread(error) {
        return ExitCode::SUCCESS;
    }
    output::say(format!("error: {}", sentence(error)));
    if let Some(code) = refusal_code(error).filter(|code| explain::page(code).is_some()) {
        output::say(format!("see: joinctl explain {code}"));
    }
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Fault>()) {
        FAULT
    } else if error.chain().any(|cause| cause.is::<Interrupted>()) {
        INTERRUPTED
    } else if error.chain().any(|cause| cause.is::<Unreachable>()) || status(error).is_some_and(is_unreachable) {
        UNREACHABLE
    } else {
        REFUSED
    }
}

/// True for the server's own UNAVAILABLE, for an answer that did not come in time, and for a connection that broke: only
/// the last has a source.
pub(crate) fn is_unreachable(status: &Status) -> bool {
    is_unavailable(status) || std::error::Error::source(status).is_some()
}

/// True when no answer says whether what was asked for is done: it was lost or not waited for, or the authority failed on
/// the way.
pub(crate) fn is_outcome_unknown(error: &Error) -> bool {
    error.chain().any(|cause| cause.is::<Interrupted>())
        || status(error).is_some_and(|status| {
            is_unreachable(status) || matches!(status.code(), Code::Internal | Code::Unknown | Code::Cancelled)
        })
}

/// True when nothing came back at all: what was asked for may be going on.
pub(crate) fn is_unanswered(error: &Error) -> bool {
    is_outcome_unknown(error) && refusal_code(error).is_none()
}

fn is_unavailable(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

fn status(error: &Error) -> Option<&Status> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

/// The stable code of a refusal, such as `LOCKED`.
fn refusal_code(error: &Error) -> Option<String> {
    code_of(status(error)?)
}

/// The stable code of a refusal, when the answer carries one.
fn code_of(status: &Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == join_proto::ERROR_DOMAIN).then_some(info.reason)
}

/// The causes in one sentence, outermost first; a gRPC status is the last that people need to see.
fn sentence(error: &Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        if let Some(status) = cause.downcast_ref::<Status>() {
            parts.push(refusal(status));
            break;
        }
        parts.push(cause.to_string());
    }
    parts.join(": ")
}

/// What an answer says, with its stable code when it carries one.
pub(crate) fn refusal(status: &Status) -> String {
    if let Some(code) = code_of(status) {
        return format!("{} ({code})", status.message());
    }
    match std::error::Error::source(status) {
        Some(source) => format!("the connection broke: {}", crate::connection::root_cause(source)),
        None if is_unavailable(status) => status.message().to_owned(),
        None => format!("{} ({})", status.message(), status.code().description()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::{Context as _, anyhow};
    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, join_proto::ERROR_DOMAIN, []);
        Status::with_error_details(code, "token example is locked", details)
    }

    #[test]
    fn a_refusal_is_told_with_its_code_and_what_was_being_done() {
        let error = Error::from(refused(Code::PermissionDenied, "LOCKED")).context("token/example");
        assert_eq!(sentence(&error), "token/example: token example is locked (LOCKED)");
        assert_eq!(refusal_code(&error).as_deref(), Some("LOCKED"));
        assert_eq!(exit_code(&error), REFUSED);
    }

    #[test]
    fn an_answer_without_details_is_told_with_its_grpc_code() {
        let error = Error::from(Status::unimplemented("no such method"));
        assert_eq!(sentence(&error), "no such method (Operation is not implemented or not supported)");
        assert_eq!(exit_code(&error), REFUSED);
    }

    #[test]
    fn exit_codes_tell_the_families_apart() {
        assert_eq!(exit_code(&anyhow!("unknown kind")), REFUSED);
        assert_eq!(exit_code(&refused(Code::Unavailable, "UNAVAILABLE").into()), UNREACHABLE);
        let late = Error::from(Status::deadline_exceeded("no answer within 60 s"));
        assert_eq!((sentence(&late).as_str(), exit_code(&late)), ("no answer within 60 s", UNREACHABLE));
        assert_eq!(exit_code(&Error::from(Fault("entry 7 was changed".into())).context("audit")), FAULT);
        let gone = Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionReset))
            .map_err(|error| Status::from_error(Box::new(error)))
            .context("listing")
            .unwrap_err();
        assert_eq!(exit_code(&gone), UNREACHABLE);
        assert_eq!(exit_code(&Error::from(Interrupted).context("token/example")), INTERRUPTED);
    }

    #[test]
    fn a_refusal_says_that_nothing_is_done_and_a_failure_does_not() {
        let is_unknown = |error: Status| is_outcome_unknown(&Error::from(error).context("token/example"));
        for status in [
            refused(Code::Unavailable, "UNAVAILABLE"),
            refused(Code::Internal, "INTERNAL"),
            Status::deadline_exceeded("no answer within 60 s"),
            Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset))),
        ] {
            assert!(is_unknown(status.clone()), "{status}");
        }
        assert!(is_outcome_unknown(&Interrupted.into()));
        for status in [refused(Code::AlreadyExists, "ALREADY_EXISTS"), refused(Code::PermissionDenied, "LOCKED")] {
            assert!(!is_unknown(status.clone()), "{status}");
        }
        assert!(!is_outcome_unknown(&anyhow!("unknown kind")));
        assert!(is_unanswered(&Status::deadline_exceeded("no answer within 60 s").into()));
        assert!(!is_unanswered(&refused(Code::Unavailable, "UNAVAILABLE").into()), "it says what happened");
    }
}

//! How errors look at the terminal, and what the exit code says.

use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Exit codes, as `pavior help` lists them.
pub mod exit {
    /// The operation failed, or something that has no code of its own.
    pub const FAILED: u8 = 1;
    /// The command line or the request is wrong.
    pub const USAGE: u8 = 2;
    /// Not logged in, or not allowed.
    pub const DENIED: u8 = 3;
    /// It does not exist.
    pub const NOT_FOUND: u8 = 4;
    /// It exists already, has changed meanwhile, or its state or a policy forbids it.
    pub const CONFLICT: u8 = 5;
    /// It waits for approval.
    pub const AWAITING_APPROVAL: u8 = 6;
    /// The server, or something that it needs, cannot be reached.
    pub const UNAVAILABLE: u8 = 7;
    /// Interrupted while watching, as shells count it; what was watched goes on.
    pub const INTERRUPTED: u8 = 130;
}

/// A command that ended otherwise than well, with its exit code and nothing more to say.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Ended {
    /// What to say.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

/// A mistake on the command line, or in what it points at.
pub(crate) fn wrong_usage(message: impl Into<String>) -> anyhow::Error {
    Ended { message: message.into(), code: exit::USAGE }.into()
}

/// Errors that are the caller's own mistake.
pub(crate) trait OrUsage<T> {
    /// The same error, as one of usage.
    fn or_usage(self) -> anyhow::Result<T>;
}

impl<T> OrUsage<T> for anyhow::Result<T> {
    fn or_usage(self) -> anyhow::Result<T> {
        self.map_err(|error| wrong_usage(format!("{error:#}")))
    }
}

/// Names the server in an error that never came from it.
pub(crate) fn at_server(error: anyhow::Error, server: &str) -> anyhow::Error {
    let unreached = error.chain().filter_map(|cause| cause.downcast_ref::<Status>()).any(is_local);
    if unreached { error.context(format!("cannot reach `{server}`")) } else { error }
}

/// Says which files the documents of a refused import came from: the server knows them by their place only.
pub(crate) fn name_documents(status: Status, origins: &[String]) -> anyhow::Error {
    let message = status.message();
    let fields =
        status.get_error_details().bad_request().map(|b| b.field_violations.clone()).unwrap_or_default();
    let mut named: Vec<String> = Vec::new();
    for (index, origin) in origins.iter().enumerate() {
        let place = format!("documents[{index}]");
        if message.contains(&place) || fields.iter().any(|violation| violation.field.starts_with(&place)) {
            named.push(format!("{place} is {}", origin.trim_start_matches("file:")));
        }
    }
    let error = anyhow::Error::from(status);
    if named.is_empty() { error } else { error.context(named.join(", ")) }
}

/// True for a status that the client made itself because the connection failed: what a server says has no cause here.
pub(crate) fn is_local(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(ended) = cause.downcast_ref::<Ended>() {
            return ended.code;
        }
        if let Some(status) = cause.downcast_ref::<Status>() {
            if is_local(status) {
                return exit::UNAVAILABLE;
            }
            return match status.code() {
                Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => exit::USAGE,
                Code::Unauthenticated | Code::PermissionDenied => exit::DENIED,
                Code::NotFound => exit::NOT_FOUND,
                Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => exit::CONFLICT,
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => exit::UNAVAILABLE,
                _ => exit::FAILED,
            };
        }
    }
    exit::FAILED
}

/// The error for people: the message, then the reason, the fields, the rules and what to do.
pub fn describe(error: &anyhow::Error) -> String {
    let mut out = String::new();
    for cause in error.chain() {
        if let Some(status) = cause.downcast_ref::<Status>() {
            describe_status(status, &mut out);
            break;
        }
        let text = cause.to_string();
        match cause.downcast_ref::<Ended>() {
            // Nothing is wrong: it waits for people, or somebody stopped watching.
            Some(ended) if matches!(ended.code, exit::AWAITING_APPROVAL | exit::INTERRUPTED) => {
                out.push_str(&text);
            }
            // Libraries repeat their cause; once is enough.
            _ if out.contains(&text) => {}
            _ => {
                let _ = write!(out, "{}{text}", lead(&out));
            }
        }
    }
    out
}

fn lead(out: &str) -> &'static str {
    if out.is_empty() { "error: " } else { "\n  because: " }
}

fn describe_status(status: &Status, out: &mut String) {
    let _ = write!(out, "{}{}", lead(out), status.message());
    if is_local(status) {
        describe_connection(status, out);
        return;
    }
    let details = status.get_error_details();
    if let Some(info) = details.error_info() {
        let _ = write!(out, "\n  reason: {} ({})", info.reason, code_name(status.code()));
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        for (key, value) in metadata {
            let _ = write!(out, "\n  {key}: {value}");
        }
    } else {
        let _ = write!(out, "\n  reason: {}", code_name(status.code()));
    }
    match details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default() {
        // The message has said already what is wrong with it.
        [only] if status.message().contains(&only.description) => {
            let _ = write!(out, "\n  field: {}", only.field);
        }
        violations => {
            for violation in violations {
                let _ = write!(out, "\n  field {}: {}", violation.field, violation.description);
            }
        }
    }
    for violation in details.precondition_failure().map(|p| p.violations.as_slice()).unwrap_or_default() {
        let _ = write!(out, "\n  rule {}: {}", violation.subject, violation.description);
    }
    if let Some(retry) = details.retry_info().and_then(|r| r.retry_delay) {
        let _ = write!(out, "\n  try again in {} s", retry.as_secs().max(1));
    }
    if status.code() == Code::Unauthenticated {
        out.push_str(
            "\n  log in, again if the token has expired: pavior login --server URL --token-stdin < TOKEN_FILE",
        );
    }
}

/// Why there was no connection: the innermost cause says it best.
fn describe_connection(status: &Status, out: &mut String) {
    let mut cause = std::error::Error::source(status);
    let mut last = None;
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    if let Some(last) = last.filter(|last| !out.contains(last)) {
        let _ = write!(out, ": {last}");
    }
    out.push_str("\n  is the server up, and is the address right, http:// or https://? `pavior serve --all` starts one");
}

/// A code's name as gRPC writes it.
pub fn code_name(code: Code) -> String {
    let text = format!("{code:?}");
    let mut out = String::with_capacity(text.len() + 3);
    for (i, c) in text.chars().enumerate() {
        if i > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation};

    #[test]
    fn an_error_shows_reason_and_fields() {
        let mut details =
            ErrorDetails::with_error_info("INVALID_FIELD", "pavior.dev", [("a".into(), "b".into())]);
        details.set_bad_request(vec![FieldViolation::new("project.owner", "is required")]);
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
        let error = anyhow::Error::from(status).context("project `x`");
        let text = describe(&error);
        for part in
            ["project `x`", "INVALID_FIELD (INVALID_ARGUMENT)", "field project.owner: is required", "a: b"]
        {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(exit_code(&error), exit::USAGE);
    }

    #[test]
    fn a_single_field_is_not_said_twice() {
        let mut details = ErrorDetails::with_error_info("INVALID_FIELD", "pavior.dev", []);
        details.set_bad_request(vec![FieldViolation::new("project.owner", "is required")]);
        let status =
            Status::with_error_details(Code::InvalidArgument, "`project.owner`: is required", details);
        let text = describe(&status.into());
        assert_eq!(text.matches("is required").count(), 1, "{text}");
        assert!(text.contains("\n  field: project.owner"), "{text}");
    }

    #[test]
    fn waiting_is_no_error_and_a_cause_is_said_once() {
        let ended = |code| anyhow::Error::from(Ended { message: "so it is".to_owned(), code });
        assert_eq!(describe(&ended(exit::AWAITING_APPROVAL)), "so it is");
        assert_eq!(describe(&ended(exit::INTERRUPTED)), "so it is");
        assert_eq!(describe(&ended(exit::USAGE)), "error: so it is");
        let error = anyhow::anyhow!("no table").context("the database said: no table").context("cannot read");
        assert_eq!(describe(&error), "error: cannot read\n  because: the database said: no table");
    }

    #[test]
    fn mistakes_of_usage_have_their_code_wherever_they_stand() {
        let error: anyhow::Result<()> = Err(anyhow::anyhow!("inner").context("outer"));
        let error = error.or_usage().unwrap_err();
        assert_eq!((error.to_string().as_str(), exit_code(&error)), ("outer: inner", exit::USAGE));
        assert_eq!(exit_code(&error.context("more")), exit::USAGE);
    }

    #[test]
    fn codes_are_named_as_grpc_names_them() {
        assert_eq!(code_name(Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(Code::Ok), "OK");
    }
}

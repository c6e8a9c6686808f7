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

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(ended) = cause.downcast_ref::<Ended>() {
            return ended.code;
        }
        if let Some(status) = cause.downcast_ref::<Status>() {
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
    for (depth, cause) in error.chain().enumerate() {
        match cause.downcast_ref::<Status>() {
            Some(status) => {
                describe_status(status, &mut out);
                break;
            }
            None if depth == 0 => {
                let _ = write!(out, "error: {cause}");
            }
            None => {
                let _ = write!(out, "\n  because: {cause}");
            }
        }
    }
    out
}

fn describe_status(status: &Status, out: &mut String) {
    let lead = if out.is_empty() { "error: " } else { "\n  because: " };
    let _ = write!(out, "{lead}{}", status.message());
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
    for violation in details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default() {
        let _ = write!(out, "\n  field {}: {}", violation.field, violation.description);
    }
    for violation in details.precondition_failure().map(|p| p.violations.as_slice()).unwrap_or_default() {
        let _ = write!(out, "\n  rule {}: {}", violation.subject, violation.description);
    }
    if let Some(retry) = details.retry_info().and_then(|r| r.retry_delay) {
        let _ = write!(out, "\n  try again in {} s", retry.as_secs().max(1));
    }
    if let Some(fix) = advice(status.code()) {
        let _ = write!(out, "\n  {fix}");
    }
}

fn advice(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some("log in: pavior login --server URL --token-stdin"),
        Code::Unavailable => Some("is the server up? `pavior serve --all` starts one"),
        _ => None,
    }
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
    fn codes_are_named_as_grpc_names_them() {
        assert_eq!(code_name(Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(Code::Ok), "OK");
    }
}

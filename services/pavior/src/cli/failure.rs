//! How errors look at the terminal, and what the exit code says.

use std::fmt::Write as _;

use pavior_rpc::ErrorReason;
use pavior_rpc::problem::{self, Decoded};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::exit::Exit;

/// A command that ended otherwise than well, with its exit code and nothing more to say.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Ended {
    /// What to say.
    pub message: String,
    /// The exit code.
    pub exit: Exit,
}

/// A mistake on the command line, or in what it points at.
pub(crate) fn wrong_usage(message: impl Into<String>) -> anyhow::Error {
    Ended { message: message.into(), exit: Exit::Usage }.into()
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

/// Adds the server's address to an error of the connection itself.
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

/// Whether a status says that the caller may not do what was asked, or is not known.
pub(super) fn refuses_caller(status: &Status) -> bool {
    !is_local(status) && exit_of_status(status) == Exit::Denied
}

/// The exit code for an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(ended) = cause.downcast_ref::<Ended>() {
            return ended.exit;
        }
        if let Some(status) = cause.downcast_ref::<Status>() {
            return exit_of_status(status);
        }
    }
    Exit::Failed
}

/// The reason says more than the code: the end of an operation and the refusal of a request have codes of their own.
fn exit_of_status(status: &Status) -> Exit {
    if is_local(status) {
        return Exit::Unavailable;
    }
    let decoded = problem::from_status(status);
    let reasons = [
        (ErrorReason::GuardrailDenied, Exit::Forbidden),
        (ErrorReason::NotApproved, Exit::Forbidden),
        (ErrorReason::StepFailed, Exit::OperationFailed),
        (ErrorReason::ArtifactChanged, Exit::OperationFailed),
        (ErrorReason::OperationStuck, Exit::Stuck),
        (ErrorReason::Cancelled, Exit::Cancelled),
    ];
    if let Some((_, exit)) = reasons.into_iter().find(|(reason, _)| decoded.is(*reason)) {
        return exit;
    }
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Exit::Usage,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
        Code::NotFound => Exit::NotFound,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Exit::Conflict,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Exit::Unavailable,
        _ => Exit::Failed,
    }
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
            // Nothing is wrong: it waits for people, or goes on and is not watched.
            Some(ended)
                if matches!(ended.exit, Exit::AwaitingApproval | Exit::Interrupted | Exit::Accepted) =>
            {
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
    let decoded = problem::from_status(status);
    let needed = decoded.is(ErrorReason::HasDependents);
    match decoded.reason.as_str() {
        "" => drop(write!(out, "\n  reason: {}", code_name(status.code()))),
        reason => drop(write!(out, "\n  reason: {reason} ({})", code_name(status.code()))),
    }
    let mut metadata: Vec<_> = decoded.metadata.iter().collect();
    metadata.sort();
    // Whether there are more dependents is said behind them.
    for (key, value) in metadata.into_iter().filter(|(key, _)| !(needed && *key == "more")) {
        let _ = write!(out, "\n  {key}: {value}");
    }
    match decoded.violations.as_slice() {
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
    if needed {
        describe_dependents(&decoded, out)
    } else {
        describe_preconditions(&decoded, out)
    }
    if let Some(retry) = decoded.retry_after {
        let _ = write!(out, "\n  try again in {} s", retry.as_secs().max(1));
    }
    if status.code() == Code::Unauthenticated {
        out.push_str(
            "\n  log in, again if the token has expired: pavior login --server URL --token-stdin < TOKEN_FILE",
        );
    }
}

fn describe_preconditions(decoded: &Decoded, out: &mut String) {
    for violation in &decoded.preconditions {
        let what = if violation.r#type == "POLICY" { "rule " } else { "" };
        let _ = write!(out, "\n  {what}{}: {}", violation.subject, violation.description);
    }
}

/// Names what stands in the way, and what each of them needs where that is not the resource of the error itself.
fn describe_dependents(decoded: &Decoded, out: &mut String) {
    let resource = decoded.metadata.get("resource").map(String::as_str).unwrap_or_default();
    out.push_str("\n  needed by:");
    for violation in &decoded.preconditions {
        let _ = write!(out, "\n    {}", violation.subject);
        let other =
            violation.description.contains('`') && !violation.description.contains(&format!("`{resource}`"));
        if other {
            let _ = write!(out, ", which {}", violation.description);
        }
    }
    if decoded.metadata.get("more").is_some_and(|more| more == "true") {
        out.push_str("\n    and others");
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
        assert_eq!(exit_of(&error), Exit::Usage);
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
        let ended = |exit| anyhow::Error::from(Ended { message: "so it is".to_owned(), exit });
        assert_eq!(describe(&ended(Exit::AwaitingApproval)), "so it is");
        assert_eq!(describe(&ended(Exit::Interrupted)), "so it is");
        assert_eq!(describe(&ended(Exit::Accepted)), "so it is");
        assert_eq!(describe(&ended(Exit::Usage)), "error: so it is");
        let error = anyhow::anyhow!("no table").context("the database said: no table").context("cannot read");
        assert_eq!(describe(&error), "error: cannot read\n  because: the database said: no table");
    }

    #[test]
    fn mistakes_of_usage_have_their_code_wherever_they_stand() {
        let error: anyhow::Result<()> = Err(anyhow::anyhow!("inner").context("outer"));
        let error = error.or_usage().unwrap_err();
        assert_eq!((error.to_string().as_str(), exit_of(&error)), ("outer: inner", Exit::Usage));
        assert_eq!(exit_of(&error.context("more")), Exit::Usage);
    }

    #[test]
    fn a_failed_step_and_a_refusal_end_with_codes_of_their_own() {
        let of =
            |code, reason| exit_of(&Status::from(problem::Problem::new(code, reason, "so it is")).into());
        for (code, reason, exit) in [
            (Code::FailedPrecondition, ErrorReason::GuardrailDenied, Exit::Forbidden),
            (Code::PermissionDenied, ErrorReason::NotApproved, Exit::Forbidden),
            (Code::PermissionDenied, ErrorReason::AccessDenied, Exit::Denied),
            (Code::FailedPrecondition, ErrorReason::StepFailed, Exit::OperationFailed),
            (Code::FailedPrecondition, ErrorReason::OperationStuck, Exit::Stuck),
            (Code::FailedPrecondition, ErrorReason::HasDependents, Exit::Conflict),
            (Code::Cancelled, ErrorReason::Cancelled, Exit::Cancelled),
        ] {
            assert_eq!(of(code, reason), exit, "{reason:?}");
        }
    }

    #[test]
    fn dependents_are_named_one_in_a_line() {
        let problem = problem::Problem::precondition(ErrorReason::HasDependents, "`p` is needed by others")
            .with("resource", "p")
            .with("more", "true")
            .because("REFERENCE", "p/environments/a", "needs `p`")
            .because("REFERENCE", "p/environments/b", "needs `q`");
        let text = describe(&Status::from(problem).into());
        let wanted = "error: `p` is needed by others\n  reason: HAS_DEPENDENTS (FAILED_PRECONDITION)\n  resource: p\n  \
                      needed by:\n    p/environments/a\n    p/environments/b, which needs `q`\n    and others";
        assert_eq!(text, wanted);
    }

    #[test]
    fn codes_are_named_as_grpc_names_them() {
        assert_eq!(code_name(Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(Code::Ok), "OK");
    }
}

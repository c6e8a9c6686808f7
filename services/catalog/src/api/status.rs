//! What each error of the catalog is on the wire.

use pavior_rpc::Violations;
use pavior_rpc::problem::{ErrorReason, Problem};
use tonic::Status;

use crate::domain::Violation;
use crate::error::Error;

/// The status of an error; `action` is what was asked for.
pub(super) fn to_status(error: Error, action: &str) -> Status {
    to_problem(error, action).into()
}

fn to_problem(error: Error, action: &str) -> Problem {
    let message = error.to_string();
    match error {
        Error::Invalid(violations) => {
            Problem::invalid(collect(violations, bracketed, "INVALID_FIELD").into_vec())
        }
        Error::Document(violations) => {
            let violations = collect(violations, |path| path, "INVALID_DOCUMENT");
            Problem::invalid(violations.into_vec()).with_reason(ErrorReason::InvalidDocument)
        }
        Error::Filter { field, message } => {
            Problem::invalid_reason(ErrorReason::InvalidFilter, field, message)
        }
        Error::PageToken => Problem::invalid_reason(ErrorReason::InvalidPageToken, "page_token", message),
        Error::NotFound { kind, name } => Problem::not_found(kind, name),
        Error::AlreadyExists { kind, name } => Problem::already_exists(kind, name),
        Error::EtagMismatch { current } => Problem::etag_mismatch(current),
        Error::Denied { resource } => Problem::permission_denied(action, &resource),
        Error::HasDependents { name, dependents, more } => {
            let mut problem = Problem::precondition(ErrorReason::HasDependents, message)
                .with("resource", name.as_str())
                .with("more", if more { "true" } else { "false" });
            for dependent in dependents {
                problem = problem.because("REFERENCE", dependent, format!("needs `{name}`"));
            }
            problem
        }
        Error::VersionImmutable { name, digest } => {
            Problem::precondition(ErrorReason::VersionImmutable, message)
                .with("publishedDigest", digest)
                .with_resource("template version", name)
        }
        Error::Ambiguous { other, context } => {
            let hint = format!("matches as well: {context}; make one of the two more specific");
            Problem::precondition(ErrorReason::AmbiguousDefinition, message)
                .with("other", other.as_str())
                .because("STATE", other, hint)
        }
        Error::ReferenceNotFound(missing) => {
            let mut problem = Problem::precondition(ErrorReason::ReferenceNotFound, message);
            for (field, name) in missing {
                let description = format!("`{}` refers to it, but it does not exist", bracketed(field));
                problem = problem.because("REFERENCE", name, description);
            }
            problem
        }
        Error::BuiltIn { name } => Problem::precondition(ErrorReason::InvalidState, message).because(
            "STATE",
            name,
            "every organization has it",
        ),
        Error::RequestIdReused => {
            Problem::invalid_reason(ErrorReason::RequestIdReused, "request_id", message)
        }
        Error::Rejected(error) => match error.downcast::<Problem>() {
            Ok(problem) => *problem,
            Err(error) => Problem::internal(error),
        },
        Error::Store(error) => pavior_relay::problem(&error),
    }
}

fn collect(violations: Vec<Violation>, path: impl Fn(String) -> String, reason: &str) -> Violations {
    let mut all = Violations::new();
    for violation in violations {
        all.add_reason(path(violation.path), violation.message, reason);
    }
    all
}

/// `entity.links.0.url` as the field of a message: `entity.links[0].url`.
fn bracketed(path: String) -> String {
    let mut out = String::with_capacity(path.len() + 2);
    for (index, part) in path.split('.').enumerate() {
        if index > 0 && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{part}]"));
            continue;
        }
        if index > 0 {
            out.push('.');
        }
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_written_as_for_messages() {
        for (path, wanted) in [
            ("entity.links.0.url", "entity.links[0].url"),
            ("entity.spec.a.10", "entity.spec.a[10]"),
            ("group", "group"),
            ("0", "0"),
        ] {
            assert_eq!(bracketed(path.to_owned()), wanted);
        }
    }
}

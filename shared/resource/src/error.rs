//! What goes wrong with any resource, and what it is on the wire.

use pavior_core::Fault;
use pavior_core::resource::{Fields, Violation, Violations};
use pavior_rpc::problem::{ErrorReason, FieldViolation, Problem, noun};
use pavior_store::idempotency::IdempotencyError;
use pavior_store::{Retryable, StoreError};

use crate::table::list::ListError;

/// An error of any resource. Services have those of their own beside it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are malformed; paths are from the request.
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    /// A filter or an order that cannot be used.
    #[error("{field}: {message}")]
    Filter {
        /// `filter` or `order_by`.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// A page token that was made for another order.
    #[error("page token is not valid for this request; repeat the call with the arguments of the first page")]
    PageToken,
    /// No such resource.
    #[error("{} `{name}` does not exist", noun(.kind))]
    NotFound {
        /// Its type, `identity.pavior.dev/Group`.
        kind: &'static str,
        /// The resource name.
        name: String,
    },
    /// A resource of this name exists.
    #[error("{} `{name}` already exists", noun(.kind))]
    AlreadyExists {
        /// Its type, `identity.pavior.dev/Group`.
        kind: &'static str,
        /// The resource name.
        name: String,
    },
    /// The etag is not the current one.
    #[error("the resource has changed since it was read")]
    EtagMismatch {
        /// The current one.
        current: String,
    },
    /// The permit is for another organization than the one that is named.
    #[error("the call is not confined to what it names")]
    Denied {
        /// What was asked for.
        action: String,
        /// What it was asked of.
        resource: String,
    },
    /// Other resources refer to it.
    #[error("`{name}` is needed by others: delete what uses it first")]
    HasDependents {
        /// The resource name.
        name: String,
        /// Some of those that refer to it, by name.
        dependents: Vec<String>,
        /// Whether there are more.
        more: bool,
    },
    /// Resources that the request refers to do not exist: field and name.
    #[error("the request refers to {}", missing(.0))]
    ReferenceNotFound(Vec<(String, String)>),
    /// There are as many as there may be.
    #[error("an organization has at most {limit} {plural}")]
    Quota {
        /// For people.
        plural: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// The request id was used before.
    #[error("was used before with different content: use a new one for a new request")]
    RequestIdReused,
    /// An answer that is ready to be sent.
    #[error("{0}")]
    Problem(#[from] Problem),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// No such resource.
    pub fn not_found<T: Fields>(name: &str) -> Self {
        Self::NotFound { kind: T::TYPE, name: name.to_owned() }
    }

    /// One malformed field of a resource in a request.
    pub fn field<T: Fields>(path: &str, fault: Fault, message: impl Into<String>) -> Self {
        let mut violations = Violations::new();
        violations.add(path, fault, message);
        Self::invalid::<T>(violations)
    }

    /// Malformed fields of a resource in a request.
    pub fn invalid<T: Fields>(violations: Violations) -> Self {
        Self::under(&field_of::<T>(), violations)
    }

    /// Malformed fields of the message at `prefix`.
    pub fn under(prefix: &str, violations: Violations) -> Self {
        let mut all = Violations::new();
        all.extend_under(prefix, violations);
        Self::Invalid(all.into_vec())
    }

    /// What a resource in a request refers to does not exist: its fields, and the names in them.
    pub fn missing<T: Fields>(references: impl IntoIterator<Item = (String, String)>) -> Self {
        let field = field_of::<T>();
        let from_request = |(path, name): (String, String)| (format!("{field}.{path}"), name);
        Self::ReferenceNotFound(references.into_iter().map(from_request).collect())
    }
}

/// The field of requests that holds a resource of this type.
pub(crate) fn field_of<T: Fields>() -> String {
    T::SINGULAR.replace(' ', "_")
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(violations) => Problem::invalid(field_violations(violations, bracketed)),
            Error::Filter { field, message } => {
                Problem::invalid_reason(ErrorReason::InvalidFilter, field, Fault::Syntax, message)
            }
            Error::PageToken => {
                Problem::invalid_reason(ErrorReason::InvalidPageToken, "page_token", Fault::Token, message)
            }
            Error::NotFound { kind, name } => Problem::not_found(kind, name),
            Error::AlreadyExists { kind, name } => Problem::already_exists(kind, name),
            Error::EtagMismatch { current } => Problem::etag_mismatch(current),
            Error::Denied { action, resource } => Problem::permission_denied(&action, &resource),
            Error::HasDependents { name, dependents, more } => {
                let mut problem = Problem::precondition(ErrorReason::HasDependents, message)
                    .with("resource", name.as_str())
                    .with("more", if more { "true" } else { "false" });
                for dependent in dependents {
                    problem = problem.because("REFERENCE", dependent, format!("needs `{name}`"));
                }
                problem
            }
            Error::ReferenceNotFound(missing) => {
                let mut problem = Problem::precondition(ErrorReason::ReferenceNotFound, message);
                if let Some((field, _)) = missing.first() {
                    problem = problem.with("field", bracketed(field));
                }
                for (field, name) in missing {
                    let description = format!("`{}` refers to it, but it does not exist", bracketed(&field));
                    problem = problem.because("REFERENCE", name, description);
                }
                problem
            }
            Error::Quota { plural, limit } => {
                Problem::resource_exhausted(ErrorReason::QuotaExceeded, message)
                    .with_quota(plural, format!("at most {limit} in an organization"))
            }
            Error::RequestIdReused => {
                Problem::invalid_reason(ErrorReason::RequestIdReused, "request_id", Fault::Conflict, message)
            }
            Error::Problem(problem) => problem,
            Error::Store(error) => pavior_relay::problem(&error),
        }
    }
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}

/// The first of them, and how many more there are.
fn missing(references: &[(String, String)]) -> String {
    match references {
        [] => "what does not exist".to_owned(),
        [(_, name)] => format!("`{name}`, which does not exist"),
        [(_, name), others @ ..] => format!("`{name}` and {} more that do not exist", others.len()),
    }
}

impl From<IdempotencyError> for Error {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Reused => Self::RequestIdReused,
            IdempotencyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ListError> for Error {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Filter(error) => Self::Filter { field: "filter", message: error.to_string() },
            ListError::Order(message) => Self::Filter { field: "order_by", message },
            ListError::Position(_) => Self::PageToken,
            ListError::Store(error) => Self::Store(error),
        }
    }
}

/// Violations as they are on the wire, with paths as `path` writes them.
pub fn field_violations(violations: Vec<Violation>, path_of: fn(&str) -> String) -> Vec<FieldViolation> {
    let violation =
        |Violation { path, fault, message }: Violation| FieldViolation::new(path_of(&path), fault, message);
    violations.into_iter().map(violation).collect()
}

/// `entity.links.0.url` as the field of a message: `entity.links[0].url`.
pub fn bracketed(path: &str) -> String {
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
            assert_eq!(bracketed(path), wanted);
        }
    }
}

//! What the catalog's own errors are on the wire.

use pavior_resource::crud::MAX_NAMED;
use pavior_resource::field_violations;
use pavior_rpc::problem::{ErrorReason, Problem};
use tonic::Code;

use crate::domain::{Fields as _, VersionFields};
use crate::error::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Resource(error) => error.into(),
            Error::Document(violations) => {
                // Paths in documents are the author's, with the indices that the parser gave them.
                let violations = field_violations(violations, str::to_owned);
                Problem::invalid(violations).with_reason(ErrorReason::InvalidDocument)
            }
            Error::VersionImmutable { name, digest } => {
                Problem::precondition(ErrorReason::VersionImmutable, message)
                    .with("publishedDigest", digest)
                    .with_resource(VersionFields::TYPE, name)
            }
            Error::NoChannel { template, channel, .. } => {
                // Where a version is named, a channel's id may stand in its place.
                let name = format!("{template}/versions/{channel}");
                Problem::new(Code::NotFound, ErrorReason::ResourceNotFound, message)
                    .with("field", "channel_id")
                    .with_resource(VersionFields::TYPE, name)
            }
            Error::Tied { field, definitions } => {
                let problem = Problem::precondition(ErrorReason::AmbiguousDefinition, message);
                definitions.into_iter().fold(problem.with("field", field), |problem, (name, criteria)| {
                    problem.because(
                        "STATE",
                        name,
                        format!("applies to {criteria}; make one of them more specific"),
                    )
                })
            }
            Error::Ambiguous { other, context } => {
                let hint = format!("matches as well: {context}; make one of the two more specific");
                Problem::precondition(ErrorReason::AmbiguousDefinition, message)
                    .with("other", other.as_str())
                    .because("STATE", other, hint)
            }
            Error::Managed(entities) => {
                let mut problem = Problem::precondition(ErrorReason::InvalidState, message);
                if let Some((_, resource)) = entities.first() {
                    problem = problem.with("managedBy", resource.as_str());
                }
                entities.into_iter().take(MAX_NAMED).fold(problem, |problem, (entity, resource)| {
                    let how = format!("is made for `{resource}`: change its project, with which it changes");
                    problem.because("STATE", entity, how)
                })
            }
            Error::NoOwner { owner, nearest } => {
                let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                let description = format!("`entity.owner` refers to it, but it does not exist{hint}");
                Problem::precondition(ErrorReason::ReferenceNotFound, message)
                    .with("field", "entity.owner")
                    .because("REFERENCE", owner, description)
            }
            Error::BuiltIn { name } => Problem::precondition(ErrorReason::InvalidState, message).because(
                "STATE",
                name,
                "every organization has it",
            ),
        }
    }
}

//! What goes wrong in the catalog alone, beside what goes wrong with any resource.

use pavior_store::{Retryable, StoreError};

use crate::domain::Violation;

/// What a golden path has in place of a channel that it has not.
fn no_channel(template: &str, channel: &str, channels: &[String]) -> String {
    let has = match channels {
        [] => "none".to_owned(),
        some => some.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", "),
    };
    format!("template `{template}` has no channel `{channel}`; it has {has}")
}

/// Says of entities that projects manage that they are not changed here.
fn managed(entities: &[(String, String)]) -> String {
    match entities {
        [(entity, _)] => format!("`{entity}` is managed by a project: change or delete it there"),
        several => format!("{} entities are managed by projects: change or delete them there", several.len()),
    }
}

/// An error of the catalog. `api/status.rs` says what each is on the wire.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Of any resource.
    #[error(transparent)]
    Resource(#[from] pavior_resource::Error),
    /// A document in the request is malformed.
    #[error("the document is not valid")]
    Document(Vec<Violation>),
    #[error("version `{name}` was published with another content and cannot change")]
    VersionImmutable { name: String, digest: String },
    /// A golden path has other channels than the one that is named.
    #[error("{}", no_channel(.template, .channel, .channels))]
    NoChannel { template: String, channel: String, channels: Vec<String> },
    #[error("resource definition `{other}` would match as well: {context}")]
    Ambiguous { other: String, context: String },
    /// Several definitions match one context of a request, none of them better than the others.
    #[error("several resource definitions match `{field}` equally well")]
    Tied {
        field: String,
        /// Each by name, with what it applies to.
        definitions: Vec<(String, String)>,
    },
    /// Entities that projects manage, each with the resource that it is made for.
    #[error("{}", managed(.0))]
    Managed(Vec<(String, String)>),
    /// The owner of an entity does not exist.
    #[error("the request refers to `{owner}`, which does not exist")]
    NoOwner {
        owner: String,
        /// The group with the most similar id.
        nearest: Option<String>,
    },
    /// Every organization has it and needs it.
    #[error("`{name}` is built in and cannot be changed or deleted")]
    BuiltIn { name: String },
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Resource(error) if error.is_retryable())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Resource(error.into())
    }
}

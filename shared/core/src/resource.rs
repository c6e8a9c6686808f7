//! A resource as a service keeps it: identity, revision and times, which are the same for all, and fields of its own.

mod fault;
mod violation;

use serde_json::Value as Json;
use time::OffsetDateTime;
use uuid::Uuid;

pub use fault::Fault;
pub use violation::{Violation, Violations, join};

/// The fields of one type of resource, with the rules that need nothing but them.
pub trait Fields: Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static {
    /// The noun in messages: `resource type`.
    const SINGULAR: &'static str;
    /// The type of the resource, `catalog.pavior.dev/ResourceType`.
    const TYPE: &'static str;
    /// The resource name of the one called `id`.
    fn name(&self, organization: &str, id: &str) -> String;
    /// What is wrong with the fields, whatever else is stored; paths are relative to the resource.
    fn check(&self, _organization: &str, _id: &str) -> Violations {
        Violations::new()
    }
    /// The fields for the audit record.
    fn snapshot(&self) -> Json;
}

/// A resource: identity, revision, times, and its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<F> {
    /// The id of the organization.
    pub organization: String,
    /// The last part of the resource name.
    pub id: String,
    /// Never used again, also when a name is.
    pub uid: Uuid,
    /// Counts changes, from 1.
    pub revision: i64,
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// That it is deleted; nothing while it is there.
    pub ended: Option<Ended>,
    /// What is particular to its type.
    pub fields: F,
}

/// That a resource is deleted, and until when it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When it was deleted.
    pub delete_time: OffsetDateTime,
    /// Until when it is kept.
    pub purge_time: OffsetDateTime,
}

impl<F> Stored<F> {
    /// A new one, at revision 1.
    pub fn new(organization: &str, id: &str, uid: Uuid, now: OffsetDateTime, fields: F) -> Self {
        let (organization, id) = (organization.to_owned(), id.to_owned());
        Self { organization, id, uid, revision: 1, create_time: now, update_time: now, ended: None, fields }
    }

    /// The next revision, with other fields.
    #[must_use]
    pub fn next(&self, now: OffsetDateTime, fields: F) -> Self {
        let Self { organization, id, uid, revision, create_time, update_time: _, ended: _, fields: _ } = self;
        Self {
            organization: organization.clone(),
            id: id.clone(),
            uid: *uid,
            revision: revision + 1,
            create_time: *create_time,
            update_time: now,
            ended: None,
            fields,
        }
    }

    /// The etag of this revision.
    pub fn etag(&self) -> String {
        crate::etag(self.uid, self.revision)
    }
}

impl<F: Fields> Stored<F> {
    /// The resource name.
    pub fn name(&self) -> String {
        self.fields.name(&self.organization, &self.id)
    }
}

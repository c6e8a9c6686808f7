//! The rules of the catalog: pure types and functions, no I/O.

pub(crate) mod backstage;
pub(crate) mod builtin;
pub(crate) mod definition;
pub(crate) mod entity;
pub(crate) mod kind;
pub(crate) mod organization;
pub(crate) mod reference;
pub(crate) mod resource_type;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod version;
mod violation;

pub(crate) use definition::ResourceDefinitionFields;
pub(crate) use entity::EntityFields;
pub(crate) use kind::KindFields;
pub(crate) use organization::{GroupFields, OrganizationFields, UserFields};
pub(crate) use resource_type::ResourceTypeFields;
pub(crate) use template::{TemplateFields, VersionFields};
pub(crate) use violation::{Violation, Violations, join as violation_path};

use time::OffsetDateTime;
use uuid::Uuid;

use crate::json::Json;

/// What every resource of the catalog has beside its own fields.
pub(crate) trait Resource: Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static {
    /// The word for one of them in messages, as in `proto`: `group`.
    const SINGULAR: &'static str;
    /// The type of the resource, `catalog.pavior.dev/Group`.
    const TYPE: &'static str;
    /// The resource name of the one called `id`.
    fn name(&self, organization: &str, id: &str) -> String;
    /// What is wrong with the fields, whatever else the catalog holds; paths are relative to the resource.
    fn check(&self, organization: &str, id: &str) -> Violations;
    /// The fields for the audit record.
    fn snapshot(&self) -> Json;
    /// The change in which the name to show is replaced, for messages.
    fn display_name(&self) -> &str;
}

/// A resource as it is kept: identity, revision, times, and its fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored<F> {
    pub(crate) organization: String,
    pub(crate) id: String,
    pub(crate) uid: Uuid,
    pub(crate) revision: i64,
    pub(crate) create_time: OffsetDateTime,
    pub(crate) update_time: OffsetDateTime,
    pub(crate) fields: F,
}

impl<F: Resource> Stored<F> {
    /// A new one, at revision 1.
    pub(crate) fn new(organization: &str, id: &str, uid: Uuid, now: OffsetDateTime, fields: F) -> Self {
        let (organization, id) = (organization.to_owned(), id.to_owned());
        Self { organization, id, uid, revision: 1, create_time: now, update_time: now, fields }
    }

    /// The next revision, with other fields.
    pub(crate) fn next(&self, now: OffsetDateTime, fields: F) -> Self {
        let Self { organization, id, uid, revision, create_time, update_time: _, fields: _ } = self.clone();
        Self { organization, id, uid, revision: revision + 1, create_time, update_time: now, fields }
    }

    /// The resource name.
    pub(crate) fn name(&self) -> String {
        self.fields.name(&self.organization, &self.id)
    }

    /// The etag of this revision.
    pub(crate) fn etag(&self) -> String {
        pavior_core::etag(self.uid, self.revision)
    }
}

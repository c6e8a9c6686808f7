//! The rules of the catalog: pure types and functions, no I/O.

pub(crate) mod backstage;
pub(crate) mod builtin;
pub(crate) mod entity;
pub(crate) mod group;
pub(crate) mod kind;
pub(crate) mod membership;
pub(crate) mod organization;
pub(crate) mod reference;
pub(crate) mod resource_definition;
pub(crate) mod resource_type;
pub(crate) mod schema;
pub(crate) mod template;
pub(crate) mod template_version;
pub(crate) mod text;
pub(crate) mod user;
pub(crate) mod version;

pub(crate) use entity::EntityFields;
pub(crate) use group::GroupFields;
pub(crate) use kind::KindFields;
pub(crate) use membership::MembershipFields;
pub(crate) use organization::OrganizationFields;
pub(crate) use pavior_core::resource::{Fields, Stored, Violation, Violations, join as violation_path};
pub(crate) use resource_definition::ResourceDefinitionFields;
pub(crate) use resource_type::ResourceTypeFields;
pub(crate) use schema::Schema;
pub(crate) use template::TemplateFields;
pub(crate) use template_version::VersionFields;
pub(crate) use user::UserFields;

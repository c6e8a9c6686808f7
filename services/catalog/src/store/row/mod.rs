//! Rows, one file for each table.

// The derive macros make their companions as public as the model that they want public.
#![allow(unreachable_pub)]

pub(crate) mod entity;
pub(crate) mod facet;
pub(crate) mod group;
pub(crate) mod json;
pub(crate) mod kind;
pub(crate) mod membership;
pub(crate) mod organization;
pub(crate) mod relation;
pub(crate) mod resource_definition;
pub(crate) mod resource_type;
pub(crate) mod template;
pub(crate) mod template_type;
pub(crate) mod template_version;
pub(crate) mod user;

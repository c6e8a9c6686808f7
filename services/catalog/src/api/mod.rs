//! The wire side: each method decodes, calls a use case, and encodes.

mod catalog_service;
mod convert;
mod directory;
mod entity;
mod facts;
mod group;
mod identity_service;
mod import;
mod kind;
mod membership;
mod organization;
mod registration;
mod relation;
mod resource_definition;
mod resource_type;
mod resource_type_service;
mod status;
mod template;
mod template_service;
mod template_version;
mod user;

use crate::app::App;

/// The catalog on the wire. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }
}

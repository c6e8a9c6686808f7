//! The wire side: each method decodes, calls a use case, and encodes.

mod catalog_service;
mod convert;
mod convert_entity;
mod convert_resource;
mod directory_service;
mod facts;
mod identity_service;
mod registration_service;
mod resource_type_service;
mod special;
mod status;
mod template_service;

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

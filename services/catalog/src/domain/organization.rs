//! Organizations.

use super::Fields;
use crate::json::{Json, json};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct OrganizationFields {
    pub(crate) display_name: String,
}

impl Fields for OrganizationFields {
    const SINGULAR: &'static str = "organization";
    const TYPE: &'static str = "identity.pavior.dev/Organization";

    fn name(&self, organization: &str, _id: &str) -> String {
        format!("organizations/{organization}")
    }

    fn snapshot(&self) -> Json {
        let Self { display_name } = self;
        json!({ "displayName": display_name })
    }
}

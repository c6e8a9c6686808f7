//! Published versions of golden paths.

use super::{Fields, Schema, Violations};
use crate::json::{Json, json};

/// A published version. It never changes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VersionFields {
    /// The id of its template.
    pub(crate) template: String,
    pub(crate) document: String,
    pub(crate) digest: String,
    pub(crate) parameter_schema: Schema,
    pub(crate) environment_classes: Vec<String>,
    /// The document as JSON, with `extends` resolved.
    pub(crate) content: Json,
}

impl Fields for VersionFields {
    const SINGULAR: &'static str = "template version";
    const TYPE: &'static str = "catalog.pavior.dev/TemplateVersion";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/templates/{}/versions/{id}", self.template)
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        Violations::new()
    }

    fn snapshot(&self) -> Json {
        let Self { template, document: _, digest, parameter_schema: _, environment_classes, content: _ } =
            self;
        json!({ "template": template, "digest": digest, "environmentClassIds": environment_classes })
    }
}

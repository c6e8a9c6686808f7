//! Golden paths: templates, and the check of a document when a version is published.
//!
//! A document is checked whole, and every problem is named with its path in the document:
//! [`document`] reads it and resolves `extends`, [`section`] checks the shape of each section and the inputs of each
//! resource, [`scope`] the names that expressions use, and the circles that they make.

mod document;
mod scope;
mod section;

use pavior_core::Fault;
use std::collections::BTreeMap;

use super::{Fields, Schema, Violations, text};
use crate::json::{Json, json};

pub(crate) use document::parse;
pub(crate) use scope::references_with_paths;
pub(crate) use section::TypeContract;

/// Longest document, in bytes.
pub(crate) const MAX_DOCUMENT: usize = 256 * 1024;
/// The name that stands for the newest version in place of a version or channel.
pub(crate) const LATEST: &str = "latest";
const MAX_CHANNELS: usize = 32;

/// A golden path.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TemplateFields {
    pub(crate) display_name: String,
    pub(crate) description: String,
    /// Channel → version.
    pub(crate) channels: BTreeMap<String, String>,
    /// Empty before the first version that is not a pre-release.
    pub(crate) latest_version: String,
}

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

impl Fields for TemplateFields {
    const SINGULAR: &'static str = "template";
    const TYPE: &'static str = "catalog.pavior.dev/Template";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/templates/{id}")
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        text::line(&mut violations, "display_name", &self.display_name, text::MAX_DISPLAY_NAME);
        text::paragraph(&mut violations, "description", &self.description, text::MAX_DESCRIPTION);
        if self.channels.len() > MAX_CHANNELS {
            violations.add("channels", Fault::TooMany, format!("must have at most {MAX_CHANNELS} entries"));
        }
        for (channel, version) in &self.channels {
            let at = format!("channels.{channel}");
            if let Err(problem) = channel_problem(channel) {
                violations.add(&at, Fault::Pattern, problem);
            }
            if !super::version::is_version(version) {
                violations.add(
                    at,
                    Fault::Pattern,
                    format!("`{}` is not a version such as `1.2.0`", text::shown(version)),
                );
            }
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, channels, latest_version } = self;
        json!({
            "displayName": display_name, "description": description, "channels": channels,
            "latestVersion": latest_version,
        })
    }
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
        json!({ "template": template, "digest": digest, "environmentClasses": environment_classes })
    }
}

/// Whether a text can be the name of a channel.
///
/// # Errors
/// Why not.
pub(crate) fn channel_problem(channel: &str) -> Result<(), String> {
    if channel == LATEST {
        return Err(format!("`{LATEST}` always is the newest version and cannot be set"));
    }
    pavior_core::validate_id(channel).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

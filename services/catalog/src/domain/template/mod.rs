//! Golden paths: templates, and the check of a document when a version is published.
//!
//! A document is checked whole, and every problem is named with its path in the document:
//! [`document`] reads it and resolves `extends`, [`section`] checks the shape of each section and the inputs of each
//! resource, [`scope`] the names that expressions use, and the circles that they make.

mod document;
mod scope;
mod section;

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Fields;
use crate::json::{Json, json};

pub(crate) use document::parse;
pub(crate) use scope::references_with_paths;
pub(crate) use section::TypeContract;

/// The name that stands for the newest version in place of a version or channel.
pub(crate) const LATEST: &str = "latest";
/// Most channels of one golden path.
pub(crate) const MAX_CHANNELS: usize = 32;

/// A name that points at one version and can be moved to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Channel {
    /// The id of the version.
    pub(crate) version: String,
    /// When it was last moved.
    pub(crate) move_time: OffsetDateTime,
    /// Who moved it, by resource name.
    pub(crate) mover: String,
}

/// A golden path.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TemplateFields {
    pub(crate) display_name: String,
    pub(crate) description: String,
    /// By id. The server alone sets them, when they are moved.
    pub(crate) channels: BTreeMap<String, Channel>,
    /// Empty before the first version that is not a pre-release.
    pub(crate) latest_version: String,
}

impl Fields for TemplateFields {
    const SINGULAR: &'static str = "template";
    const TYPE: &'static str = "catalog.pavior.dev/Template";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/templates/{id}")
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, description, channels, latest_version } = self;
        json!({
            "displayName": display_name, "description": description, "channels": channels_to_json(channels),
            "latestVersion": latest_version,
        })
    }
}

/// Channels as they are kept.
pub(crate) fn channels_to_json(channels: &BTreeMap<String, Channel>) -> Json {
    let channels = channels.iter().map(|(id, channel)| {
        let Channel { version, move_time, mover } = channel;
        let move_time = move_time.format(&Rfc3339).ok();
        (id.clone(), json!({ "templateVersion": version, "moveTime": move_time, "mover": mover }))
    });
    Json::Object(channels.collect())
}

/// Channels as they were kept.
pub(crate) fn channels_from_json(json: &Json) -> Option<BTreeMap<String, Channel>> {
    let channel = |json: &Json| {
        let text = |key: &str| json.get(key)?.as_str();
        Some(Channel {
            version: text("templateVersion")?.to_owned(),
            move_time: OffsetDateTime::parse(text("moveTime")?, &Rfc3339).ok()?,
            mover: text("mover")?.to_owned(),
        })
    };
    json.as_object()?.iter().map(|(id, kept)| Some((id.clone(), channel(kept)?))).collect()
}

/// Whether a text can be the name of a channel.
///
/// # Errors
/// Why not.
pub(crate) fn channel_problem(channel: &str) -> Result<(), String> {
    if channel == LATEST {
        return Err(format!("`{LATEST}` always is the newest version: it is neither moved nor removed"));
    }
    pavior_core::validate_id(channel).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! What the driver keeps of a database on the server itself, where every replica sees it.

use serde::{Deserialize, Serialize};

/// What stands in the database's comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Comment {
    pub(super) pavior: u32,
    pub(super) organization: String,
    pub(super) resource: String,
    pub(super) key: String,
    /// Which platform made it: several may share a server. Empty in comments of before there was one.
    #[serde(default)]
    pub(super) platform: String,
    /// The digest of what the last apply that ended declared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) declaration_digest: String,
}

impl Comment {
    /// The comment as ours; another text reads as somebody else's.
    pub(super) fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|_| Self {
            pavior: 0,
            organization: String::new(),
            resource: String::new(),
            key: String::new(),
            platform: String::new(),
            declaration_digest: String::new(),
        })
    }

    /// Whether it is the other one, or that of before the platform stood in it.
    pub(super) fn fits(&self, other: &Self) -> bool {
        let other = Self { declaration_digest: self.declaration_digest.clone(), ..other.clone() };
        *self == other
            || (self.platform.is_empty() && *self == Self { platform: String::new(), ..other.clone() })
    }
}

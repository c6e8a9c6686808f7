//! Resource names (AIP-122): `organizations/acme/projects/shop/environments/dev`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::id::{IdError, MAX_ID, shorten, validate_id, validate_id_in};
use crate::principal::INSTALLATION;

/// Longest resource name, in bytes.
pub const MAX_NAME: usize = 1_024;
const ORGANIZATIONS: &str = "organizations";
/// Keys of labels and annotations under this name, and under names below it, are the platform's own.
const OWN_KEYS: &str = "pavior.dev";

/// What is said about a key of [`is_reserved_key`] that somebody wants to set or change.
pub const RESERVED_KEY: &str = "keys under `pavior.dev/` are set by the platform only";

/// True for keys of labels and annotations that only the platform sets: `pavior.dev/…` and `….pavior.dev/…`.
pub fn is_reserved_key(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return false };
    let prefix = prefix.to_ascii_lowercase();
    prefix.strip_suffix(OWN_KEYS).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Why a resource name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No name at all.
    #[error("resource name is empty")]
    Empty,
    /// Not alternating collections and ids below an organization.
    #[error("resource name `{name}` {problem}")]
    Malformed {
        /// The name, cut to 100 characters.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// One id in it is refused.
    #[error("resource name `{name}`: {source}")]
    Id {
        /// The name, cut to 100 characters.
        name: String,
        /// What is wrong with the id.
        source: IdError,
    },
    /// The installation itself, or something of it.
    #[error("resource name `{name}` is of the installation itself, which is no organization")]
    Installation {
        /// The name, cut to 100 characters.
        name: String,
    },
    /// A name, but of another type.
    #[error("resource name `{name}` must have the form `{pattern}`")]
    Pattern {
        /// The name, cut to 100 characters.
        name: String,
        /// The form that is wanted.
        pattern: String,
    },
}

fn is_collection(text: &str) -> bool {
    text.len() <= MAX_ID
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A checked resource name: alternating collections and ids, beginning with `organizations/{organization}`.
///
/// The installation itself has the form of an organization and is none: what is made, changed or referred to in an
/// organization can never be in it. What does stand below it (services, operators, decisions, audit records) is told
/// apart where it is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName(String);

impl ResourceName {
    /// Parses a name of any type.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let malformed =
            |problem: &str| NameError::Malformed { name: shorten(name), problem: problem.to_owned() };
        if name.len() > MAX_NAME {
            return Err(malformed("is longer than 1024 bytes"));
        }
        let segments: Vec<&str> = name.split('/').collect();
        if !segments.len().is_multiple_of(2) {
            return Err(malformed("must be pairs of collection and id, as in `organizations/acme`"));
        }
        if segments.first() != Some(&ORGANIZATIONS) {
            return Err(malformed("must begin with `organizations/`"));
        }
        if segments.get(1) == Some(&INSTALLATION) {
            return Err(NameError::Installation { name: shorten(name) });
        }
        for pair in segments.chunks_exact(2) {
            if let [collection, id] = pair {
                if !is_collection(collection) {
                    return Err(malformed(&format!("has a malformed collection `{}`", shorten(collection))));
                }
                validate_id_in(collection, id)
                    .map_err(|source| NameError::Id { name: shorten(name), source })?;
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// Parses a name of one type, given as in `organizations/{organization}/projects/{project}`.
    pub fn parse_as(name: &str, pattern: &str) -> Result<Self, NameError> {
        let other = || NameError::Pattern { name: shorten(name), pattern: pattern.to_owned() };
        let parsed = match Self::parse(name) {
            Err(NameError::Malformed { .. }) => return Err(other()),
            result => result?,
        };
        if parsed.matches(pattern) { Ok(parsed) } else { Err(other()) }
    }

    /// The name of an organization itself.
    pub fn of_organization(id: &str) -> Result<Self, IdError> {
        validate_id(id)?;
        Ok(Self(format!("{ORGANIZATIONS}/{id}")))
    }

    /// The organization's id.
    pub fn organization(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// The id under `collection`, if the name has that collection.
    pub fn get(&self, collection: &str) -> Option<&str> {
        self.pairs().find(|(c, _)| *c == collection).map(|(_, id)| id)
    }

    /// Collections with their ids, from the organization down.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut segments = self.0.split('/');
        std::iter::from_fn(move || Some((segments.next()?, segments.next()?)))
    }

    /// The name without its last pair; none for an organization.
    pub fn parent(&self) -> Option<Self> {
        let (rest, _) = self.0.rsplit_once('/')?;
        let (rest, _) = rest.rsplit_once('/')?;
        Some(Self(rest.to_owned()))
    }

    /// The name of a child. `id` must have been checked before; for ids from outside use [`Self::try_child`].
    pub fn child(&self, collection: &str, id: &str) -> Self {
        debug_assert!(is_collection(collection), "collection `{collection}`");
        debug_assert!(validate_id_in(collection, id).is_ok(), "id `{id}` under `{collection}`");
        Self(format!("{}/{collection}/{id}", self.0))
    }

    /// The name of a child whose id comes from outside.
    pub fn try_child(&self, collection: &str, id: &str) -> Result<Self, NameError> {
        Self::parse(&format!("{}/{collection}/{id}", self.0))
    }

    /// The last collection.
    pub fn collection(&self) -> &str {
        self.0.rsplit('/').nth(1).unwrap_or_default()
    }

    /// The last id.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name is `ancestor` or stands below it.
    pub fn is_within(&self, ancestor: &ResourceName) -> bool {
        self.0.strip_prefix(&ancestor.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether the name has the form of `pattern`, in which `{…}` stands for any id.
    pub fn matches(&self, pattern: &str) -> bool {
        let (mut a, mut b) = (self.0.split('/'), pattern.split('/'));
        loop {
            match (a.next(), b.next()) {
                (None, None) => return true,
                (Some(x), Some(p)) if x == p || (p.starts_with('{') && p.ends_with('}')) => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ResourceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::parse(name)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = NameError;
    fn try_from(name: String) -> Result<Self, NameError> {
        Self::parse(&name)
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> String {
        name.0
    }
}

/// Whether a text has the form of a full resource name: `organizations/{organization}` with whatever stands below it, be
/// it a singleton or of the installation. It is for texts that are compared with names, not for names that are used.
pub fn is_full_name(text: &str) -> bool {
    let below = text.strip_prefix(ORGANIZATIONS).and_then(|rest| rest.strip_prefix('/'));
    below.is_some_and(|rest| rest.split('/').all(|segment| !segment.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_a_name() {
        let name = ResourceName::parse("organizations/acme/projects/shop/environments/dev").unwrap();
        assert_eq!(name.organization(), "acme");
        assert_eq!(name.get("projects"), Some("shop"));
        assert_eq!(name.get("components"), None);
        // An id that is spelt like a collection is not taken for one.
        assert_eq!(ResourceName::parse("organizations/projects/x/y").unwrap().get("projects"), None);
        assert_eq!((name.collection(), name.id()), ("environments", "dev"));
        let parent = name.parent().unwrap();
        assert_eq!(parent.as_str(), "organizations/acme/projects/shop");
        assert_eq!(parent.child("environments", "dev"), name);
        assert_eq!(parent.parent().unwrap().parent(), None);
        assert!(name.is_within(&parent) && !parent.is_within(&name));
        let sibling = ResourceName::parse("organizations/acme/projects/shop-2").unwrap();
        assert!(!sibling.is_within(&parent));
        assert!(parent.try_child("environments", "a/b").is_err());
    }

    #[test]
    fn malformed_names_are_refused() {
        for name in [
            "",
            "/",
            "organizations",
            "organizations/",
            "organizations/acme/",
            "organizations/acme/projects",
            "/organizations/acme",
            "organizations//projects/x",
            "projects/shop",
            "organizations/Acme",
            "organizations/acme/Projects/x",
            "organizations/acme/../x",
            "organizations/acme/projects/-",
        ] {
            assert!(ResourceName::parse(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_installation_is_no_organization() {
        for name in ["organizations/pavior", "organizations/pavior/groups/core"] {
            let wanted =
                format!("resource name `{name}` is of the installation itself, which is no organization");
            assert_eq!(ResourceName::parse(name).unwrap_err().to_string(), wanted);
            let parsed = ResourceName::parse_as(name, "organizations/{organization}");
            assert_eq!(parsed.unwrap_err().to_string(), wanted);
        }
        assert_eq!(ResourceName::parse("organizations/acme/projects/pavior").unwrap().id(), "pavior");
        for full in ["organizations/pavior", "organizations/a/auditCheckpoint", "organizations/a/b/c d"] {
            assert!(is_full_name(full), "{full}");
        }
        for other in ["", "hello", "organizations", "organizations/", "organizations//b", "users/alice"] {
            assert!(!is_full_name(other), "{other}");
        }
    }

    #[test]
    fn parse_as_names_the_wanted_pattern() {
        let pattern = "organizations/{organization}/projects/{project}";
        assert!(ResourceName::parse_as("organizations/acme/projects/shop", pattern).is_ok());
        for name in ["organizations/acme", "projects/shop", "x", "organizations/acme/teams/shop"] {
            let error = ResourceName::parse_as(name, pattern).unwrap_err().to_string();
            assert_eq!(error, format!("resource name `{name}` must have the form `{pattern}`"));
        }
        let error = ResourceName::parse_as("organizations/acme/projects/A", pattern).unwrap_err().to_string();
        assert!(error.contains("id `A` must be 1 to 63"), "{error}");
    }

    proptest! {
        #[test]
        fn parse_never_panics_and_is_exact(text in ".{0,80}") {
            if let Ok(name) = ResourceName::parse(&text) {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }

        #[test]
        fn built_names_parse_back(org in "[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", ids in prop::collection::vec("[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", 0..5)) {
            let mut name = ResourceName::of_organization(&org).unwrap();
            for id in &ids {
                name = name.child("things", id);
            }
            let parsed = ResourceName::parse(name.as_str()).unwrap();
            prop_assert_eq!(parsed.organization(), org.as_str());
            prop_assert_eq!(parsed.pairs().count(), ids.len() + 1);
            let json = serde_json::to_string(&parsed).unwrap();
            prop_assert_eq!(serde_json::from_str::<ResourceName>(&json).unwrap(), parsed);
        }
    }
}

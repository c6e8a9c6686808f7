//! Actions, and the patterns by which roles name them.

use std::collections::BTreeMap;

/// Longest action or pattern, in bytes.
pub const MAX_PATTERN: usize = 128;

/// One action of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// For example `provisioning.environments.create`.
    pub name: String,
    /// Whether it changes state.
    pub change: bool,
    /// Whether only services of the platform may ever use it.
    pub internal: bool,
}

/// Every action that there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actions {
    by_name: BTreeMap<String, Action>,
}

impl Actions {
    /// Collects actions. Where one stands twice, it is a change if one of them is, and internal only if both are.
    pub fn new(actions: impl IntoIterator<Item = Action>) -> Self {
        let mut by_name = BTreeMap::<String, Action>::new();
        for action in actions {
            by_name
                .entry(action.name.clone())
                .and_modify(|known| {
                    known.change |= action.change;
                    known.internal &= action.internal;
                })
                .or_insert(action);
        }
        Self { by_name }
    }

    /// The action of this name.
    pub fn get(&self, name: &str) -> Option<&Action> {
        self.by_name.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = &Action> {
        self.by_name.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// The groups that an action belongs to in Cedar, nearest first: `a.b.*`, `a.*`, then `*`.
pub fn prefix_groups(action: &str) -> Vec<String> {
    let mut groups = Vec::new();
    let mut rest = action;
    while let Some((prefix, _)) = rest.rsplit_once('.') {
        groups.push(format!("{prefix}.*"));
        rest = prefix;
    }
    groups.push("*".to_owned());
    groups
}

/// The actions that one entry of a role stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// `*`
    All,
    /// `provisioning.*`, kept with its dot: `provisioning.`
    Prefix(String),
    /// `provisioning.environments.create`
    Exact(String),
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("action `{0}` must be an action, a prefix of actions that ends in `.*`, or `*`")]
pub struct PatternError(pub String);

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refuse = || PatternError(text.chars().take(100).collect());
        if text == "*" {
            return Ok(Self::All);
        }
        let words = |text: &str| {
            text.split('.').all(|word| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.bytes().all(|b| b.is_ascii_alphanumeric())
            })
        };
        if text.len() > MAX_PATTERN {
            return Err(refuse());
        }
        match text.strip_suffix(".*") {
            Some(prefix) if words(prefix) => Ok(Self::Prefix(format!("{prefix}."))),
            None if text.contains('.') && words(text) => Ok(Self::Exact(text.to_owned())),
            _ => Err(refuse()),
        }
    }

    /// Whether it stands for this action.
    pub fn matches(&self, action: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => action.starts_with(prefix.as_str()),
            Self::Exact(exact) => exact == action,
        }
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => f.write_str(exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_table() {
        let environment = "provisioning.environments.create";
        for (pattern, want) in [
            ("*", true),
            ("provisioning.*", true),
            ("provisioning.environments.*", true),
            (environment, true),
            ("provisioning.environment.*", false),
            ("catalog.*", false),
            ("provisioning.environments.delete", false),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(environment), want, "{pattern}");
            assert_eq!(Pattern::parse(pattern).unwrap().to_string(), pattern);
        }
        for bad in
            ["", ".*", "**", "provisioning*", "Provisioning.*", "a..b", "a.b.", "create", "a.*.b", "a b.c"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_are_every_prefix() {
        assert_eq!(prefix_groups("a.b.c"), ["a.b.*", "a.*", "*"]);
    }
}

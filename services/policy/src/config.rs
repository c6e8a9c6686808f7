//! The configuration. The defaults are documented in `config.default.toml`.

use pavior_store::{DatabaseConfig, OutboxConfig};
use serde::{Deserialize, Serialize};

/// The configuration of the policy service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its database.
    pub database: DatabaseConfig,
    /// How old the directory of an organization may be, in milliseconds. When the catalog does not answer for longer,
    /// decisions are refused.
    pub directory_max_age_ms: u64,
    /// After how many milliseconds the database is asked whether another replica changed a policy.
    pub policy_max_age_ms: u64,
    /// How many organizations are kept in memory.
    pub cached_organizations: u64,
    /// How long an approval waits when nobody says otherwise, in seconds.
    pub approval_ttl_seconds: i64,
    /// The longest that an approval can be made to wait, in seconds.
    pub approval_max_ttl_seconds: i64,
    /// How often approvals are looked through for expired ones, in milliseconds.
    pub expiry_interval_ms: u64,
    /// How many decisions may wait to be written; more make their callers wait.
    pub decision_queue: usize,
    /// For how many days decisions are kept.
    pub decision_retention_days: u32,
    /// How many decisions of an organization are kept, at most; the oldest go first.
    pub max_decisions: u64,
    /// Most roles of an organization.
    pub max_roles: u64,
    /// Most role bindings of an organization.
    pub max_role_bindings: u64,
    /// Most policies of an organization.
    pub max_policies: u64,
    /// How many revisions of a policy are kept beside those that bindings name; the oldest go first.
    pub max_policy_revisions: u64,
    /// Most policy bindings of an organization.
    pub max_policy_bindings: u64,
    /// For how many days what is deleted is kept, to be listed; 0 for not at all.
    pub deleted_retention_days: u32,
    /// How many deleted resources of a type are kept in an organization, at most; the oldest go first.
    pub max_deleted: u64,
    /// What may wait for the audit service before changes are refused.
    pub outbox: OutboxConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: DatabaseConfig::default(),
            directory_max_age_ms: 1_000,
            policy_max_age_ms: 1_000,
            cached_organizations: 1_000,
            approval_ttl_seconds: 24 * 3_600,
            approval_max_ttl_seconds: 30 * 24 * 3_600,
            expiry_interval_ms: 10_000,
            decision_queue: 10_000,
            decision_retention_days: 90,
            max_decisions: 100_000,
            max_roles: 500,
            max_role_bindings: 5_000,
            max_policies: 500,
            max_policy_revisions: 100,
            max_policy_bindings: 2_000,
            deleted_retention_days: 30,
            max_deleted: 1_000,
            outbox: OutboxConfig::default(),
        }
    }
}

impl Config {
    /// For how long decisions are kept.
    pub(crate) fn decision_retention(&self) -> time::Duration {
        time::Duration::days(i64::from(self.decision_retention_days))
    }

    /// Whether the values make sense together. The database is checked by whoever connects.
    ///
    /// # Errors
    /// One sentence for each thing that is wrong.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut want = |holds: bool, text: &str| {
            if !holds {
                problems.push(text.to_owned());
            }
        };
        want(self.directory_max_age_ms <= 60_000, "`directory_max_age_ms` must be at most 60000");
        want(self.policy_max_age_ms <= 60_000, "`policy_max_age_ms` must be at most 60000");
        want(self.cached_organizations > 0, "`cached_organizations` must not be 0");
        want(self.approval_ttl_seconds > 0, "`approval_ttl_seconds` must be positive");
        want(
            self.approval_max_ttl_seconds >= self.approval_ttl_seconds,
            "`approval_max_ttl_seconds` must not be below `approval_ttl_seconds`",
        );
        want(self.expiry_interval_ms >= 100, "`expiry_interval_ms` must be at least 100");
        want(self.decision_queue > 0, "`decision_queue` must not be 0");
        want(self.decision_retention_days > 0, "`decision_retention_days` must not be 0");
        want(self.max_decisions > 0, "`max_decisions` must not be 0");
        want(self.max_policy_revisions > 0, "`max_policy_revisions` must not be 0");
        want(self.deleted_retention_days <= 3_650, "`deleted_retention_days` must be at most 3650");
        want(self.max_deleted <= 100_000, "`max_deleted` must be at most 100000");
        problems.extend(self.outbox.problems());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let documented: Config = toml::from_str(crate::DEFAULTS).unwrap();
        assert_eq!(documented, Config::default());
        assert_eq!(documented.validate(), Ok(()));
    }

    #[test]
    fn senseless_values_and_unknown_keys_are_refused() {
        let bad = Config { approval_max_ttl_seconds: 1, cached_organizations: 0, ..Config::default() };
        assert_eq!(bad.validate().unwrap_err().len(), 2);
        assert!(toml::from_str::<Config>("directory_age = 1").is_err());
    }
}

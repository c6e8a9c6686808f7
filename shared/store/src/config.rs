//! What an operator says about a database.

use crate::StoreError;
use crate::outbox::Limits;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A database address. It may hold a password, so neither `Debug` nor serialization shows it.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The address itself. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once(':').map_or("", |(scheme, _)| scheme);
        write!(f, "{scheme}:[hidden]")
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

/// One database of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `sqlite://path?mode=rwc` or `postgres://user:password@host/database`. A PostgreSQL schema is chosen with
    /// `?options=-c%20search_path%3Dname`.
    pub url: DatabaseUrl,
    /// Most connections. On SQLite: most readers, beside the one writer.
    pub max_connections: u32,
    /// Connections that are kept when idle.
    pub min_connections: u32,
    /// How long to wait for a connection, or on SQLite for the writer, before the call fails as unavailable.
    pub acquire_timeout_ms: u64,
    /// SQLite: how long to wait for a lock that another program holds.
    pub busy_timeout_ms: u64,
    /// PostgreSQL: longest run of one statement; 0 is no limit.
    pub statement_timeout_ms: u64,
    /// Longest run of one transaction, after which it is undone. On SQLite all other writers wait for it.
    pub transaction_timeout_ms: u64,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: DatabaseUrl::default(),
            max_connections: 8,
            min_connections: 0,
            acquire_timeout_ms: 5_000,
            busy_timeout_ms: 10_000,
            statement_timeout_ms: 30_000,
            transaction_timeout_ms: 30_000,
        }
    }
}

impl DatabaseConfig {
    /// The defaults for a database at `url`.
    pub fn at(url: impl Into<DatabaseUrl>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Whether the values make sense together.
    pub fn validate(&self) -> Result<(), StoreError> {
        let problem = if self.url.0.is_empty() {
            "`url` must be set"
        } else if !["sqlite:", "postgres:", "postgresql:"].iter().any(|s| self.url.0.starts_with(s)) {
            "`url` must begin with `sqlite://` or `postgres://`"
        } else if self.max_connections == 0 || self.min_connections > self.max_connections {
            "`max_connections` must be at least 1 and not below `min_connections`"
        } else if self.acquire_timeout_ms == 0 {
            "`acquire_timeout_ms` must not be 0"
        } else if self.transaction_timeout_ms == 0 {
            "`transaction_timeout_ms` must not be 0"
        } else {
            return Ok(());
        };
        Err(StoreError::Config(problem.to_owned()))
    }
}

/// What of a service's outbox may wait for the audit service before its changes are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// Most events that may wait.
    pub max_rows: i64,
    /// Longest time that an event may wait, in milliseconds.
    pub max_age_ms: u64,
    /// Most events of one organization that may wait; not more than `max_rows`, so that none stops the others.
    pub max_organization_rows: i64,
    /// Most bytes of events of one organization that may wait.
    pub max_organization_bytes: i64,
    /// How long an event may wait before the outbox counts as standing still, which health tells, in milliseconds.
    pub max_stall_ms: u64,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            max_rows: 100_000,
            max_age_ms: 15 * 60 * 1_000,
            max_organization_rows: 20_000,
            max_organization_bytes: 32 * 1024 * 1024,
            max_stall_ms: 30_000,
        }
    }
}

impl OutboxConfig {
    /// The same as the outbox takes it.
    pub fn limits(&self) -> Limits {
        let Self { max_rows, max_age_ms, max_organization_rows, max_organization_bytes, max_stall_ms } =
            *self;
        Limits {
            max_rows,
            max_age: Duration::from_millis(max_age_ms),
            max_organization_rows,
            max_organization_bytes,
            max_stall: Duration::from_millis(max_stall_ms),
            ..Limits::default()
        }
    }

    /// One sentence for each value that makes no sense.
    pub fn problems(&self) -> Vec<String> {
        let own = 1..=self.max_rows;
        let checks = [
            (self.max_rows > 0, "`outbox.max_rows` must be positive"),
            (self.max_age_ms >= 1_000, "`outbox.max_age_ms` must be at least 1000"),
            (
                own.contains(&self.max_organization_rows),
                "`outbox.max_organization_rows` must be positive and not above `outbox.max_rows`",
            ),
            (
                self.max_organization_bytes >= 1024 * 1024,
                "`outbox.max_organization_bytes` must be at least 1 MiB: an event may have a quarter of that",
            ),
            (self.max_stall_ms >= 1_000, "`outbox.max_stall_ms` must be at least 1000"),
        ];
        checks.into_iter().filter(|(holds, _)| !holds).map(|(_, text)| text.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_never_shown() {
        let config = DatabaseConfig::at("postgres://u:hunter2@h/d");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
        assert!(config.validate().is_ok());
    }

    #[test]
    fn senseless_configurations_are_refused() {
        for bad in [
            DatabaseConfig::default(),
            DatabaseConfig::at("mysql://x"),
            DatabaseConfig { max_connections: 0, ..DatabaseConfig::at("sqlite://x") },
            DatabaseConfig { min_connections: 9, ..DatabaseConfig::at("sqlite://x") },
            DatabaseConfig { acquire_timeout_ms: 0, ..DatabaseConfig::at("sqlite://x") },
            DatabaseConfig { transaction_timeout_ms: 0, ..DatabaseConfig::at("sqlite://x") },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        assert!(serde_json::from_str::<DatabaseConfig>(r#"{"urll":"x"}"#).is_err());
    }

    #[test]
    fn outbox_limits_are_the_outboxes_own_unless_they_are_set_and_make_sense() {
        assert_eq!(OutboxConfig::default().limits(), Limits::default());
        assert_eq!(OutboxConfig::default().problems(), Vec::<String>::new());
        let set: OutboxConfig = serde_json::from_str(r#"{"max_organization_rows":7}"#).unwrap();
        assert_eq!(set.limits().max_organization_rows, 7);
        let bad = OutboxConfig {
            max_rows: 10,
            max_age_ms: 0,
            max_organization_rows: 11,
            max_organization_bytes: 1,
            max_stall_ms: 0,
        };
        let named: Vec<_> =
            bad.problems().iter().map(|text| text.split('`').nth(1).unwrap().to_owned()).collect();
        let all = ["max_age_ms", "max_organization_rows", "max_organization_bytes", "max_stall_ms"];
        assert_eq!(named, all.map(|field| format!("outbox.{field}")));
    }
}

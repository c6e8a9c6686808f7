//! What an operator can set. The defaults stand, with comments, in `config.default.toml`.

use pavior_store::{DatabaseConfig, OutboxConfig};
use serde::{Deserialize, Serialize};

/// The configuration of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its own database.
    pub database: DatabaseConfig,
    /// Largest page of a list in bytes; a page that would be larger ends early. Clients take 4 MiB.
    pub max_page_bytes: usize,
    /// Largest request in bytes: what one import may hold.
    pub max_message_bytes: usize,
    /// How often answers that were kept for repeated requests are looked through for old ones, in milliseconds.
    pub sweep_interval_ms: u64,
    /// The code of the currency (ISO 4217) that all costs are in.
    pub currency: String,
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
            max_page_bytes: 3 * 1024 * 1024,
            max_message_bytes: 4 * 1024 * 1024,
            sweep_interval_ms: 60 * 60 * 1_000,
            currency: "USD".to_owned(),
            deleted_retention_days: 30,
            max_deleted: 1_000,
            outbox: OutboxConfig::default(),
        }
    }
}

impl Config {
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
        let (least, most) = (64 * 1024, 3_800 * 1024);
        want(
            (least..=most).contains(&self.max_page_bytes),
            "`max_page_bytes` must be between 64 KiB and 3800 KiB",
        );
        want(
            (1024 * 1024..=64 * 1024 * 1024).contains(&self.max_message_bytes),
            "`max_message_bytes` must be between 1 MiB and 64 MiB",
        );
        want(self.sweep_interval_ms >= 1_000, "`sweep_interval_ms` must be at least 1000");
        want(pavior_core::money::is_currency(&self.currency), "`currency` must be a code such as `EUR`");
        want(self.deleted_retention_days <= 3_650, "`deleted_retention_days` must be at most 3650");
        want(self.max_deleted <= 100_000, "`max_deleted` must be at most 100000");
        problems.extend(self.outbox.problems());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

impl pavior_runtime::config::Validate for Config {
    fn validate(&self) -> Result<(), Vec<String>> {
        Config::validate(self)
    }
}

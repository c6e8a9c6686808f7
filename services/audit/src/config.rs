//! What an operator says about the audit service. The defaults stand, with comments, in `config.default.toml`.

use std::path::PathBuf;

use pavior_core::audit::MAX_EVENT_BYTES;
use pavior_store::DatabaseConfig;
use secrecy::SecretString;
use serde::Deserialize;

use crate::domain::note;
use crate::error::Error;

/// What a record must be allowed to have: the largest event of a service, and what the log adds to it.
const MIN_RECORD_BYTES: usize = MAX_EVENT_BYTES + 64 * 1024;

/// The configuration of the audit service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The service's own database.
    pub database: DatabaseConfig,
    /// What stands before `/{organization}` in the name of every log. It is signed with every checkpoint, so it
    /// should be unique in the world and can never change.
    pub origin: String,
    /// The file of the Ed25519 key that signs checkpoints, PKCS #8 in PEM. Made, readable by its owner only, when it
    /// does not exist. Replicas must share it. The verifier key is written beside it, with the extension `pub`.
    pub signing_key_file: Option<PathBuf>,
    /// The key itself, instead of a file.
    pub signing_key_pem: Option<SecretString>,
    /// Verifier keys (`name+id+base64`) of former signing keys, whose last checkpoints are still accepted at start.
    /// Their name is `origin`.
    pub former_keys: Vec<String>,
    /// The folder in which the last checkpoint of every log is kept outside of the database, so that a database that
    /// was set back to an older copy is noticed. It should be on another disk and in no backup of the database; nothing
    /// is kept when it is absent.
    pub checkpoints_dir: Option<PathBuf>,
    /// Most records in one transaction of the writer.
    pub max_batch_records: usize,
    /// How long the writer waits for more when several callers are about, in microseconds.
    pub max_batch_wait_us: u64,
    /// Most calls that wait for the writer.
    pub max_queue: usize,
    /// Most events that are parked for a log that is not consistent. Beyond it they are refused, which holds up the
    /// services that they come from.
    pub max_parked_records: u64,
    /// Most bytes of such events.
    pub max_parked_bytes: u64,
    /// Largest record in bytes, as canonical JSON.
    pub max_record_bytes: usize,
    /// Most bytes of records in one page of a list.
    pub max_page_bytes: usize,
    /// How often a quiet watch stream says that it lives, in milliseconds; at most 30,000.
    pub bookmark_interval_ms: u64,
    /// How often a watch stream looks for what another replica has written, in milliseconds (PostgreSQL only).
    pub poll_interval_ms: u64,
    /// How fast stored records are read back and hashed again, all of them once and then again after an hour's rest;
    /// 0 switches it off.
    pub check_records_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: DatabaseConfig::default(),
            origin: "pavior.dev/audit".to_owned(),
            signing_key_file: None,
            signing_key_pem: None,
            former_keys: Vec::new(),
            checkpoints_dir: None,
            max_batch_records: 2_000,
            max_batch_wait_us: 2_000,
            max_queue: 1_024,
            max_parked_records: 100_000,
            max_parked_bytes: 256 * 1024 * 1024,
            max_record_bytes: 1024 * 1024,
            max_page_bytes: 1536 * 1024,
            bookmark_interval_ms: 20_000,
            poll_interval_ms: 1_000,
            check_records_per_second: 1_000,
        }
    }
}

impl Config {
    /// Whether the values make sense together.
    pub fn validate(&self) -> Result<(), Error> {
        self.database.validate()?;
        let problem = if !note::origin_is_valid(&self.origin) || self.origin.ends_with('/') {
            "`origin` must be a name without spaces and `+` that does not end with `/`"
        } else if self.signing_key_file.is_some() == self.signing_key_pem.is_some() {
            "one of `signing_key_file` and `signing_key_pem` must be set"
        } else if self.max_batch_records == 0 || self.max_queue == 0 {
            "`max_batch_records` and `max_queue` must not be 0"
        } else if self.max_record_bytes < MIN_RECORD_BYTES {
            "`max_record_bytes` must be at least 320 KiB, so that every event of a service is taken whole"
        } else if self.max_record_bytes > self.max_page_bytes || self.max_page_bytes > 1792 * 1024 {
            // A record is sent as bytes and as fields, and clients take 4 MiB.
            "`max_page_bytes` must be between `max_record_bytes` and 1792 KiB"
        } else if !(1..=30_000).contains(&self.bookmark_interval_ms) || self.poll_interval_ms == 0 {
            "`bookmark_interval_ms` must be between 1 and 30000 and `poll_interval_ms` not 0"
        } else {
            return Ok(());
        };
        Err(Error::Config(problem.to_owned()))
    }
}

impl pavior_runtime::config::Validate for Config {
    fn validate(&self) -> Result<(), Vec<String>> {
        Config::validate(self).map_err(|error| vec![error.to_string()])
    }
}

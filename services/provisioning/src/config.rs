//! What an operator can set. The defaults are documented in `config.default.toml`.

use pavior_store::{DatabaseConfig, OutboxConfig};
use serde::{Deserialize, Serialize};

use crate::store::Retention;

const DAY: i64 = 24 * 3_600;

/// The configuration of the provisioning service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its database.
    pub database: DatabaseConfig,
    /// How long a worker's claim on a step lasts unless it is renewed, in milliseconds.
    pub lease_ms: u64,
    /// How often to look for work that nobody told of, in milliseconds.
    pub poll_ms: u64,
    /// Most steps at a time in this process.
    pub max_running: usize,
    /// Most steps of one operation at a time.
    pub max_running_per_operation: usize,
    /// Most steps of one organization at a time.
    pub max_running_per_organization: usize,
    /// How often a step is tried.
    pub max_attempts: u32,
    /// How often an undo is tried.
    pub max_undo_attempts: u32,
    /// First pause between attempts, in milliseconds.
    pub backoff_ms: u64,
    /// Longest pause between attempts, in milliseconds.
    pub max_backoff_ms: u64,
    /// How long a cancelled driver may take to stop, in milliseconds.
    pub cancel_grace_ms: u64,
    /// How long one call of a driver may take, in milliseconds.
    pub step_timeout_ms: u64,
    /// How long an operation may take, in milliseconds.
    pub operation_timeout_ms: u64,
    /// How long undoing an operation may take, in milliseconds.
    pub undo_timeout_ms: u64,
    /// How often log lines are kept, in milliseconds. Not for operators: tests shorten it.
    #[serde(skip)]
    pub log_flush_ms: u64,
    /// How long an operation is kept after its end, with its plan, steps and events, in seconds.
    pub keep_operations_seconds: i64,
    /// Most operations of an organization that have ended.
    pub max_operations_per_organization: u64,
    /// How long log lines are kept after the end of their operation, in seconds.
    pub keep_logs_seconds: i64,
    /// Most batches of log lines that are kept of an operation; the oldest go first.
    pub max_log_chunks_per_operation: i64,
    /// Most runs that are kept of a pipeline.
    pub max_runs_per_pipeline: u64,
    /// Most deployments that are kept of an environment.
    pub max_deployments_per_environment: u64,
    /// How long a secret of a live resource is kept after a later one has taken its place, in seconds.
    pub keep_secrets_seconds: i64,
    /// Most such secrets that are kept of a resource.
    pub max_superseded_secrets_per_resource: u64,
    /// How often to look for what is to be forgotten, in milliseconds.
    pub sweep_ms: u64,
    /// How often approvals are looked at, in milliseconds.
    pub approval_poll_ms: u64,
    /// For how long a plan may wait for approval, in seconds.
    pub plan_ttl_seconds: i64,
    /// How often environments are looked through for expired ones, in milliseconds.
    pub expiry_poll_ms: u64,
    /// How often drivers are told what is declared and asked how they are, in milliseconds.
    pub driver_poll_ms: u64,
    /// A step that waits longer for a worker than this makes the service unhealthy, in milliseconds.
    pub max_stall_ms: u64,
    /// What may wait for the audit service before changes are refused.
    pub outbox: OutboxConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: DatabaseConfig::default(),
            lease_ms: 15_000,
            poll_ms: 1_000,
            max_running: 32,
            max_running_per_operation: 8,
            // Fewer than there are slots, so that one organization never has all of them.
            max_running_per_organization: 24,
            max_attempts: 4,
            max_undo_attempts: 6,
            backoff_ms: 200,
            max_backoff_ms: 15_000,
            cancel_grace_ms: 10_000,
            step_timeout_ms: 30 * 60_000,
            operation_timeout_ms: 2 * 3_600_000,
            undo_timeout_ms: 3_600_000,
            log_flush_ms: 150,
            keep_operations_seconds: 90 * DAY,
            max_operations_per_organization: 100_000,
            keep_logs_seconds: 30 * DAY,
            max_log_chunks_per_operation: 20_000,
            max_runs_per_pipeline: 500,
            max_deployments_per_environment: 500,
            keep_secrets_seconds: 30 * DAY,
            max_superseded_secrets_per_resource: 100,
            sweep_ms: 600_000,
            approval_poll_ms: 1_000,
            plan_ttl_seconds: 7 * 24 * 3_600,
            expiry_poll_ms: 5_000,
            driver_poll_ms: 15_000,
            max_stall_ms: 60_000,
            outbox: OutboxConfig::default(),
        }
    }
}

impl Config {
    /// Whether the values make sense together. The database is checked by whoever connects.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = self.outbox.problems();
        let positive = [
            ("lease_ms", self.lease_ms),
            ("poll_ms", self.poll_ms),
            ("max_running", self.max_running as u64),
            ("max_running_per_operation", self.max_running_per_operation as u64),
            ("max_running_per_organization", self.max_running_per_organization as u64),
            ("max_attempts", u64::from(self.max_attempts)),
            ("max_undo_attempts", u64::from(self.max_undo_attempts)),
            ("step_timeout_ms", self.step_timeout_ms),
            ("operation_timeout_ms", self.operation_timeout_ms),
            ("undo_timeout_ms", self.undo_timeout_ms),
            ("max_operations_per_organization", self.max_operations_per_organization),
            ("keep_logs_seconds", u64::try_from(self.keep_logs_seconds).unwrap_or(0)),
            ("max_log_chunks_per_operation", u64::try_from(self.max_log_chunks_per_operation).unwrap_or(0)),
            ("max_runs_per_pipeline", self.max_runs_per_pipeline),
            ("max_deployments_per_environment", self.max_deployments_per_environment),
            ("keep_secrets_seconds", u64::try_from(self.keep_secrets_seconds).unwrap_or(0)),
            ("max_superseded_secrets_per_resource", self.max_superseded_secrets_per_resource),
            ("sweep_ms", self.sweep_ms),
            ("approval_poll_ms", self.approval_poll_ms),
            ("expiry_poll_ms", self.expiry_poll_ms),
            ("driver_poll_ms", self.driver_poll_ms),
            ("plan_ttl_seconds", u64::try_from(self.plan_ttl_seconds).unwrap_or(0)),
        ];
        for (name, value) in positive {
            if value == 0 {
                problems.push(format!("`{name}` must be more than 0"));
            }
        }
        if self.lease_ms < 300 {
            problems.push("`lease_ms` must be at least 300".to_owned());
        }
        if self.keep_operations_seconds < 2 * DAY {
            // A request that is repeated gets its first answer for a day.
            problems.push(format!("`keep_operations_seconds` must be at least {}", 2 * DAY));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention {
            operations: time::Duration::seconds(self.keep_operations_seconds),
            max_operations: self.max_operations_per_organization,
            logs: time::Duration::seconds(self.keep_logs_seconds),
            max_runs: self.max_runs_per_pipeline,
            max_deployments: self.max_deployments_per_environment,
            secrets: time::Duration::seconds(self.keep_secrets_seconds),
            max_secrets: self.max_superseded_secrets_per_resource,
        }
    }
}

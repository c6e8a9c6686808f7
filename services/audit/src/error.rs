//! Everything that can go wrong in the service.

use pavior_rpc::Problem;
use pavior_store::{Retryable, StoreError};

use crate::domain::batch::SequenceConflict;

/// An error of the audit service. `api/status.rs` says what each is on the wire.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of any resource.
    #[error(transparent)]
    Resource(#[from] pavior_resource::Error),
    /// From the database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored of a log does not fit together. Nothing is appended to it until it does again.
    #[error("audit log `{log}` is not consistent: {why}")]
    Inconsistent {
        /// The log.
        log: String,
        /// What does not fit.
        why: String,
    },
    /// As much is parked for a log that is not consistent as may be.
    #[error("audit log `{log}` is not consistent ({why}), and no more of its events can be parked")]
    ParkingFull {
        /// The log.
        log: String,
        /// What does not fit.
        why: String,
    },
    /// Logs do not go on from checkpoints that were signed before.
    #[error(
        "{}; put the newest copy of the audit database back; only if there is none, `pavior restore --accept-lost-records \
         --reason \"...\"` goes on without the records that are gone", list(.0)
    )]
    RolledBack(Vec<Rollback>),
    /// The folder with the copies of checkpoints cannot be used.
    #[error("the copies of audit checkpoints outside of the database: {0}")]
    CheckpointReplica(String),
    /// What a producer hands over does not fit to what the log has of it.
    #[error(
        "records of `{service}`, epoch `{epoch}`, do not fit to the log: {conflict}; one of the two databases was set back"
    )]
    Refused {
        /// The service.
        service: String,
        /// Its epoch.
        epoch: String,
        /// What does not fit.
        conflict: Box<SequenceConflict>,
    },
    /// An index or a size beyond the end of the log.
    #[error("the log has {size} records, {asked} is beyond its end")]
    BeyondEnd {
        /// The field of the request that asks for it.
        field: &'static str,
        /// What was asked for.
        asked: u64,
        /// How many records there are.
        size: u64,
    },
    /// A stream is to go on behind records that the log does not have any more.
    #[error("the log has {size} records, and the stream was at {next}: it was set back")]
    ResumeBeyondEnd {
        /// The index at which the stream was.
        next: i64,
        /// How many records there are.
        size: i64,
    },
    /// A record cannot be written as canonical JSON.
    #[error("record cannot be written: {0}")]
    Encoding(#[source] serde_json::Error),
    /// No randomness for a salt.
    #[error("no randomness")]
    Randomness,
    /// The writer has stopped.
    #[error("the audit log is shutting down")]
    Stopped,
    /// The batch that the records were in could not be written. The cause is logged once.
    #[error("the audit log cannot be written")]
    NotWritten,
    /// The signing key cannot be used.
    #[error("audit signing key: {0}")]
    Key(String),
    /// The configuration makes no sense.
    #[error("audit configuration: {0}")]
    Config(String),
}

/// A log that does not go on from a checkpoint that was signed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The log.
    pub log: String,
    /// How many records it has.
    pub has: u64,
    /// How many records it had when the checkpoint was signed.
    pub signed: u64,
    /// It is long enough, but its first records are others.
    pub forked: bool,
}

impl Rollback {
    /// The same of a log that is named already.
    pub(crate) fn why(&self) -> String {
        let Self { log: _, has, signed, forked } = self;
        match forked {
            false => {
                format!(
                    "it has {has} records, but {signed} were signed: its database is older, or it was cut"
                )
            }
            true => format!("its first {signed} of {has} records are not those that were signed"),
        }
    }
}

impl std::fmt::Display for Rollback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { log, has, signed, forked } = self;
        match forked {
            false => write!(
                f,
                "audit log `{log}` has {has} records, but {signed} were signed: its database is older"
            ),
            true => write!(
                f,
                "the first {signed} of {has} records of audit log `{log}` are not those that were signed"
            ),
        }
    }
}

/// The first few, and how many there are.
fn list(found: &[Rollback]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = found.iter().take(SHOWN).map(Rollback::to_string).collect();
    let more = found.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more logs") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

impl Error {
    /// What is stored of a log does not fit together.
    pub(crate) fn inconsistent(log: &str, why: impl Into<String>) -> Self {
        Self::Inconsistent { log: log.to_owned(), why: why.into() }
    }

    /// The log and what is wrong with it, where that is it; else the error.
    pub(crate) fn damage(self) -> Result<(String, String), Self> {
        match self {
            Self::Inconsistent { log, why } => Ok((log, why)),
            Self::RolledBack(found) => match found.first() {
                Some(first) => Ok((first.log.clone(), first.why())),
                None => Err(Self::RolledBack(found)),
            },
            other => Err(other),
        }
    }

    /// As the damage of a log, when a value of its rows cannot be read: that is no failure of the database.
    pub(crate) fn of_log(self, log: &str) -> Self {
        match &self {
            Self::Store(error) => match error.unreadable() {
                Some(what) => Self::inconsistent(log, format!("{what} cannot be read")),
                None => self,
            },
            _ => self,
        }
    }

    /// Whether a stored value cannot be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Store(error) if error.unreadable().is_some())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Resource(problem.into())
    }
}

impl From<Rollback> for Error {
    fn from(rollback: Rollback) -> Self {
        Self::RolledBack(vec![rollback])
    }
}

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}

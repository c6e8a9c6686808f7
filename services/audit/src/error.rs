//! Everything that can go wrong in the service.

use pavior_store::filter::FilterError;
use pavior_store::{Retryable, StoreError};

/// An error of the audit service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    Full {
        /// The log.
        log: String,
        /// What does not fit.
        why: String,
    },
    /// Logs do not go on from the checkpoints that were kept outside of the database.
    #[error("{}; put the newer copy of the audit database back, or accept the loss with `pavior restore`", list(.0))]
    SetBack(Vec<SetBack>),
    /// The folder of checkpoints cannot be used.
    #[error("the second place of audit checkpoints: {0}")]
    SecondPlace(String),
    /// What a producer hands over does not fit to what the log has of it.
    #[error(
        "records of `{service}`, epoch `{epoch}`, do not fit to the log: {why}; one of the two databases was set back"
    )]
    Refused {
        /// The service.
        service: String,
        /// Its epoch.
        epoch: String,
        /// What does not fit.
        why: Misfit,
    },
    /// The log has no such record.
    #[error("audit record `{0}` does not exist")]
    NoRecord(String),
    /// The tree has no such tile.
    #[error("tile {index} of level {level} does not exist")]
    NoTile {
        /// The level.
        level: i32,
        /// The index.
        index: i64,
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
    Forgotten {
        /// The index at which the stream was.
        next: i64,
        /// How many records there are.
        size: i64,
    },
    /// The filter names a field that there is not, or compares it with what it cannot be compared with.
    #[error(transparent)]
    Filter(#[from] FilterError),
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
pub struct SetBack {
    /// The log.
    pub log: String,
    /// How many records it has.
    pub has: u64,
    /// How many records it had when the checkpoint was signed.
    pub signed: u64,
    /// It is long enough, but its first records are others.
    pub forked: bool,
}

impl SetBack {
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

impl std::fmt::Display for SetBack {
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
fn list(found: &[SetBack]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = found.iter().take(SHOWN).map(SetBack::to_string).collect();
    let more = found.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more logs") } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

/// How a call of a producer does not fit to the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// A number was skipped.
    #[error("{expected} was expected and {found} came")]
    Gap {
        /// The next number.
        expected: i64,
        /// What came.
        found: i64,
    },
    /// The number stands for another event.
    #[error("{sequence} is event {stored} in the log and event {offered} now")]
    Diverged {
        /// The number.
        sequence: i64,
        /// Id and digest of the event in the log.
        stored: String,
        /// Id and digest of the event that came.
        offered: String,
    },
}

impl Error {
    /// The log and what is wrong with it, where that is it; else the error.
    pub(crate) fn damage(self) -> Result<(String, String), Self> {
        match self {
            Self::Inconsistent { log, why } => Ok((log, why)),
            Self::SetBack(found) => match found.first() {
                Some(first) => Ok((first.log.clone(), first.why())),
                None => Err(Self::SetBack(found)),
            },
            other => Err(other),
        }
    }

    /// As the damage of a log, when a value of its rows cannot be read: that is no failure of the database.
    pub(crate) fn of_log(self, log: &str) -> Self {
        match &self {
            Self::Store(error) => match error.unreadable() {
                Some(what) => {
                    Self::Inconsistent { log: log.to_owned(), why: format!("{what} cannot be read") }
                }
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

impl Retryable for Error {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}

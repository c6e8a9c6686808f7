//! The results of a verification that did not succeed.

/// The first place where a log is not what it was when it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The log: an organization id; `pavior` for the installation's own.
    pub log: String,
    /// The index of the first record that is wrong or missing; absent when what is wrong lies above the records
    /// (a forged signature, a changed checkpoint) and every record agrees with the tree.
    pub first_bad_index: Option<u64>,
    /// The event id of that record, when it can still be read.
    pub event_id: Option<String>,
    /// What is wrong, in a sentence.
    pub why: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "log `{}`", self.log)?;
        if let Some(index) = self.first_bad_index {
            write!(f, ", record {index}")?;
        }
        if let Some(event) = &self.event_id {
            write!(f, " (event {event})")?;
        }
        write!(f, ": {}", self.why)
    }
}

impl Failure {
    pub(crate) fn at(log: &str, index: u64, event_id: Option<String>, why: impl Into<String>) -> Self {
        Self { log: log.to_owned(), first_bad_index: Some(index), event_id, why: why.into() }
    }

    pub(crate) fn above(log: &str, why: impl Into<String>) -> Self {
        Self { log: log.to_owned(), first_bad_index: None, event_id: None, why: why.into() }
    }
}

/// Why verification did not end in a report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The log was changed, or is not complete.
    #[error("{0}")]
    Tampered(Failure),
    /// It is something else than an audit database or an exported audit log, so there is nothing to verify.
    #[error("`{what}` is not an audit log: {found}; {wanted}")]
    NotAnAuditLog {
        /// What was to be verified.
        what: String,
        /// What it is instead.
        found: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// The database or export cannot be read, so nothing can be said about it.
    #[error("cannot read `{what}`: {why}")]
    Unreadable {
        /// What was to be read.
        what: String,
        /// Why it could not.
        why: String,
    },
}

impl VerifyError {
    /// The failure, when the log was read and found wrong.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Tampered(failure) => Some(failure),
            Self::NotAnAuditLog { .. } | Self::Unreadable { .. } => None,
        }
    }

    pub(crate) fn not_a_database(what: impl Into<String>, found: impl Into<String>) -> Self {
        let wanted = "give the database of the audit service: its SQLite file (for example DATA/audit.db) or a \
                      `postgres://` URL";
        Self::NotAnAuditLog { what: what.into(), found: found.into(), wanted }
    }

    pub(crate) fn not_an_export(found: impl Into<String>) -> Self {
        let wanted = "an export has one record as JSON on each line and `{\"checkpoint\": …}` on the last";
        Self::NotAnAuditLog { what: "export".to_owned(), found: found.into(), wanted }
    }

    pub(crate) fn unreadable(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Unreadable { what: what.into(), why: why.to_string() }
    }
}

impl From<Failure> for VerifyError {
    fn from(failure: Failure) -> Self {
        Self::Tampered(failure)
    }
}

//! What an operator is told of a log before a loss is accepted.

use crate::error::Rollback;

/// What was found of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFinding {
    /// The log.
    pub log: String,
    /// How many events wait for it.
    pub waiting: u64,
    /// What does not fit together: no loss that can be accepted, but for a copy of the database to mend.
    pub damage: Option<String>,
    /// It does not go on from what was signed.
    pub rollback: Option<Rollback>,
    /// Events that waited for it and are gone.
    pub missing: Option<Missing>,
    /// Events that wait for it and whose numbers stand for others in the records: by going on, they are recorded under
    /// other numbers.
    pub conflicting: u64,
}

/// Events that waited for a log and are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// How many.
    pub records: i64,
    /// Their bytes.
    pub bytes: i64,
}

impl LogFinding {
    /// What is gone of it for good by going on, in words; none when nothing is, or when it cannot go on.
    pub fn lost(&self) -> Option<String> {
        let missing = self.missing.map(|Missing { records, bytes }| {
            format!("{records} events of {bytes} bytes that waited for audit log `{}` are gone", self.log)
        });
        let conflicting = (self.conflicting > 0).then(|| {
            let Self { conflicting, log, .. } = self;
            format!("the numbers of {conflicting} events that wait for audit log `{log}` stand for others")
        });
        let rollback = self.rollback.iter().map(ToString::to_string);
        let lost: Vec<String> = rollback.chain(missing).chain(conflicting).collect();
        (self.damage.is_none() && !lost.is_empty()).then(|| lost.join("; "))
    }
}

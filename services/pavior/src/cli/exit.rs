//! What the exit code of a command says.

/// Exit codes other than 0, one for each class of ends that a script has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    Denied = 3,
    NotFound = 4,
    Conflict = 5,
    AwaitingApproval = 6,
    Unavailable = 7,
    Forbidden = 8,
    OperationFailed = 9,
    Stuck = 10,
    Cancelled = 11,
    TimedOut = 12,
    Accepted = 13,
    Interrupted = 130,
}

/// Every exit code with its meaning, as `pavior help` and README.md list them.
pub const MEANINGS: [(Exit, &str); 14] = [
    (
        Exit::Failed,
        "failed in a way that has no code of its own, or something is wrong (doctor, audit verify)",
    ),
    (Exit::Usage, "the command line or the request is wrong"),
    (Exit::Denied, "not logged in, or not allowed"),
    (Exit::NotFound, "does not exist"),
    (Exit::Conflict, "exists already, has changed meanwhile, or its state does not allow it"),
    (Exit::AwaitingApproval, "waits for approval"),
    (Exit::Unavailable, "the server, or something that it needs, cannot be reached"),
    (Exit::Forbidden, "a guardrail or an approver says no"),
    (Exit::OperationFailed, "a step of the operation failed, for example a test in the pipeline"),
    (Exit::Stuck, "the operation is stuck: pavior op retry"),
    (Exit::Cancelled, "the operation was cancelled"),
    (Exit::TimedOut, "not done in the time that was given; the operation goes on"),
    (Exit::Accepted, "accepted, and the operation goes on; how it ends is not for the caller to read"),
    (Exit::Interrupted, "interrupted while watching; the operation goes on"),
];

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// The list for `pavior help`.
pub(super) fn help() -> String {
    let lines = MEANINGS.iter().map(|(exit, meaning)| (exit.code(), *meaning));
    std::iter::once((0, "done"))
        .chain(lines)
        .map(|(code, meaning)| format!("  {code:<4} {meaning}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_exit_code() {
        let readme = include_str!("../../../../README.md");
        for (exit, meaning) in MEANINGS {
            let row = format!("| {} | {meaning} |", exit.code());
            assert!(readme.contains(&row), "README.md lacks `{row}`");
        }
    }
}

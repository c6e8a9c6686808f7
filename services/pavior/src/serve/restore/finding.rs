//! What has to be repaired, in words and for programs.

use pavior_audit::restore::{LogFinding, Missing};
use pavior_policy::restore::Pending;
use serde_json::{Value, json};

use super::divergence::Divergence;
use crate::cli::output::{self, Printer};

/// A difference between databases that has to be repaired.
#[derive(Debug)]
pub(super) enum Finding {
    /// A service's numbers and the log's.
    Producer(Box<Divergence>),
    /// A log of which something is gone or damaged, or that is held.
    Log(LogFinding),
    /// Operations that would go on although their database was set back.
    UnderWay(Vec<String>),
    /// Approvals about operations that provisioning does not know any more.
    Orphaned(Vec<Pending>),
    /// Environments that would be taken down, although their time may have been prolonged since.
    Expiring(Vec<String>),
}

pub(super) fn log_detail(found: &LogFinding) -> Value {
    let LogFinding { log, waiting, damage, rollback, missing, conflicting } = found;
    let mut detail = json!({ "database": "audit", "log": log, "waiting": waiting });
    if let Some(damage) = damage {
        detail["damage"] = damage.as_str().into();
    }
    if let Some(rollback) = rollback {
        detail["has"] = rollback.has.into();
        detail["signed"] = rollback.signed.into();
        detail["forked"] = rollback.forked.into();
    }
    if let Some(Missing { records, bytes }) = missing {
        detail["missing"] = (*records).into();
        detail["missingBytes"] = (*bytes).into();
    }
    if *conflicting > 0 {
        detail["clashing"] = (*conflicting).into();
    }
    detail
}

/// What is wrong with a log, and what is done about it.
fn describe_log(found: &LogFinding) -> (String, &'static str) {
    let LogFinding { log, waiting, .. } = found;
    match (&found.damage, found.lost()) {
        (Some(why), _) => (
            format!("audit log `{log}` is damaged ({why}): {waiting} events wait for its repair"),
            "nothing; put a copy of its rows, or of the audit database, back that is whole: it then goes on by itself with \
             what waits",
        ),
        (None, Some(lost)) => (lost, "records the gap, begins a new line of checkpoints"),
        (None, None) => (
            format!("audit log `{log}` was held and is whole: {waiting} events wait"),
            "nothing; it goes on with them when the audit service is started",
        ),
    }
}

impl Finding {
    /// The log that is damaged and stays so.
    pub(super) fn damaged(&self) -> Option<&str> {
        match self {
            Self::Log(found) => found.damage.is_some().then_some(found.log.as_str()),
            Self::Producer(_) | Self::UnderWay(_) | Self::Orphaned(_) | Self::Expiring(_) => None,
        }
    }

    /// The log that goes on without what is gone of it.
    pub(super) fn lost_log(&self) -> Option<&LogFinding> {
        match self {
            Self::Log(found) => Some(found).filter(|found| found.lost().is_some()),
            Self::Producer(_) | Self::UnderWay(_) | Self::Orphaned(_) | Self::Expiring(_) => None,
        }
    }

    /// The records that are given up by going on, in words.
    pub(super) fn lost(&self) -> Option<String> {
        match self {
            Self::Log(found) => found.lost(),
            Self::Producer(found) => found.is_of_the_log().then(|| found.summary()),
            Self::UnderWay(_) | Self::Orphaned(_) | Self::Expiring(_) => None,
        }
    }

    /// What is wrong, what is done about it, and the same for programs.
    fn describe(&self) -> (String, &'static str, Value) {
        match self {
            Self::Producer(found) => (
                found.describe(),
                "begins a new epoch, records the gap, hands over what still waits",
                found.detail(),
            ),
            Self::Log(found) => {
                let (what, action) = describe_log(found);
                (what, action, log_detail(found))
            }
            Self::UnderWay(names) => (
                format!("under way in the older copy of provisioning: {}", names.join(", ")),
                "parks them as stuck, to be gone on with (`pavior op retry`) or given up (`pavior op cancel`)",
                json!({ "database": "provisioning", "operations": names }),
            ),
            Self::Orphaned(lost) => {
                let names: Vec<&str> = lost.iter().map(|request| request.name.as_str()).collect();
                (
                    format!("approvals of operations that are lost: {}", names.join(", ")),
                    "ends them as void: nobody asks any more",
                    json!({ "database": "policy", "approvals": names }),
                )
            }
            Self::Expiring(names) => (
                format!("about to expire in the older copy of provisioning: {}", names.join(", ")),
                "lets them stand for another day, in which they can be prolonged",
                json!({ "database": "provisioning", "environments": names }),
            ),
        }
    }
}

/// Prints the findings, each with whether it is repaired; `done` is absent for a dry run. `next` is the next step for the
/// operator.
pub(super) fn report(
    findings: &[Finding],
    done: Option<&[bool]>,
    next: &str,
    printer: Printer,
) -> anyhow::Result<()> {
    let is_done = |at: usize| done.and_then(|done| done.get(at).copied());
    if printer.is_json() {
        let described = findings.iter().enumerate().map(|(at, finding)| {
            let (what, action, detail) = finding.describe();
            let done = is_done(at).unwrap_or_default();
            json!({ "finding": what, "action": action, "done": done, "detail": detail })
        });
        let described: Vec<Value> = described.collect();
        let next = if findings.is_empty() { Value::Null } else { next.into() };
        return printer.value(&json!({ "dryRun": done.is_none(), "findings": described, "next": next }));
    }
    if findings.is_empty() {
        return output::say(
            "all databases, the audit log and its checkpoints fit together: there is nothing to restore",
        );
    }
    for (at, finding) in findings.iter().enumerate() {
        let (what, action, _) = finding.describe();
        let done = match is_done(at) {
            None => "would be done",
            Some(true) => "done",
            Some(false) => "not done",
        };
        output::say(&format!("{what}\n  {done}: {action}"))?;
    }
    output::say(next)
}

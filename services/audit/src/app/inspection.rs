//! What is found of logs before they are used, and of those that turn out not to be readable.

use std::collections::BTreeMap;

use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::log_state::LogState;
use crate::domain::observed_logs::ObservedLogs;
use crate::domain::tree::Edge;
use crate::error::{Error, Rollback};
use crate::store::AuditStore;

/// What was found of all logs.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// Those that are consistent, with their edges.
    pub(crate) consistent: Vec<(String, Edge)>,
    /// Those that are not, and why.
    pub(crate) damaged: BTreeMap<String, String>,
    /// Those that do not even go on from the state that an operator accepted.
    pub(crate) rolled_back: Vec<Rollback>,
    /// What had been accepted of logs before they were looked at.
    pub(crate) accepted: Vec<(String, LogState)>,
}

impl Inspection {
    /// Takes those for damaged that were rolled back.
    pub(crate) fn mark_rolled_back(&mut self) {
        for rollback in std::mem::take(&mut self.rolled_back) {
            self.mark_damaged(&rollback.log, rollback.why());
        }
    }

    /// Takes a log for damaged that is consistent in itself.
    pub(crate) fn mark_damaged(&mut self, log: &str, why: String) {
        self.consistent.retain(|(consistent, _)| consistent != log);
        self.damaged.entry(log.to_owned()).or_insert(why);
    }
}

/// Checks every log's head, tiles, last record and checkpoint against each other.
///
/// # Errors
/// When the database cannot be read, and when all logs are consistent but of another name or key: then nothing is damaged,
/// and the configuration is wrong.
pub(crate) async fn inspect(store: &AuditStore, signer: &dyn CheckpointSigner) -> Result<Inspection, Error> {
    let accepted = store.newly_accepted_unscoped(&ObservedLogs::default(), signer).await?;
    let (mut inspection, foreign) = inspect_logs(store, signer, store.logs_unscoped().await?).await?;
    for (log, state) in &accepted {
        match store.rollback_unscoped(log, &state.head, None).await {
            Ok(None) => {}
            Ok(Some(rollback)) => inspection.rolled_back.push(rollback),
            Err(error) => inspection.mark_damaged(log, error.damage()?.1),
        }
    }
    inspection.accepted = accepted;
    match foreign {
        Some((log, why)) if inspection.consistent.is_empty() => Err(Error::inconsistent(&log, why)),
        _ => Ok(inspection),
    }
}

/// The same of some logs, which have begun; also the first that is consistent but of another name or key.
pub(super) async fn inspect_logs(
    store: &AuditStore,
    signer: &dyn CheckpointSigner,
    logs: Vec<String>,
) -> Result<(Inspection, Option<(String, String)>), Error> {
    let mut inspection = Inspection::default();
    let mut foreign = None;
    for log in logs {
        let why = match store.check_unscoped(&log).await {
            Ok(found) => match signer.objection(&found) {
                None => {
                    inspection.consistent.push((log, found.edge));
                    continue;
                }
                Some(objection) => {
                    if objection.foreign && foreign.is_none() {
                        foreign = Some((log.clone(), objection.why.clone()));
                    }
                    objection.why
                }
            },
            Err(error) => error.damage()?.1,
        };
        inspection.damaged.insert(log, why);
    }
    Ok((inspection, foreign))
}

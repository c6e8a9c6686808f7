//! Losses that operators accepted: a log goes on from a state that is signed here, and what was known of it before, in
//! whatever process, counts no more.

use pavior_store::{StoreError, Tx};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryTrait as _, Statement,
};

use super::AuditStore;
use super::entity::accepted_loss;
use super::insert::{insert, signed};
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::log_state::{LogState, TreeHead};
use crate::domain::observed_logs::ObservedLogs;
use crate::error::Error;

impl AuditStore {
    /// What was accepted of logs since this was seen of them.
    pub(crate) async fn newly_accepted_unscoped(
        &self,
        observed: &ObservedLogs,
        signer: &dyn CheckpointSigner,
    ) -> Result<Vec<(String, LogState)>, Error> {
        let found = read(self.store.read(), None).await?.into_iter();
        let newer = found.filter(|row| row.generation.unsigned_abs() > observed.generation(&row.log));
        Ok(newer.filter_map(|row| Some((row.log.clone(), accepted_state(&row, signer)?))).collect())
    }

    /// The last loss of a log that was accepted.
    pub(crate) async fn accepted_unscoped(
        &self,
        log: &str,
        signer: &dyn CheckpointSigner,
    ) -> Result<Option<LogState>, Error> {
        last(self.store.read(), log, signer).await
    }

    /// Whether the database is complete: of what it acknowledged, nothing is gone but what was accepted. One that
    /// is shorter than what was signed all the same is an older copy; in another, rows were removed.
    pub(crate) async fn is_complete_unscoped(&self, signer: &dyn CheckpointSigner) -> Result<bool, Error> {
        let db = self.store.read();
        // Numbers of a producer begin with 1 and leave none out.
        let absent = "SELECT CAST((SELECT COALESCE(SUM(last_seq), 0) FROM audit_producer) \
                      - (SELECT COUNT(*) FROM audit_record) - (SELECT COUNT(*) FROM audit_parked) AS BIGINT) AS found";
        // Numbers that were never acknowledged, or stand for two events: rows that came from elsewhere.
        let strange = "SELECT CAST((SELECT COUNT(*) FROM audit_parked p JOIN audit_record r \
                       ON r.service = p.service AND r.epoch = p.epoch AND r.seq = p.seq) \
                       + (SELECT COUNT(*) FROM (SELECT service, epoch, MAX(seq) AS seq FROM audit_record \
                       GROUP BY service, epoch) r LEFT JOIN audit_producer p ON p.service = r.service \
                       AND p.epoch = r.epoch WHERE p.last_seq IS NULL OR p.last_seq < r.seq) AS BIGINT) AS found";
        let count = async |sql: &str| -> Result<i64, StoreError> {
            let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
            Ok(row.map_or(Ok(0), |row| row.try_get::<i64>("", "found"))?)
        };
        if count(strange).await? > 0 {
            return Ok(false);
        }
        let absent = count(absent).await?;
        let accepted = read(db, None).await?;
        let accepted =
            accepted.iter().filter(|row| accepted_state(row, signer).is_some()).map(|row| row.absent);
        Ok(absent <= accepted.max().unwrap_or_default())
    }
}

async fn last(
    db: &impl ConnectionTrait,
    log: &str,
    signer: &dyn CheckpointSigner,
) -> Result<Option<LogState>, Error> {
    Ok(read(db, Some(log)).await?.iter().find_map(|row| accepted_state(row, signer)))
}

/// How often a loss of a log was accepted.
pub(super) async fn generation(
    db: &impl ConnectionTrait,
    log: &str,
    signer: &dyn CheckpointSigner,
) -> Result<u64, Error> {
    Ok(last(db, log, signer).await?.map_or(0, |state| state.generation))
}

/// Writes that a log goes on from a state, although more of it was known. `least` is above what is known of generations
/// outside of the database, which may be an older copy; what nobody signed in it does not count.
pub(super) async fn write(
    tx: &Tx,
    log: &str,
    head: TreeHead,
    absent: i64,
    least: u64,
    signer: &dyn CheckpointSigner,
) -> Result<(), Error> {
    let before = generation(tx, log, signer).await?;
    let generation = before.saturating_add(1).max(least);
    let row = accepted_loss::Model {
        log: log.to_owned(),
        generation: signed(generation)?,
        tree_size: signed(head.size)?,
        root_hash: head.root.to_vec(),
        absent,
        note: signer.sign(&name(log, generation, absent), &head, 0).note,
    };
    use accepted_loss::Column::{Absent, Generation, Log, Note, RootHash, TreeSize};
    let update =
        OnConflict::column(Log).update_columns([Generation, TreeSize, RootHash, Absent, Note]).to_owned();
    insert(tx, vec![row], Some(update)).await
}

/// What is signed: no log has such a name.
fn name(log: &str, generation: u64, absent: i64) -> String {
    format!("{log}/accepted/{generation}/absent/{absent}")
}

/// What a row says, if this installation signed it. Whoever can only write to the database accepts nothing.
fn accepted_state(row: &accepted_loss::Model, signer: &dyn CheckpointSigner) -> Option<LogState> {
    let generation = u64::try_from(row.generation).ok()?;
    let size = u64::try_from(row.tree_size).ok()?;
    let head = TreeHead { size, root: row.root_hash.as_slice().try_into().ok()? };
    let signed = name(&row.log, generation, row.absent);
    signer.has_signed(&signed, &head, &row.note).then_some(LogState { generation, head })
}

/// The rows of all logs or of one. Those that cannot be read say nothing.
async fn read(db: &impl ConnectionTrait, log: Option<&str>) -> Result<Vec<accepted_loss::Model>, Error> {
    use sea_orm::FromQueryResult as _;
    let mut select = accepted_loss::Entity::find();
    if let Some(log) = log {
        select = select.filter(accepted_loss::Column::Log.eq(log));
    }
    let rows = db.query_all(&select.into_query()).await.map_err(StoreError::from)?;
    Ok(rows.iter().filter_map(|row| accepted_loss::Model::from_query_result(row, "").ok()).collect())
}

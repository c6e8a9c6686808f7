//! Heads: how far each log has come. Whoever appends to a log locks its head.

use std::collections::{BTreeMap, HashMap};

use pavior_store::{StoreError, Tx};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, EntityTrait, IntoActiveModel as _,
    QueryFilter as _, QueryOrder as _, QueryResult, QuerySelect as _, QueryTrait as _,
};

use super::AuditStore;
use super::entity::{checkpoint, head, held_log, record, tile};
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::hash;
use crate::domain::log_state::TreeHead;
use crate::error::Error;

/// What is wrong with a log that has records and no head.
pub(super) const HEAD_IS_GONE: &str = "its head is gone";

impl AuditStore {
    /// Every log, by name.
    pub(crate) async fn logs_unscoped(&self) -> Result<Vec<String>, Error> {
        let heads = head::Entity::find().select_only().column(head::Column::Log);
        Ok(heads.order_by_asc(head::Column::Log).into_tuple().all(self.store.read()).await?)
    }

    /// How many records each log has by its head. Heads that cannot be read are left out, so that they say nothing of
    /// other logs.
    pub(crate) async fn sizes_unscoped(&self) -> Result<HashMap<String, u64>, Error> {
        let db = self.store.read();
        let heads =
            Query::select().columns([head::Column::Log, head::Column::TreeSize]).from(head::Entity).take();
        let rows = db.query_all(&heads).await.map_err(StoreError::from)?;
        let size = |row: &QueryResult| {
            let size = row.try_get::<i64>("", "tree_size").ok()?;
            Some((row.try_get("", "log").ok()?, u64::try_from(size).ok()?))
        };
        Ok(rows.iter().filter_map(size).collect())
    }

    /// How many records a log has by its head; none when it has not begun.
    pub(crate) async fn size_unscoped(&self, log: &str) -> Result<u64, Error> {
        Ok(tree_head(self.store.read(), log).await.map_err(|error| error.of_log(log))?.size)
    }
}

/// How far a log has come by its head; one that has not begun is empty.
pub(super) async fn tree_head(db: &impl ConnectionTrait, log: &str) -> Result<TreeHead, Error> {
    let Some(head) = head::Entity::find_by_id(log.to_owned()).one(db).await? else {
        return Ok(TreeHead { size: 0, root: hash::empty() });
    };
    let size = u64::try_from(head.tree_size).map_err(|_| Error::inconsistent(log, "its size is negative"))?;
    let root = head.root_hash.try_into().map_err(|_| Error::inconsistent(log, "its head is no hash"))?;
    Ok(TreeHead { size, root })
}

/// Locks the heads of logs that are not held: those of damaged ones may not even be readable.
pub(super) async fn lock_heads(
    tx: &Tx,
    logs: impl Iterator<Item = &str>,
) -> Result<BTreeMap<String, head::Model>, Error> {
    let held = held_log::Entity::find().select_only().column(held_log::Column::Log).into_query();
    let select = head::Entity::find()
        .filter(head::Column::Log.is_in(logs))
        .filter(head::Column::Log.not_in_subquery(held))
        .order_by_asc(head::Column::Log);
    Ok(select.lock_exclusive().all(tx).await?.into_iter().map(|head| (head.log.clone(), head)).collect())
}

/// The head of a log without records; false when another made it.
pub(super) async fn write_empty_head(
    tx: &Tx,
    log: &str,
    signer: &dyn CheckpointSigner,
) -> Result<bool, Error> {
    let root_hash = hash::empty().to_vec();
    let row = head::Model { log: log.to_owned(), origin: signer.origin(log), tree_size: 0, root_hash };
    let keep = OnConflict::column(head::Column::Log).do_nothing().to_owned();
    let insert = head::Entity::insert(row.into_active_model().reset_all()).on_conflict(keep);
    Ok(insert.exec_without_returning(tx).await? > 0)
}

/// Whether there is anything of a log beside its head.
pub(super) async fn has_remains(db: &impl ConnectionTrait, log: &str) -> Result<bool, Error> {
    Ok(has_rows::<record::Entity>(db, log).await?
        || has_rows::<tile::Entity>(db, log).await?
        || has_rows::<checkpoint::Entity>(db, log).await?)
}

/// Whether nothing is left of a log.
pub(super) async fn is_gone(db: &impl ConnectionTrait, log: &str) -> Result<bool, Error> {
    Ok(!has_rows::<head::Entity>(db, log).await? && !has_remains(db, log).await?)
}

/// Reads no other column: what is there may not be readable.
async fn has_rows<E: EntityTrait>(db: &impl ConnectionTrait, log: &str) -> Result<bool, Error> {
    let select = E::find().select_only().expr(Expr::col("log")).filter(Expr::col("log").eq(log));
    Ok(select.into_tuple::<String>().one(db).await?.is_some())
}

//! What is gone of logs, and going on without it because an operator accepts that.

use std::sync::Arc;

use pavior_store::{StoreError, Tx};
use sea_orm::{ConnectionTrait as _, EntityTrait as _, Statement};

use super::append::LogAppend;
use super::check::{recheck_tile, verified};
use super::entity::held_log as held_row;
use super::head::{is_gone, write_empty_head};
use super::held_log::{lock_one, required_head, required_tile, update_or_release};
use super::parked_event::{Parked, missing, parked};
use super::producer::write_producers;
use super::{AuditStore, accepted_loss, conflict, tile};
use crate::domain::batch::{Entry, Producer};
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::log_finding::LogFinding;
use crate::domain::tree::Edge;
use crate::error::Error;

/// Numbers of a producer that were acknowledged and stand in no log, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) service: String,
    pub(crate) epoch: String,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl AuditStore {
    /// The numbers that were acknowledged and are neither recorded nor parked, over all logs. It reads every record's
    /// number: for an operator, not for a service.
    pub(crate) async fn absent_unscoped(&self) -> Result<Vec<Absent>, Error> {
        let there = "SELECT service, epoch, seq FROM audit_record UNION ALL SELECT service, epoch, seq FROM audit_parked";
        let between = format!(
            "SELECT service, epoch, before + 1 AS first, seq - 1 AS last FROM (SELECT service, epoch, seq, \
             LAG(seq, 1, CAST(0 AS bigint)) OVER (PARTITION BY service, epoch ORDER BY seq) AS before \
             FROM ({there}) AS there) AS pairs WHERE seq > before + 1 ORDER BY service, epoch, seq"
        );
        let after = format!(
            "SELECT p.service, p.epoch, COALESCE(t.seq, 0) + 1 AS first, p.last_seq AS last FROM audit_producer p \
             LEFT JOIN (SELECT service, epoch, MAX(seq) AS seq FROM ({there}) AS there GROUP BY service, epoch) t \
             ON t.service = p.service AND t.epoch = p.epoch \
             WHERE p.last_seq > COALESCE(t.seq, 0) ORDER BY p.service, p.epoch"
        );
        let db = self.store.read();
        let mut absent = Vec::new();
        for sql in [between, after] {
            let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await;
            for row in rows.map_err(StoreError::from)? {
                let text = |column| row.try_get::<String>("", column).map_err(StoreError::from);
                let number = |column| row.try_get::<i64>("", column).map_err(StoreError::from);
                let (service, epoch) = (text("service")?, text("epoch")?);
                absent.push(Absent { service, epoch, first: number("first")?, last: number("last")? });
            }
        }
        Ok(absent)
    }

    /// What is gone of a log that is held, and whether that is all. What waits for it is not counted.
    pub(crate) async fn losses_unscoped(
        &self,
        log: &str,
        signer: &Arc<dyn CheckpointSigner>,
    ) -> Result<LogFinding, Error> {
        let found = self.write((log.to_owned(), signer.clone()), |tx, (log, signer)| {
            Box::pin(losses(tx, log, signer.as_ref()))
        });
        match found.await.map_err(|error| error.of_log(log)).map_err(Error::damage) {
            Ok(losses) => Ok(losses),
            Err(Ok((log, why))) => Ok(LogFinding { log, damage: Some(why), ..LogFinding::default() }),
            Err(Err(error)) => Err(error),
        }
    }

    /// Goes on from a log as it is, if it fits together: writes the record that says what was lost, which is the next of
    /// its producer, and requires no more what is gone, nor does any process that knows of it. What is still parked stays
    /// so, to become records after it. `absent` is how many numbers of producers are in no log, and `least_generation` above
    /// what is known of acceptances outside of the database. Returns the log's edge.
    pub(crate) async fn accept_unscoped(
        &self,
        producer: &Producer,
        entry: &Entry,
        absent: i64,
        least_generation: u64,
        signer: &Arc<dyn CheckpointSigner>,
    ) -> Result<Arc<Edge>, Error> {
        let arguments = (producer.clone(), entry.clone(), absent, least_generation, signer.clone());
        let accepted = self.write(arguments, |tx, (producer, entry, absent, least_generation, signer)| {
            Box::pin(accept(tx, producer, entry, *absent, *least_generation, signer.as_ref()))
        });
        accepted.await
    }
}

async fn losses(tx: &Tx, log: &str, signer: &dyn CheckpointSigner) -> Result<LogFinding, Error> {
    let edge = match is_gone(tx, log).await? {
        true => Edge::default(),
        false => verified(tx, log, signer).await?.edge,
    };
    let mut found = LogFinding { log: log.to_owned(), ..LogFinding::default() };
    let select = held_row::Entity::find_by_id(log.to_owned());
    let Some(held) = select.one(tx).await? else { return Ok(found) };
    if let Some(tile) = required_tile(&held)? {
        recheck_tile(tx, log, tile, edge.size()).await?;
    }
    if let Some(head) = required_head(&held)? {
        found.rollback = tile::rollback(tx, log, &head, &edge.head()).await?;
    }
    found.missing = missing(&held, parked(tx, log).await?)?;
    found.conflicting = conflict::count(tx, log).await?;
    Ok(found)
}

async fn accept(
    tx: &Tx,
    producer: &Producer,
    entry: &Entry,
    absent: i64,
    least_generation: u64,
    signer: &dyn CheckpointSigner,
) -> Result<Arc<Edge>, Error> {
    let log = entry.log.as_str();
    let edge = match is_gone(tx, log).await? {
        true => {
            write_empty_head(tx, log, signer).await?;
            Edge::default()
        }
        false => verified(tx, log, signer).await?.edge,
    };
    let held = lock_one(tx, log).await?;
    if let Some(tile) = held.as_ref().map(required_tile).transpose()?.flatten() {
        recheck_tile(tx, log, tile, edge.size()).await?;
    }
    let edge = LogAppend::to_one(tx, log, edge, &[(producer, entry)], signer).await?;
    write_producers(tx, &[(producer, entry.seq)]).await?;
    accepted_loss::write(tx, log, edge.head(), absent, least_generation, signer).await?;
    let Some(mut held) = held else { return Ok(edge) };
    let there = parked(tx, log).await?;
    missing(&held, there)?;
    let Parked { records, bytes } = there;
    (held.records, held.bytes) = (records, bytes);
    (held.signed_size, held.signed_root, held.tile) = (None, None, None);
    update_or_release(tx, &held, records > 0).await?;
    Ok(edge)
}

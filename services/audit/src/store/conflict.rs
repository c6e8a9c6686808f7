//! Parked events whose numbers stand for other events in the records: those of a log that was exchanged for one that
//! went on elsewhere. They can never become records under their own numbers.

use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};

use super::AuditStore;
use super::append::LogAppend;
use super::check::verified;
use super::entity::{parked_event, record};
use super::held_log::{NOT_HELD, lock_one, update_or_release};
use super::insert::signed;
use super::parked_event::decode;
use super::producer::write_producers;
use crate::domain::batch::{Entry, Producer, Taken};
use crate::domain::checkpoint::CheckpointSigner;
use crate::domain::codec::content_digest;
use crate::domain::tree::Edge;
use crate::error::Error;

/// Most events that are renumbered in one transaction.
const MAX_EVENTS: u64 = 256;

/// A parked event whose number stands for another.
#[derive(Debug, Clone)]
pub(crate) struct ConflictingEvent {
    arrival: i64,
    /// Who submitted it, under which number.
    pub(crate) producer: Producer,
    pub(crate) seq: i64,
    pub(crate) body: Vec<u8>,
    /// It is the very event that is recorded: nothing is to be recorded again.
    pub(crate) is_recorded: bool,
}

impl AuditStore {
    /// The first parked events of a log whose numbers stand for others.
    pub(crate) async fn conflicting_unscoped(&self, log: &str) -> Result<Vec<ConflictingEvent>, Error> {
        let db = self.store.read();
        let rows =
            conflicting(log).order_by_asc(parked_event::Column::Arrival).limit(MAX_EVENTS).all(db).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let (producer, entry) = decode(&row)?;
            let there = record::Entity::find()
                .filter(record::Column::Service.eq(row.service))
                .filter(record::Column::Epoch.eq(row.epoch))
                .filter(record::Column::Seq.eq(row.seq))
                .one(db)
                .await?;
            let is_recorded = match there {
                Some(there) => {
                    there.log == row.log
                        && there.event_id == row.event_id
                        && content_digest(log, &there.body).ok() == Some(content_digest(log, &entry.body)?)
                }
                None => false,
            };
            let (arrival, seq, body) = (row.arrival, row.seq, entry.body);
            found.push(ConflictingEvent { arrival, producer, seq, body, is_recorded });
        }
        Ok(found)
    }

    /// Appends such events under numbers of `producer`, in place of what was parked. Returns the log's edge.
    pub(crate) async fn renumber_unscoped(
        &self,
        log: &str,
        producer: &Producer,
        conflicting: &[ConflictingEvent],
        entries: Vec<Entry>,
        signer: &Arc<dyn CheckpointSigner>,
    ) -> Result<Option<Arc<Edge>>, Error> {
        let gone = conflicting.iter().map(|event| (event.arrival, event.body.len() as u64)).collect();
        let arguments = (log.to_owned(), producer.clone(), entries, Gone(gone), signer.clone());
        let renumbered = self.write(arguments, |tx, (log, producer, entries, gone, signer)| {
            Box::pin(renumber(tx, log, producer, entries, gone, signer.as_ref()))
        });
        renumbered.await
    }
}

fn conflicting(log: &str) -> Select<parked_event::Entity> {
    let same = |of_parked, of_record| {
        Expr::col((record::Entity, of_record)).equals((parked_event::Entity, of_parked))
    };
    use parked_event::Column::{Epoch, Log, Seq, Service};
    let recorded = Query::select()
        .expr(Expr::val(1))
        .from(record::Entity)
        .and_where(same(Service, record::Column::Service))
        .and_where(same(Epoch, record::Column::Epoch))
        .and_where(same(Seq, record::Column::Seq))
        .take();
    parked_event::Entity::find().filter(Log.eq(log)).filter(Expr::exists(recorded))
}

/// How many parked events of a log have numbers that stand for others.
pub(super) async fn count(db: &impl ConnectionTrait, log: &str) -> Result<u64, Error> {
    Ok(conflicting(log).count(db).await?)
}

/// Refuses the first of the parked events up to one whose number stands for another.
pub(super) async fn refuse(tx: &Tx, log: &str, last_arrival: i64) -> Result<(), Error> {
    let first =
        conflicting(log).filter(parked_event::Column::Arrival.lte(last_arrival)).limit(1).one(tx).await?;
    let Some(parked_event::Model { service, seq, .. }) = first else { return Ok(()) };
    Err(Error::inconsistent(
        log,
        format!("the number {seq} of `{service}`, which waits for it, stands for another event"),
    ))
}

/// Parked events that go: their places and bytes.
struct Gone(Vec<(i64, u64)>);

async fn renumber(
    tx: &Tx,
    log: &str,
    producer: &Producer,
    entries: &[Entry],
    Gone(gone): &Gone,
    signer: &dyn CheckpointSigner,
) -> Result<Option<Arc<Edge>>, Error> {
    let edge = verified(tx, log, signer).await?.edge;
    let Some(mut held) = lock_one(tx, log).await? else { return Err(Error::inconsistent(log, NOT_HELD)) };
    let removed = parked_event::Entity::delete_many()
        .filter(parked_event::Column::Log.eq(log))
        .filter(parked_event::Column::Arrival.is_in(gone.iter().map(|(arrival, _)| *arrival)));
    if removed.exec(tx).await?.rows_affected != gone.len() as u64 {
        return Err(Error::inconsistent(log, "what is parked for it is not what was parked"));
    }
    // Others that are gone are still missed.
    held.records -= signed(gone.len() as u64)?;
    held.bytes -= signed(gone.iter().map(|(_, bytes)| bytes).sum())?;
    let mut grown = None;
    if let Some(last) = entries.last() {
        let taken: Vec<Taken<'_>> = entries.iter().map(|entry| (producer, entry)).collect();
        grown = Some(LogAppend::to_one(tx, log, edge, &taken, signer).await?);
        write_producers(tx, &[(producer, last.seq)]).await?;
    }
    update_or_release(tx, &held, held.records != 0).await?;
    Ok(grown)
}

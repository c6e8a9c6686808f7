//! Parked events whose numbers stand for other events in the records: those of a log that was exchanged for one that
//! went on elsewhere. They can never become records under their own numbers.

use std::collections::BTreeSet;
use std::sync::Arc;

use pavior_store::Tx;
use sea_orm::sea_query::{Expr, ExprTrait as _, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
};

use super::append::{Sign, write_producers};
use super::check::wrong;
use super::entity::{held, parked, record};
use super::growth::Growth;
use super::release::whole;
use super::{AuditStore, parking};
use crate::domain::batch::{Entry, Producer, Taken};
use crate::domain::hash;
use crate::domain::tree::Edge;
use crate::error::Error;

/// Most events that are recorded anew in one transaction.
const AT_ONCE: u64 = 256;

/// A parked event whose number stands for another.
#[derive(Debug)]
pub(crate) struct Clash {
    arrival: i64,
    pub(crate) body: Vec<u8>,
}

impl AuditStore {
    /// The first parked events of a log whose numbers stand for others.
    pub(crate) async fn clashes_unscoped(&self, log: &str) -> Result<Vec<Clash>, Error> {
        let rows = clashing(log).order_by_asc(parked::Column::Arrival).limit(AT_ONCE);
        rows.all(self.store.read()).await?.into_iter().map(clash).collect()
    }

    /// Appends what such events became under numbers of `producer`, in place of what was parked. Returns the log's edge.
    pub(crate) async fn record_anew_unscoped(
        &self,
        producer: &Producer,
        entries: Vec<(Clash, Entry)>,
        signer: &Arc<dyn Sign>,
    ) -> Result<Option<Arc<Edge>>, Error> {
        let arrivals: Vec<i64> = entries.iter().map(|(clash, _)| clash.arrival).collect();
        let entries: Arc<Vec<Entry>> = Arc::new(entries.into_iter().map(|(_, entry)| entry).collect());
        let (producer, signer) = (producer.clone(), signer.clone());
        self.write(move |tx| {
            let (producer, entries, arrivals) = (producer.clone(), entries.clone(), arrivals.clone());
            let signer = signer.clone();
            Box::pin(async move { record_anew(tx, &producer, &entries, &arrivals, signer.as_ref()).await })
        })
        .await
    }
}

fn clashing(log: &str) -> Select<parked::Entity> {
    let same =
        |of_parked, of_record| Expr::col((record::Entity, of_record)).equals((parked::Entity, of_parked));
    use parked::Column::{Epoch, Log, Seq, Service};
    let recorded = Query::select()
        .expr(Expr::val(1))
        .from(record::Entity)
        .and_where(same(Service, record::Column::Service))
        .and_where(same(Epoch, record::Column::Epoch))
        .and_where(same(Seq, record::Column::Seq))
        .take();
    parked::Entity::find().filter(Log.eq(log)).filter(Expr::exists(recorded))
}

/// How many parked events of a log have numbers that stand for others.
pub(super) async fn count(db: &impl ConnectionTrait, log: &str) -> Result<u64, Error> {
    Ok(clashing(log).count(db).await?)
}

/// Refuses the first of the parked events up to one whose number stands for another.
pub(super) async fn refuse(tx: &Tx, log: &str, last_arrival: i64) -> Result<(), Error> {
    let first = clashing(log).filter(parked::Column::Arrival.lte(last_arrival)).limit(1).one(tx).await?;
    let Some(parked::Model { service, seq, .. }) = first else { return Ok(()) };
    Err(wrong(log, format!("the number {seq} of `{service}`, which waits for it, stands for another event")))
}

fn clash(row: parked::Model) -> Result<Clash, Error> {
    let parked::Model { arrival, log, service, seq, leaf_hash, body, .. } = row;
    match hash::leaf(&body)[..] == leaf_hash {
        true => Ok(Clash { arrival, body }),
        false => Err(wrong(&log, format!("the parked event {seq} of `{service}` was changed"))),
    }
}

async fn record_anew(
    tx: &Tx,
    producer: &Producer,
    entries: &[Entry],
    arrivals: &[i64],
    signer: &dyn Sign,
) -> Result<Option<Arc<Edge>>, Error> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(None) };
    let log = first.log.as_str();
    let edge = whole(tx, log, signer).await?.edge;
    let held = parking::lock(tx, &BTreeSet::from([log])).await?.remove(log);
    let Some(mut held) = held else { return Err(wrong(log, parking::NOT_HELD)) };
    let gone = parked::Entity::delete_many()
        .filter(parked::Column::Log.eq(log))
        .filter(parked::Column::Arrival.is_in(arrivals.iter().copied()));
    if gone.exec(tx).await?.rows_affected != arrivals.len() as u64 {
        return Err(wrong(log, "what is parked for it is not what was parked"));
    }
    let taken: Vec<Taken<'_>> = entries.iter().map(|entry| (producer, entry)).collect();
    let mut growth = Growth::default();
    growth.add(log, edge, &taken)?;
    let grown = growth.write(tx, signer).await?.edges.pop();
    write_producers(tx, &[(producer, last.seq)]).await?;
    let parking::Counted { records, bytes } = parking::counted(tx, log).await?;
    if records == 0 {
        held::Entity::delete_by_id(log.to_owned()).exec(tx).await?;
    } else {
        (held.records, held.bytes) = (records, bytes);
        parking::update(tx, &held).await?;
    }
    Ok(grown.map(|(_, edge)| edge))
}

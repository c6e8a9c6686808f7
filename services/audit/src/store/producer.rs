//! How far the log is with each producer.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use pavior_store::{StoreError, Tx};
use sea_orm::sea_query::{Expr, ExprTrait as _, Func, OnConflict};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Select,
};
use uuid::Uuid;

use super::AuditStore;
use super::entity::{parked_event, producer, record};
use super::insert::insert;
use crate::domain::batch::{Batch, Producer, Progress};
use crate::error::Error;

/// Values in one statement: SQLite takes expressions no deeper than 1,000.
const PART: usize = 200;

impl AuditStore {
    /// What the log has of a producer. Numbers of a service go over many organizations, so there is no one permit; the
    /// caller has checked that the service asks for itself.
    pub(crate) async fn progress_unscoped(&self, asked: &Producer) -> Result<Progress, Error> {
        let db = self.store.read();
        let key = (asked.service.clone(), asked.epoch.clone());
        let known = producer::Entity::find_by_id(key).one(db).await?;
        let last_seq = known.map_or(0, |row| row.last_seq);
        let last_event = match event_at::<record::Entity>(db, asked, last_seq).await? {
            Some(event) => Some(event),
            None => event_at::<parked_event::Entity>(db, asked, last_seq).await?,
        };
        // Epochs of services with a database are times: a later one is longer or greater.
        let length = Func::char_length(Expr::col(producer::Column::Epoch));
        let newest_epoch = producer::Entity::find()
            .select_only()
            .column(producer::Column::Epoch)
            .filter(producer::Column::Service.eq(asked.service.as_str()))
            .filter(producer::Column::LastSeq.gt(0))
            .order_by_desc(length)
            .order_by_desc(producer::Column::Epoch)
            .into_tuple::<String>()
            .one(db)
            .await?;
        Ok(Progress { last_seq, last_event, newest_epoch })
    }

    /// Which of these events are recorded, or parked to be, in whatever log.
    pub(crate) async fn recorded_unscoped(&self, events: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let (db, logs) = (self.store.read(), self.logs_unscoped().await?);
        let mut found = Vec::new();
        for part in events.chunks(PART) {
            let ids = Expr::col("event_id").is_in(part.iter().map(Uuid::to_string));
            // The logs are named, so that the index is of use: it begins with the log.
            let in_logs = Expr::col("log").is_in(logs.iter().map(String::as_str));
            found.extend(event_ids::<record::Entity>(db, ids.clone().and(in_logs)).await?);
            found.extend(event_ids::<parked_event::Entity>(db, ids).await?);
        }
        Ok(found)
    }

    /// The logs with records of a service with a database, or with what is parked to be, after a number of an epoch, or
    /// of a later epoch.
    pub(crate) async fn logs_after_unscoped(
        &self,
        service: &str,
        epoch: i64,
        seq: i64,
    ) -> Result<Vec<String>, Error> {
        let db = self.store.read();
        let mut logs = BTreeSet::new();
        for (producer, after) in self.epochs_after_unscoped(service, epoch, seq).await? {
            logs.extend(logs_after::<record::Entity>(db, &producer, after).await?);
            logs.extend(logs_after::<parked_event::Entity>(db, &producer, after).await?);
        }
        Ok(logs.into_iter().collect())
    }

    /// The epochs of a service from one on, each with the number after which: `seq` in that epoch, none in a later one.
    pub(super) async fn epochs_after_unscoped(
        &self,
        service: &str,
        epoch: i64,
        seq: i64,
    ) -> Result<Vec<(Producer, i64)>, Error> {
        let epochs = producer::Entity::find().filter(producer::Column::Service.eq(service));
        let mut after = Vec::new();
        for producer::Model { service, epoch: found, .. } in epochs.all(self.store.read()).await? {
            let number = match parse_stored::<i64>("epoch", &found)? {
                other if other > epoch => 0,
                other if other == epoch => seq,
                _ => continue,
            };
            after.push((Producer { service, epoch: found }, number));
        }
        Ok(after)
    }
}

/// The records, or the parked events, of a producer: both have the columns that say so.
pub(super) fn of_producer<E: EntityTrait>(producer: &Producer) -> Select<E> {
    E::find()
        .select_only()
        .filter(Expr::col("service").eq(producer.service.as_str()))
        .filter(Expr::col("epoch").eq(producer.epoch.as_str()))
}

async fn event_at<E: EntityTrait>(
    db: &impl ConnectionTrait,
    producer: &Producer,
    seq: i64,
) -> Result<Option<String>, Error> {
    let select = of_producer::<E>(producer).expr(Expr::col("event_id")).filter(Expr::col("seq").eq(seq));
    Ok(select.into_tuple().one(db).await?)
}

async fn event_ids<E: EntityTrait>(db: &impl ConnectionTrait, condition: Expr) -> Result<Vec<Uuid>, Error> {
    let select = E::find().select_only().expr(Expr::col("event_id")).filter(condition);
    let ids: Vec<String> = select.into_tuple().all(db).await?;
    ids.iter().map(|id| parse_stored("event id", id)).collect()
}

async fn logs_after<E: EntityTrait>(
    db: &impl ConnectionTrait,
    producer: &Producer,
    seq: i64,
) -> Result<Vec<String>, Error> {
    let select = of_producer::<E>(producer).expr(Expr::col("log")).filter(Expr::col("seq").gt(seq));
    Ok(select.distinct().into_tuple().all(db).await?)
}

/// A value that a service with a database wrote as text.
///
/// # Errors
/// A text that is no such value.
pub(crate) fn parse_stored<T: FromStr>(what: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("{what} `{text}` of an audit record")).into())
}

/// Locks the producers of the batch, making those that do not exist; returns their last numbers.
pub(super) async fn lock_producers<'a>(
    tx: &Tx,
    batch: &'a Batch,
) -> Result<BTreeMap<&'a Producer, i64>, Error> {
    let producers = batch.producers();
    let mut found = select_producers(tx, producers.iter().copied()).await?;
    let missing: Vec<&Producer> = producers.into_iter().filter(|p| !found.contains_key(p)).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let rows = missing.iter().map(|p| producer_row(p, 0));
    let keep =
        OnConflict::columns([producer::Column::Service, producer::Column::Epoch]).do_nothing().to_owned();
    insert(tx, rows.collect(), Some(keep)).await?;
    found.extend(select_producers(tx, missing.into_iter()).await?);
    Ok(found)
}

async fn select_producers<'a>(
    tx: &Tx,
    producers: impl Iterator<Item = &'a Producer>,
) -> Result<BTreeMap<&'a Producer, i64>, Error> {
    let wanted: Vec<&Producer> = producers.collect();
    let mut found = BTreeMap::new();
    for part in wanted.chunks(PART) {
        let any = part.iter().fold(Condition::any(), |any, producer| {
            any.add(
                Condition::all()
                    .add(producer::Column::Service.eq(producer.service.as_str()))
                    .add(producer::Column::Epoch.eq(producer.epoch.as_str())),
            )
        });
        let select = producer::Entity::find()
            .filter(any)
            .order_by_asc(producer::Column::Service)
            .order_by_asc(producer::Column::Epoch);
        for row in select.lock_exclusive().all(tx).await? {
            let is_row = |p: &&&Producer| p.service == row.service && p.epoch == row.epoch;
            found.extend(part.iter().find(is_row).map(|producer| (*producer, row.last_seq)));
        }
    }
    Ok(found)
}

fn producer_row(producer: &Producer, last_seq: i64) -> producer::Model {
    producer::Model { service: producer.service.clone(), epoch: producer.epoch.clone(), last_seq }
}

pub(super) async fn write_producers(tx: &Tx, advanced: &[(&Producer, i64)]) -> Result<(), Error> {
    let rows = advanced.iter().map(|(producer, last)| producer_row(producer, *last)).collect();
    let update = OnConflict::columns([producer::Column::Service, producer::Column::Epoch])
        .update_columns([producer::Column::LastSeq])
        .to_owned();
    insert(tx, rows, Some(update)).await
}

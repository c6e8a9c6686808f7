//! Reading records and checkpoints. Every query is confined to the permit's organization.

use std::ops::Range;

use futures::TryStreamExt as _;
use pavior_auth::Permit;
use pavior_core::audit::{AuditClass, Effect, Status};
use pavior_core::filter::Filter;
use pavior_store::StoreError;
use pavior_store::filter::{self, FieldMap};
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::AuditStore;
use super::entity::checkpoint;
use super::entity::record::{self, Column};
use crate::domain::record::{Checkpoint, Signed, StoredRecord};
use crate::error::Error;

/// A compiled filter.
#[derive(Debug, Clone)]
pub(crate) struct Selection(Condition);

/// Some records of a log, in order.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<StoredRecord>,
    /// True when the range holds, or may hold, more that match.
    pub(crate) more: bool,
}

const PRINCIPAL: &str = "event.principal.name";
const TARGET: &str = "event.target.name";

impl AuditStore {
    /// Compiles a filter over the documented fields, which are called by their paths in a record.
    pub(crate) fn select(&self, filter: &Filter) -> Result<Selection, Error> {
        let fields = FieldMap::new(self.store.backend())
            .number("index", Column::Idx)
            .timestamp_micros("receive_time", Column::ReceiveTime)
            .timestamp_micros("event.event_time", Column::EventTime)
            .text("event.action", Column::Action)
            .enumeration(
                "event.audit_class",
                Column::AuditClass,
                named("AUDIT_CLASS_", AuditClass::ALL, AuditClass::as_str),
            )
            .name(PRINCIPAL, Column::Principal)
            .name("event.principal.on_behalf_of", Column::OnBehalfOf)
            .name(TARGET, Column::Target)
            .text("event.target.type", Column::TargetType)
            .name("event.target.project", Column::Project)
            .enumeration(
                "event.decision.effect",
                Column::Effect,
                named("EFFECT_", Effect::ALL, Effect::as_str),
            )
            .enumeration(
                "event.outcome.status",
                Column::Status,
                named("STATUS_", Status::ALL, Status::as_str),
            )
            .text("event.cause.call_id", Column::CallId)
            .text("event.cause.request_id", Column::RequestId)
            .name("event.cause.operation", Column::Operation)
            .global([PRINCIPAL, TARGET, "event.action"]);
        Ok(Selection(filter::condition(filter, &fields)?))
    }

    /// The newest checkpoint of the permit's log, if the log has begun.
    pub(crate) async fn checkpoint(&self, permit: &Permit) -> Result<Option<Checkpoint>, Error> {
        let log = permit.organization().to_owned();
        let row = checkpoint::Entity::find_by_id(log).one(self.store.read()).await?;
        row.map(|row| {
            let checkpoint::Model { log, tree_size, root_hash, note, verifier_key, sign_time } = row;
            let corrupt = || StoreError::Corrupt(format!("checkpoint of audit log `{log}`"));
            Ok(Checkpoint {
                size: u64::try_from(tree_size).map_err(|_| corrupt())?,
                root: root_hash.try_into().map_err(|_| corrupt())?,
                signed: Signed { note, verifier_key, sign_time },
            })
        })
        .transpose()
    }

    /// The record of an event.
    pub(crate) async fn record_by_event(
        &self,
        permit: &Permit,
        event_id: &str,
    ) -> Result<Option<StoredRecord>, Error> {
        let row = record::Entity::find()
            .filter(Column::Log.eq(permit.organization()))
            .filter(Column::EventId.eq(event_id))
            .order_by_asc(Column::Idx)
            .one(self.store.read())
            .await?;
        Ok(row.map(stored))
    }

    /// About the first of `size` records that the log took at this time (microseconds since 1970) or later: found by
    /// halves, as the times of records grow with their places, but for moments.
    pub(crate) async fn first_since(&self, permit: &Permit, time: i64, size: i64) -> Result<i64, Error> {
        let (mut from, mut to) = (0, size);
        while from < to {
            let middle = from + (to - from) / 2;
            let taken = record::Entity::find_by_id((permit.organization().to_owned(), middle))
                .select_only()
                .column(Column::ReceiveTime)
                .into_tuple::<i64>()
                .one(self.store.read())
                .await?;
            match taken {
                Some(taken) if taken < time => from = middle + 1,
                _ => to = middle,
            }
        }
        Ok(from)
    }

    /// Records of a range that match, at most `limit` of them and at most `max_bytes` together (but always one).
    pub(crate) async fn records_page(
        &self,
        permit: &Permit,
        selection: &Selection,
        range: Range<i64>,
        descending: bool,
        limit: u64,
        max_bytes: usize,
    ) -> Result<Page, Error> {
        let select = record::Entity::find()
            .filter(Column::Log.eq(permit.organization()))
            .filter(Column::Idx.gte(range.start))
            .filter(Column::Idx.lt(range.end))
            .filter(selection.0.clone())
            .limit(limit + 1);
        let select = match descending {
            true => select.order_by_desc(Column::Idx),
            false => select.order_by_asc(Column::Idx),
        };
        let mut rows = select.stream(self.store.read()).await?;
        let (mut records, mut bytes, mut more) = (Vec::new(), 0, false);
        while let Some(row) = rows.try_next().await? {
            bytes += row.body.len();
            if records.len() as u64 == limit || (bytes > max_bytes && !records.is_empty()) {
                more = true;
                break;
            }
            records.push(stored(row));
        }
        Ok(Page { records, more })
    }
}

/// The names of an enum's values in a filter, with and without the enum's prefix, and what is stored for each.
fn named<V: Copy>(prefix: &str, values: &[V], word: fn(V) -> &'static str) -> Vec<(String, &'static str)> {
    let names = values.iter().map(|value| word(*value));
    names.flat_map(|word| [(format!("{prefix}{word}"), word), (word.to_owned(), word)]).collect()
}

fn stored(row: record::Model) -> StoredRecord {
    StoredRecord { index: row.idx, leaf: row.leaf_hash, body: row.body, receive_time: row.receive_time }
}

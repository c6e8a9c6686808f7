//! Reading records. Every query is confined to the permit's organization.

use std::ops::Range;

use futures::TryStreamExt as _;
use pavior_auth::Permit;
use pavior_core::audit::{AuditClass, Effect, Status};
use pavior_core::filter::Filter;
use pavior_store::filter::{self, FieldMap, FilterError};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ActiveEnum, ColumnTrait as _, Condition, ConnectionTrait as _, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _, Select,
};

use super::AuditStore;
use super::entity::column;
use super::entity::record::{self, Column};
use crate::domain::record::StoredRecord;
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
    pub(crate) fn select(&self, filter: &Filter) -> Result<Selection, FilterError> {
        let fields = FieldMap::new(self.store.backend())
            .number("index", Column::Idx)
            .timestamp_micros("receive_time", Column::ReceiveTime)
            .timestamp_micros("event.event_time", Column::EventTime)
            .text("event.action", Column::Action)
            .enumeration(
                "event.audit_class",
                Column::AuditClass,
                named("AUDIT_CLASS_", AuditClass::ALL, AuditClass::as_str, column::AuditClass::from),
            )
            .name(PRINCIPAL, Column::Principal)
            .name("event.principal.on_behalf_of", Column::OnBehalfOf)
            .name(TARGET, Column::Target)
            .text("event.target.type", Column::TargetType)
            .name("event.target.project", Column::Project)
            .enumeration(
                "event.decision.effect",
                Column::Effect,
                named("EFFECT_", Effect::ALL, Effect::as_str, |effect| column::Effect::from(Some(effect))),
            )
            .enumeration(
                "event.outcome.status",
                Column::Status,
                named("STATUS_", Status::ALL, Status::as_str, column::Status::from),
            )
            .text("event.cause.call_id", Column::CallId)
            .text("event.cause.request_id", Column::RequestId)
            .name("event.cause.operation", Column::Operation)
            .global([PRINCIPAL, TARGET, "event.action"]);
        Ok(Selection(filter::condition(filter, &fields)?))
    }

    /// The record of an event.
    pub(crate) async fn record_by_event(
        &self,
        permit: &Permit,
        event_id: &str,
    ) -> Result<Option<StoredRecord>, Error> {
        let select = shown(permit).filter(Column::EventId.eq(event_id)).order_by_asc(Column::Idx);
        let row = select.into_tuple::<Shown>().one(self.store.read()).await?;
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

    /// How many of the first `size` records match, up to `most`.
    pub(crate) async fn count_records(
        &self,
        permit: &Permit,
        selection: &Selection,
        size: i64,
        most: u64,
    ) -> Result<u64, Error> {
        let matching = record::Entity::find()
            .select_only()
            .column(Column::Idx)
            .filter(Column::Log.eq(permit.organization()))
            .filter(Column::Idx.lt(size))
            .filter(selection.0.clone())
            .limit(most);
        let counted = Query::select()
            .expr(Expr::cust("COUNT(*)"))
            .from_subquery(matching.into_query(), "matching")
            .to_owned();
        let row = self.store.read().query_one(&counted).await?;
        let count = row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?.unwrap_or_default();
        Ok(count.unsigned_abs())
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
        let select = shown(permit)
            .filter(Column::Idx.gte(range.start))
            .filter(Column::Idx.lt(range.end))
            .filter(selection.0.clone())
            .limit(limit + 1);
        let select = match descending {
            true => select.order_by_desc(Column::Idx),
            false => select.order_by_asc(Column::Idx),
        };
        let mut rows = select.into_tuple::<Shown>().stream(self.store.read()).await?;
        let (mut records, mut bytes, mut more) = (Vec::new(), 0, false);
        while let Some(row) = rows.try_next().await? {
            let record = stored(row);
            bytes += record.body.len();
            if records.len() as u64 == limit || (bytes > max_bytes && !records.is_empty()) {
                more = true;
                break;
            }
            records.push(record);
        }
        Ok(Page { records, more })
    }
}

/// The names of an enum's values in a filter, with and without the enum's prefix, and what is stored for each.
fn named<V: Copy, C: ActiveEnum<Value = String>>(
    prefix: &str,
    values: &[V],
    word: fn(V) -> &'static str,
    column: fn(V) -> C,
) -> Vec<(String, String)> {
    let both = |value: &V| {
        let (word, stored) = (word(*value), column(*value).to_value());
        [(format!("{prefix}{word}"), stored.clone()), (word.to_owned(), stored)]
    };
    values.iter().flat_map(both).collect()
}

/// Index, leaf hash, bytes and time.
type Shown = (i64, Vec<u8>, Vec<u8>, i64);

/// What is shown of records comes from their bytes: the columns to search by are not read.
fn shown(permit: &Permit) -> Select<record::Entity> {
    record::Entity::find()
        .select_only()
        .columns([Column::Idx, Column::LeafHash, Column::Body, Column::ReceiveTime])
        .filter(Column::Log.eq(permit.organization()))
}

fn stored((index, leaf, body, receive_time): Shown) -> StoredRecord {
    StoredRecord { index, leaf, body, receive_time }
}

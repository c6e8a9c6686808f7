//! Records on the wire.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::watch_audit_records_response::Response as WatchResponse;
use pavior_proto::pavior::r#type::v1::StreamBookmark;
use pavior_proto::shape::{ListRequest as _, Request as _, Resource as _};
use pavior_resource::{Error as ResourceError, ListQuery, list_query, open_page};
use pavior_rpc::stream::{self, Start, StreamTokens};
use pavior_rpc::{Problem, audit, convert};
use serde_json::{Value, json};
use tonic::Status;
use uuid::Uuid;

use super::{Api, name};
use crate::app::record::{Cursor, Listed};
use crate::app::watch::{From, Item};
use crate::domain::codec;
use crate::domain::record::StoredRecord;
use crate::error::Error;

/// What a watch stream sends.
pub(super) type WatchStream =
    Pin<Box<dyn Stream<Item = Result<pb::WatchAuditRecordsResponse, Status>> + Send>>;

const PARENT: &str = "organizations/{organization}";

impl Api {
    pub(super) async fn record(
        &self,
        permit: &Permit,
        pb::GetAuditRecordRequest { name }: &pb::GetAuditRecordRequest,
    ) -> Result<pb::AuditRecord, Error> {
        let (pattern, action) = (pb::AuditRecord::PATTERN, pb::GetAuditRecordRequest::ACTION);
        let ids = name::parse(permit, "name", name, pattern, action)?;
        let event = ids.last().and_then(|id| Uuid::try_parse(id).ok());
        let event = event.ok_or_else(|| name::malformed("name", name, pattern))?;
        let record = self.reader.record(permit, &event.to_string()).await?;
        let kind = pb::AuditRecord::TYPE;
        let record = record.ok_or_else(|| ResourceError::NotFound { kind, name: name.clone() })?;
        encode(permit.organization(), record)
    }

    pub(super) async fn records(
        &self,
        permit: &Permit,
        request: &pb::ListAuditRecordsRequest,
    ) -> Result<pb::ListAuditRecordsResponse, Error> {
        name::parse(permit, "parent", &request.parent, PARENT, pb::ListAuditRecordsRequest::ACTION)?;
        let page = open_page(&self.tokens, request)?;
        let query = list_query(request, None, &page)?;
        let after = query.after.as_ref().map(read_cursor).transpose()?;
        let (selection, descending) = (self.reader.select(&query.filter)?, descending(&query)?);
        // The page ends where the reader has cut it: its bytes are counted as they are read.
        let listed = self.reader.list(permit, &selection, descending, page.size, after).await?;
        let Listed { records, next, tree_size } = listed;
        let total = match query.count {
            true => Some(self.reader.count(permit, &query.filter, &selection, tree_size).await?),
            false => None,
        };
        let total = total.map(|total| i32::try_from(total).unwrap_or(i32::MAX));
        let next = next.map(|cursor| page.token(&self.tokens, &write_cursor(&cursor)));
        let encoded = |record| Ok(page.fields.select(encode(permit.organization(), record)?)?);
        let records = records.into_iter().map(encoded).collect::<Result<_, Error>>()?;
        Ok(pb::ListAuditRecordsRequest::respond(records, next.unwrap_or_default(), total))
    }

    pub(super) async fn watch(
        &self,
        permit: Permit,
        request: pb::WatchAuditRecordsRequest,
    ) -> Result<WatchStream, Error> {
        let pb::WatchAuditRecordsRequest { parent, start, filter } = request;
        name::parse(&permit, "parent", &parent, PARENT, pb::WatchAuditRecordsRequest::ACTION)?;
        let tokens = StreamTokens::new(&self.tokens, &["WatchAuditRecords", &parent, &filter]);
        let from = match tokens.start(start.as_ref())? {
            Start::Beginning => From::Beginning,
            Start::Now => From::End,
            Start::At(time) => From::Time(time),
            Start::Behind(place) => From::Index(read_place(&place)?),
        };
        let refuse = |message: String| ResourceError::Filter { field: "filter", message };
        let filter = Filter::parse(&filter).map_err(|error| refuse(error.to_string()))?;
        let selection = self.reader.select(&filter)?;
        let log = permit.organization().to_owned();
        let items = self.reader.watch(permit, selection, from, self.pace).await?;
        Ok(Box::pin(items.map(move |item| {
            let response = item.and_then(|item| encode_item(&log, &tokens, item));
            response.map_err(|error| Problem::from(error).into())
        })))
    }
}

fn encode_item(log: &str, tokens: &StreamTokens, item: Item) -> Result<pb::WatchAuditRecordsResponse, Error> {
    let Item { record, resume } = item;
    let response = match record {
        Some(record) => WatchResponse::AuditRecord(encode(log, record)?),
        None => WatchResponse::Bookmark(StreamBookmark {}),
    };
    let resume_token = tokens.token(&resume.into());
    Ok(pb::WatchAuditRecordsResponse { resume_token, response: Some(response) })
}

fn encode(log: &str, record: StoredRecord) -> Result<pb::AuditRecord, Error> {
    let StoredRecord { index, leaf, body, receive_time } = record;
    let event = codec::decode_event(log, &body)?;
    Ok(pb::AuditRecord {
        name: format!("organizations/{log}/auditRecords/{}", event.event_id),
        index,
        leaf_hash: leaf,
        canonical: body,
        receive_time: timestamp(receive_time),
        event: Some(audit::encode(event)),
    })
}

pub(super) fn timestamp(micros: i64) -> Option<prost_types::Timestamp> {
    pavior_store::from_micros(micros).map(convert::to_timestamp)
}

/// Whether the newest come first. A log has one order, and each index of it once.
fn descending(query: &ListQuery) -> Result<bool, ResourceError> {
    match query.order.as_slice() {
        [] => Ok(false),
        [(path, descending)] if path.len() == 1 && path[0] == "index" => Ok(*descending),
        _ => {
            let message = "records can be ordered by `index` and `index desc` only".to_owned();
            Err(ResourceError::Filter { field: "order_by", message })
        }
    }
}

fn write_cursor(cursor: &Cursor) -> Value {
    json!([cursor.last, cursor.tree_size])
}

fn read_cursor(value: &Value) -> Result<Cursor, ResourceError> {
    let number = |at: usize| value.get(at).and_then(Value::as_i64);
    let cursor = number(0).zip(number(1)).map(|(last, tree_size)| Cursor { last, tree_size });
    cursor.ok_or(ResourceError::PageToken)
}

/// Where a stream goes on: the index of the next record to look at.
fn read_place(value: &Value) -> Result<i64, Problem> {
    value.as_i64().filter(|next| *next >= 0).ok_or_else(stream::not_ours)
}

//! The wire side: decode, call, encode.

mod convert;
mod recorder_service;
mod status;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use pavior_auth::{Permit, permit};
use pavior_core::clock::Clock;
use pavior_core::page::PageTokens;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::audit_service_server::AuditService;
use pavior_proto::pavior::audit::v1::watch_audit_records_response::Response as Told;
use pavior_proto::pavior::r#type::v1::StreamBookmark;
use pavior_rpc::paging::Page;
use pavior_rpc::stream::{Start, StreamTokens};
use pavior_rpc::validate;
use tonic::{Request, Response, Status};

use crate::Deps;
use crate::app::reader::Reader;
use crate::app::watch::{From, Item, Pace};
use crate::app::writer::Appender;
use crate::config::Config;
use crate::domain::record::Checkpoint;
use status::problem;

/// The gRPC service.
#[derive(Debug)]
pub(crate) struct Api {
    reader: Reader,
    appender: Appender,
    tokens: PageTokens,
    clock: Arc<dyn Clock>,
    pace: Pace,
    max_record_bytes: usize,
}

impl Api {
    pub(crate) fn new(
        config: &Config,
        deps: &Deps,
        reader: Reader,
        appender: Appender,
        tokens: PageTokens,
    ) -> Self {
        let pace = Pace {
            bookmark: Duration::from_millis(config.bookmark_interval_ms),
            poll: Duration::from_millis(config.poll_interval_ms),
        };
        let clock = deps.clock.clone();
        Self { reader, appender, tokens, clock, pace, max_record_bytes: config.max_record_bytes }
    }

    fn checkpoint(&self, permit: &Permit, checkpoint: Checkpoint) -> pb::AuditCheckpoint {
        let log = permit.organization();
        convert::checkpoint(log, self.reader.signer.origin(log), checkpoint)
    }
}

/// The permit and message of a valid request for a parent that the permit covers.
fn open<M>(request: Request<M>, parent: impl Fn(&M) -> &str) -> Result<(Permit, M), Status>
where
    M: prost::Message + prost::Name,
{
    let permit = permit(&request)?;
    let message = request.into_inner();
    validate::request(&message)?;
    convert::confined(&permit, "parent", parent(&message))?;
    Ok((permit, message))
}

/// As [`open`], for the name of a checkpoint.
fn open_checkpoint<M>(request: Request<M>, name: impl Fn(&M) -> &str) -> Result<(Permit, M), Status>
where
    M: prost::Message + prost::Name,
{
    let permit = permit(&request)?;
    let message = request.into_inner();
    validate::request(&message)?;
    convert::confined(&permit, "name", convert::checkpoint_log(name(&message))?)?;
    Ok((permit, message))
}

#[tonic::async_trait]
impl AuditService for Api {
    async fn get_audit_record(
        &self,
        request: Request<pb::GetAuditRecordRequest>,
    ) -> Result<Response<pb::AuditRecord>, Status> {
        let permit = permit(&request)?;
        let message = request.into_inner();
        validate::request(&message)?;
        let (parent, event_id) = convert::record_name(&message.name)?;
        convert::confined(&permit, "name", parent)?;
        let record = self.reader.record(&permit, &event_id).await.map_err(problem)?;
        Ok(Response::new(convert::record(permit.organization(), record)?))
    }

    async fn list_audit_records(
        &self,
        request: Request<pb::ListAuditRecordsRequest>,
    ) -> Result<Response<pb::ListAuditRecordsResponse>, Status> {
        let (permit, message) = open(request, |m| &m.parent)?;
        let pb::ListAuditRecordsRequest { parent, page_size, page_token, filter, order_by } = message;
        let args = ["ListAuditRecords", &parent, &filter, &order_by];
        let page = Page::open(&self.tokens, page_size, &page_token, &args)?;
        let after = page.after.as_ref().map(convert::read_cursor).transpose()?;
        let selection = self.reader.select(&convert::filter(&filter)?).map_err(problem)?;
        let descending = convert::descending(&order_by)?;
        let (records, next) =
            self.reader.list(&permit, &selection, descending, page.size, after).await.map_err(problem)?;
        let next = next.map(|cursor| page.token(&self.tokens, &convert::write_cursor(&cursor)));
        let records = records.into_iter().map(|record| convert::record(permit.organization(), record));
        Ok(Response::new(pb::ListAuditRecordsResponse {
            audit_records: records.collect::<Result<_, _>>()?,
            next_page_token: next.unwrap_or_default(),
        }))
    }

    type WatchAuditRecordsStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchAuditRecordsResponse, Status>> + Send>>;

    async fn watch_audit_records(
        &self,
        request: Request<pb::WatchAuditRecordsRequest>,
    ) -> Result<Response<Self::WatchAuditRecordsStream>, Status> {
        let (permit, message) = open(request, |m| &m.parent)?;
        let pb::WatchAuditRecordsRequest { parent, start, filter } = message;
        let tokens = StreamTokens::new(&self.tokens, &["WatchAuditRecords", &parent, &filter]);
        let from = match tokens.start(start.as_ref())? {
            Start::Beginning => From::Beginning,
            Start::Now => From::End,
            Start::At(time) => From::Time(time),
            Start::Behind(place) => From::Index(convert::read_place(&place)?),
        };
        let selection = self.reader.select(&convert::filter(&filter)?).map_err(problem)?;
        let log = permit.organization().to_owned();
        let watch = self.reader.watch(permit, selection, from, self.pace);
        let items = watch.await.map_err(problem)?.map(move |item| {
            let Item { record, resume } = item.map_err(problem)?;
            let response = match record {
                Some(record) => Told::AuditRecord(convert::record(&log, record)?),
                None => Told::Bookmark(StreamBookmark {}),
            };
            let resume_token = tokens.token(&resume.into());
            Ok(pb::WatchAuditRecordsResponse { resume_token, response: Some(response) })
        });
        Ok(Response::new(Box::pin(items)))
    }

    async fn get_audit_checkpoint(
        &self,
        request: Request<pb::GetAuditCheckpointRequest>,
    ) -> Result<Response<pb::AuditCheckpoint>, Status> {
        let (permit, _) = open_checkpoint(request, |m| &m.name)?;
        let checkpoint = self.reader.checkpoint(&permit).await.map_err(problem)?;
        Ok(Response::new(self.checkpoint(&permit, checkpoint)))
    }

    async fn prove_inclusion(
        &self,
        request: Request<pb::ProveInclusionRequest>,
    ) -> Result<Response<pb::InclusionProof>, Status> {
        let (permit, message) = open_checkpoint(request, |m| &m.name)?;
        let index = convert::whole("index", message.index)?;
        let size = convert::size("tree_size", message.tree_size)?;
        let proof = self.reader.prove_inclusion(&permit, index, size).await.map_err(problem)?;
        Ok(Response::new(pb::InclusionProof {
            index: message.index,
            tree_size: convert::wire(proof.tree_size),
            leaf_hash: proof.leaf.to_vec(),
            hashes: convert::hashes(proof.path),
            checkpoint: Some(self.checkpoint(&permit, proof.checkpoint)),
        }))
    }

    async fn prove_consistency(
        &self,
        request: Request<pb::ProveConsistencyRequest>,
    ) -> Result<Response<pb::ConsistencyProof>, Status> {
        let (permit, message) = open_checkpoint(request, |m| &m.name)?;
        let from = convert::whole("from_size", message.from_size)?;
        let to = convert::size("to_size", message.to_size)?;
        let proof = self.reader.prove_consistency(&permit, from, to).await.map_err(problem)?;
        Ok(Response::new(pb::ConsistencyProof {
            from_size: message.from_size,
            to_size: convert::wire(proof.to_size),
            hashes: convert::hashes(proof.path),
            checkpoint: Some(self.checkpoint(&permit, proof.checkpoint)),
        }))
    }

    async fn get_audit_tile(
        &self,
        request: Request<pb::GetAuditTileRequest>,
    ) -> Result<Response<pb::AuditTile>, Status> {
        let permit = permit(&request)?;
        let pb::GetAuditTileRequest { name } = request.into_inner();
        let (parent, level, index) = convert::tile_name(&name)?;
        convert::confined(&permit, "name", parent)?;
        let hashes = self.reader.tile(&permit, level, index).await.map_err(problem)?;
        let width = hashes.len() as i32;
        Ok(Response::new(pb::AuditTile { name, level, index, width, hashes: hashes.concat() }))
    }
}

//! `pavior.audit.v1.AuditService`.

use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::audit_service_server::AuditService;
use pavior_resource::{Answer, get_with, read_request, respond};
use tonic::Request;

use super::Api;
use super::record::WatchStream;

#[tonic::async_trait]
impl AuditService for Api {
    async fn get_audit_record(&self, request: Request<pb::GetAuditRecordRequest>) -> Answer<pb::AuditRecord> {
        get_with(request, async |permit, request| self.record(permit, request).await).await
    }

    async fn list_audit_records(
        &self,
        request: Request<pb::ListAuditRecordsRequest>,
    ) -> Answer<pb::ListAuditRecordsResponse> {
        let (permit, request) = read_request(request)?;
        respond(self.records(&permit, &request).await)
    }

    type WatchAuditRecordsStream = WatchStream;

    async fn watch_audit_records(
        &self,
        request: Request<pb::WatchAuditRecordsRequest>,
    ) -> Answer<WatchStream> {
        let (permit, request) = read_request(request)?;
        respond(self.watch(permit, request).await)
    }

    async fn get_audit_checkpoint(
        &self,
        request: Request<pb::GetAuditCheckpointRequest>,
    ) -> Answer<pb::AuditCheckpoint> {
        get_with(request, async |permit, request| self.checkpoint(permit, request).await).await
    }

    async fn prove_inclusion(
        &self,
        request: Request<pb::ProveInclusionRequest>,
    ) -> Answer<pb::InclusionProof> {
        let (permit, request) = read_request(request)?;
        respond(self.inclusion(&permit, &request).await)
    }

    async fn prove_consistency(
        &self,
        request: Request<pb::ProveConsistencyRequest>,
    ) -> Answer<pb::ConsistencyProof> {
        let (permit, request) = read_request(request)?;
        respond(self.consistency(&permit, &request).await)
    }

    async fn get_audit_tile(&self, request: Request<pb::GetAuditTileRequest>) -> Answer<pb::AuditTile> {
        get_with(request, async |permit, request| self.tile(permit, request).await).await
    }
}

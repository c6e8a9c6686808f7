//! `pavior.audit.internal.v1.RecorderService`.

use pavior_auth::permit;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_proto::pavior::audit::internal::v1::recorder_service_server::RecorderService;
use tonic::{Request, Response, Status};

use super::status::problem;
use super::{Api, convert};

#[tonic::async_trait]
impl RecorderService for Api {
    async fn append_records(
        &self,
        request: Request<recorder_pb::AppendRecordsRequest>,
    ) -> Result<Response<recorder_pb::AppendRecordsResponse>, Status> {
        let permit = permit(&request)?;
        let message = request.into_inner();
        let submission = convert::submission(&permit, message, self.clock.now(), self.max_record_bytes)?;
        let ack = self.appender.append(submission).await.map_err(problem)?;
        Ok(Response::new(recorder_pb::AppendRecordsResponse { acknowledged_sequence: ack.acknowledged }))
    }

    async fn get_producer_state(
        &self,
        request: Request<recorder_pb::GetProducerStateRequest>,
    ) -> Result<Response<recorder_pb::ProducerState>, Status> {
        let permit = permit(&request)?;
        let producer = convert::producer(&permit, request.into_inner())?;
        let progress = self.reader.progress(&producer).await.map_err(problem)?;
        Ok(Response::new(recorder_pb::ProducerState {
            last_sequence: progress.last_seq,
            last_event_id: progress.last_event.unwrap_or_default(),
            newest_epoch: progress.newest_epoch.unwrap_or_default(),
        }))
    }
}

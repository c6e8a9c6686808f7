//! `pavior.audit.internal.v1.RecorderService`.

use pavior_auth::permit;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_proto::pavior::audit::internal::v1::recorder_service_server::RecorderService;
use pavior_resource::{Answer, respond};
use tonic::Request;

use super::{Api, producer};
use crate::error::Error;

#[tonic::async_trait]
impl RecorderService for Api {
    async fn append_records(
        &self,
        request: Request<recorder_pb::AppendRecordsRequest>,
    ) -> Answer<recorder_pb::AppendRecordsResponse> {
        let permit = permit(&request)?;
        let appended = async {
            let (now, max_bytes) = (self.clock.now(), self.max_record_bytes);
            let submission = producer::submission(&permit, request.into_inner(), now, max_bytes)?;
            let ack = self.appender.append(submission).await?;
            Ok::<_, Error>(recorder_pb::AppendRecordsResponse { acknowledged_sequence: ack.acknowledged })
        };
        respond(appended.await)
    }

    async fn get_producer_state(
        &self,
        request: Request<recorder_pb::GetProducerStateRequest>,
    ) -> Answer<recorder_pb::ProducerState> {
        let permit = permit(&request)?;
        let found = async {
            let producer = producer::producer(&permit, request.into_inner())?;
            let progress = self.reader.progress(&producer).await?;
            Ok::<_, Error>(recorder_pb::ProducerState {
                last_sequence: progress.last_seq,
                last_event_id: progress.last_event.unwrap_or_default(),
                newest_epoch: progress.newest_epoch.unwrap_or_default(),
            })
        };
        respond(found.await)
    }
}

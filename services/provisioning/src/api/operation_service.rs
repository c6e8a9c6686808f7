//! `pavior.provisioning.v1.OperationService`.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::operation_service_server::OperationService;
use pavior_proto::shape::Request as _;
use pavior_rpc::stream::StreamTokens;
use pavior_rpc::validate;
use tonic::{Request, Status};

use super::status::to_status;
use super::{Answered, Api, input, operation, respond};
use crate::app::Answer;

#[tonic::async_trait]
impl OperationService for Api {
    type WatchOperationStream = BoxStream<'static, Result<pb::WatchOperationResponse, Status>>;

    async fn watch_operation(
        &self,
        request: Request<pb::WatchOperationRequest>,
    ) -> Answered<Self::WatchOperationStream> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let pb::WatchOperationRequest { name, start } = &request;
        let tokens = StreamTokens::new(&self.app.kernel.tokens, &["WatchOperation", name]);
        let start = tokens.start(start.as_ref())?;
        let watch = self.app.watch_operation(&permit, pb::WatchOperationRequest::ACTION, name, start).await;
        let watched = move |message| operation::watched(&tokens, message);
        respond(watch.map(|messages| messages.map_ok(watched).map_err(to_status).boxed()))
    }

    async fn retry_operation(&self, request: Request<pb::RetryOperationRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let context = input::context(permit, &request);
        validate::request(&request)?;
        let answer = self.app.retry_operation(&context, &request.name).await;
        self.begun(&context, answer.map(|answer| Answer::Operation(Box::new(answer)))).await
    }
}

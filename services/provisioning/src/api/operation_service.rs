//! `pavior.provisioning.v1.OperationService`.

use std::sync::Arc;

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

use super::status::{respond, to_status};
use super::{Answered, Api, input, operation};
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
        let tokens = StreamTokens::new(&self.app.tokens, &["WatchOperation", name]);
        let start = tokens.start(start.as_ref())?;
        let watch = self.app.watch_operation(&permit, pb::WatchOperationRequest::ACTION, name, start).await;
        let shared = Arc::new((self.app.clone(), permit, tokens));
        respond(watch.map(|messages| {
            let shown = messages.and_then(move |message| {
                let shared = shared.clone();
                async move {
                    let (app, permit, tokens) = &*shared;
                    operation::watched(app, permit, tokens, message).await
                }
            });
            shown.map_err(to_status).boxed()
        }))
    }

    async fn retry_operation(&self, request: Request<pb::RetryOperationRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let ask = input::ask(permit, &request);
        validate::request(&request)?;
        let view = self.app.retry_operation(&ask, &request.name).await;
        self.begun(&ask, view.map(|view| Answer::Operation(Box::new(view)))).await
    }
}

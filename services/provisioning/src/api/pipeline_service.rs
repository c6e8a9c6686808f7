//! `pavior.provisioning.v1.PipelineService`.

use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::pipeline_service_server::PipelineService;
use tonic::Request;

use super::status::respond;
use super::{Answered, Api, convert};

#[tonic::async_trait]
impl PipelineService for Api {
    async fn get_pipeline(&self, request: Request<pb::GetPipelineRequest>) -> Answered<pb::Pipeline> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.get_pipeline(&permit, &request.name).await.map(convert::pipeline))
    }

    async fn list_pipelines(
        &self,
        request: Request<pb::ListPipelinesRequest>,
    ) -> Answered<pb::ListPipelinesResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            list!(self.app, list_pipelines, &permit, request: ListPipelinesRequest, convert::pipeline => ListPipelinesResponse.pipelines),
        )
    }

    async fn run_pipeline(&self, request: Request<pb::RunPipelineRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn get_run(&self, request: Request<pb::GetRunRequest>) -> Answered<pb::Run> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.get_run(&permit, &request.name).await.map(convert::run))
    }

    async fn list_runs(&self, request: Request<pb::ListRunsRequest>) -> Answered<pb::ListRunsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            list!(self.app, list_runs, &permit, request: ListRunsRequest, convert::run => ListRunsResponse.runs),
        )
    }
}

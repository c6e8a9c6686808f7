//! `pavior.provisioning.v1.PipelineService`.

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use pavior_auth::permit;
use pavior_driver::ArtifactFormat;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::download_artifact_response::{
    Chunk, Description, Part, description::Format,
};
use pavior_proto::pavior::provisioning::v1::pipeline_service_server::PipelineService;
use pavior_proto::shape::Request as _;
use pavior_rpc::validate;
use tonic::{Request, Status};

use super::read::{get, list};
use super::status::to_status;
use super::{Answered, Api, convert, respond};
use crate::app::artifact::{self, Download, WantedArtifact};

#[tonic::async_trait]
impl PipelineService for Api {
    type DownloadArtifactStream = BoxStream<'static, Result<pb::DownloadArtifactResponse, Status>>;

    async fn get_pipeline(&self, request: Request<pb::GetPipelineRequest>) -> Answered<pb::Pipeline> {
        get(&self.app, request, convert::pipeline).await
    }

    async fn list_pipelines(
        &self,
        request: Request<pb::ListPipelinesRequest>,
    ) -> Answered<pb::ListPipelinesResponse> {
        list(&self.app, request, convert::pipeline).await
    }

    async fn run_pipeline(&self, request: Request<pb::RunPipelineRequest>) -> Answered<Operation> {
        self.change(request).await
    }

    async fn get_run(&self, request: Request<pb::GetRunRequest>) -> Answered<pb::Run> {
        get(&self.app, request, convert::run).await
    }

    async fn list_runs(&self, request: Request<pb::ListRunsRequest>) -> Answered<pb::ListRunsResponse> {
        list(&self.app, request, convert::run).await
    }

    async fn download_artifact(
        &self,
        request: Request<pb::DownloadArtifactRequest>,
    ) -> Answered<Self::DownloadArtifactStream> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        validate::request(&request)?;
        let pb::DownloadArtifactRequest { name, artifact_id, offset } = &request;
        let wanted = WantedArtifact { run: name, artifact: artifact_id, offset: *offset };
        let opened = self.app.download_artifact(&permit, pb::DownloadArtifactRequest::ACTION, wanted).await;
        respond(opened.map(|Download { file_name, format, digest, chunks }| {
            let format = match format {
                ArtifactFormat::File => Format::File,
                ArtifactFormat::Tar => Format::Tar,
            };
            let description = Description { file_name, format: format.into(), digest: digest.to_string() };
            let first = stream::iter([Ok(part(Part::Description(description)))]);
            first.chain(chunks.map_ok(chunk).map_err(to_status)).boxed()
        }))
    }
}

fn part(part: Part) -> pb::DownloadArtifactResponse {
    pb::DownloadArtifactResponse { part: Some(part) }
}

fn chunk(artifact::Chunk { offset, data }: artifact::Chunk) -> pb::DownloadArtifactResponse {
    // No file is as long as what does not fit.
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    part(Part::Chunk(Chunk { offset, data: data.into() }))
}

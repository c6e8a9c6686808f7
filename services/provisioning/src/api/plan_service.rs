//! `pavior.provisioning.v1.PlanService`.

use pavior_auth::permit;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan_service_server::PlanService;
use tonic::Request;

use super::status::respond;
use super::{Answered, Api};

#[tonic::async_trait]
impl PlanService for Api {
    async fn get_plan(&self, request: Request<pb::GetPlanRequest>) -> Answered<pb::Plan> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.read_plan(&permit, &request.name).await)
    }

    async fn list_plans(&self, request: Request<pb::ListPlansRequest>) -> Answered<pb::ListPlansResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.plans(&permit, request).await)
    }
}

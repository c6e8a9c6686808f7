//! `pavior.provisioning.v1.PlanService`.

use pavior_auth::permit;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan_service_server::PlanService;
use pavior_rpc::{ErrorReason, Problem, validate};
use tonic::Request;

use super::read::{get, list};
use super::{Answered, Api, convert, input, respond};
use crate::app::{Answer, App, ChangeContext, Goal};
use crate::domain::names;
use crate::error::Result;

#[tonic::async_trait]
impl PlanService for Api {
    async fn get_plan(&self, request: Request<pb::GetPlanRequest>) -> Answered<pb::Plan> {
        get(&self.app, request, convert::kept_plan).await
    }

    async fn list_plans(&self, request: Request<pb::ListPlansRequest>) -> Answered<pb::ListPlansResponse> {
        list(&self.app, request, convert::kept_plan).await
    }

    async fn create_plan(&self, request: Request<pb::CreatePlanRequest>) -> Answered<pb::Plan> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let context = input::context(permit, &request);
        respond(self.keep_plan(&context, request).await)
    }

    async fn execute_plan(&self, request: Request<pb::ExecutePlanRequest>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let context = input::context(permit, &request);
        let answer = self.execute(&context, &request).await;
        self.begun(&context, answer).await
    }
}

impl Api {
    async fn keep_plan(&self, context: &ChangeContext, request: pb::CreatePlanRequest) -> Result<pb::Plan> {
        validate::request(&request)?;
        let pb::CreatePlanRequest { parent, plan, request_id: _ } = request;
        App::name(&context.permit, context.action, "parent", &parent, names::ORGANIZATION)?;
        if let Some(first) = self.app.planned_before(context).await? {
            return Ok(convert::kept_plan(first));
        }
        let intent = plan.and_then(|plan| plan.intent).unwrap_or_default();
        let answer = match self.intended(context, Goal::Keep(Box::new(intent.clone())), intent).await {
            Ok(answer) => answer,
            Err(refusal) => match self.app.planned_before(context).await {
                Ok(Some(first)) => return Ok(convert::kept_plan(first)),
                Ok(None) | Err(_) => return Err(refusal),
            },
        };
        match answer {
            Answer::Kept(plan) => Ok(convert::kept_plan(*plan)),
            Answer::Nothing => {
                let message = "there is nothing to plan: what is to go is not there";
                Err(Problem::precondition(ErrorReason::InvalidState, message).into())
            }
            Answer::Plan(_) | Answer::Operation(_) => {
                Err(Problem::internal("a plan that was to be kept was not").into())
            }
        }
    }

    async fn execute(&self, context: &ChangeContext, request: &pb::ExecutePlanRequest) -> Result<Answer> {
        validate::request(request)?;
        // The first answer, also when the plan has expired since.
        if let Some(answer) = self.app.replayed(context).await? {
            return Ok(answer);
        }
        let (goal, intent) =
            self.app.executable(&context.permit, &request.name, &context.plan_digest).await?;
        self.intended(context, goal, intent).await
    }
}

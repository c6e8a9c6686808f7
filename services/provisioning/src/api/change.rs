//! Requests that change something: what each asks of the use cases, whether it comes by itself or within a plan.

use pavior_auth::permit;
use pavior_core::Fault;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan::intent::Request as Intended;
use pavior_proto::shape;
use pavior_rpc::{Problem, convert, governance, validate};
use tonic::Request;

use super::{Answered, Api, input};
use crate::app::admission::Named;
use crate::app::deletion::Removal;
use crate::app::{Answer, ChangeContext, Goal};
use crate::error::Result;

/// A request that is planned and carried out.
pub(super) trait Change: shape::Request {
    /// Hands it on.
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer>;
}

impl Change for pb::CreateProjectRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        let violations = validate::violations(&self)?;
        api.app.create_project(context, input::project(self), violations).await
    }
}

impl Change for pb::DeleteProjectRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        let violations = validate::violations(&self)?;
        let Self { name, etag, allow_missing, force, .. } = &self;
        let how = Removal { etag, allow_missing: *allow_missing, force: *force };
        api.app.delete_project(context, name, how, violations).await
    }
}

impl Change for pb::CreateEnvironmentRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        let mut violations = validate::violations(&self)?;
        let wanted = input::environment(self.environment.as_ref(), &mut violations);
        api.app.create_environment(context, &self.parent, &self.environment_id, wanted, violations).await
    }
}

impl Change for pb::UpdateEnvironmentRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        validate::request(&self)?;
        api.update(context, self).await
    }
}

impl Change for pb::DeleteEnvironmentRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        let violations = validate::violations(&self)?;
        api.app.delete_environment(context, &self.name, &self.etag, self.allow_missing, violations).await
    }
}

impl Change for pb::RunPipelineRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        let violations = validate::violations(&self)?;
        api.app.run_pipeline(context, &self.name, &self.revision, violations).await
    }
}

impl Change for pb::CreateDeploymentRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        let violations = validate::violations(&self)?;
        let source = input::source(self.deployment.as_ref());
        api.app.create_deployment(context, &self.parent, &self.deployment_id, source, violations).await
    }
}

impl Change for pb::PromoteDeploymentRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        validate::request(&self)?;
        api.app.promote_deployment(context, &self.name, &self.environment).await
    }
}

impl Change for pb::RepairProjectRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        validate::request(&self)?;
        api.app.repair_project(context, &self.name).await
    }
}

impl Change for pb::DeleteOrphanRequest {
    async fn hand_on(self, api: &Api, context: &ChangeContext) -> Result<Answer> {
        validate::request(&self)?;
        api.app.delete_orphan(context, &self.parent, &self.driver_id, &self.external_id).await
    }
}

impl Api {
    /// Answers a request that comes by itself.
    pub(super) async fn change<R: Change>(&self, request: Request<R>) -> Answered<Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let context = input::context(permit, &request);
        let answer = request.hand_on(self, &context).await;
        self.begun(&context, answer).await
    }

    /// Hands on what a plan is about, for the request that speaks of the plan.
    pub(super) async fn intended(
        &self,
        context: &ChangeContext,
        goal: Goal,
        intent: pb::plan::Intent,
    ) -> Result<Answer> {
        let Some(intent) = intent.request else {
            return Err(Problem::internal("a plan of nothing").into());
        };
        macro_rules! hand_on {
            ($($kind:ident),+) => {
                match intent {
                    $(Intended::$kind(request) => self.within(context, goal, request).await,)+
                }
            };
        }
        hand_on!(
            CreateProject,
            DeleteProject,
            CreateEnvironment,
            UpdateEnvironment,
            DeleteEnvironment,
            RunPipeline,
            CreateDeployment,
            PromoteDeployment,
            DeleteOrphan,
            RepairProject
        )
    }

    async fn within<C: Change>(&self, context: &ChangeContext, goal: Goal, request: C) -> Result<Answer> {
        for (field, is_set) in [
            ("request_id", !request.request_id().is_empty()),
            ("validate_only", request.validate_only()),
            ("plan_digest", !request.plan_digest().is_empty()),
        ] {
            if is_set {
                let why = "must be empty in a plan: the requests that speak of the plan have their own";
                return Err(
                    Problem::invalid_field(format!("plan.intent.{field}"), Fault::Unknown, why).into()
                );
            }
        }
        // Of the request that speaks of the plan, about what that is about.
        let context = ChangeContext { action: C::ACTION, goal, ..context.clone() };
        self.app.admit(&context, &named(&request)?).await?;
        request.hand_on(self, &context).await
    }
}

/// What a request names, where the rule of its method says.
fn named<C: Change>(request: &C) -> Result<Named> {
    let rule = governance::rule(C::PATH).ok_or_else(|| Problem::internal("a change without a rule"))?;
    let message = convert::to_dynamic(request).map_err(Problem::internal)?;
    let text = |path: &str| governance::text_at(&message, path).unwrap_or_default();
    Ok(Named { resource: text(&rule.resource), owner: text(&rule.owner) })
}

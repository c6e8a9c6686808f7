//! Plans that are kept before they are carried out.

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan::intent::Request;
use pavior_resource::ListQuery;
use pavior_rpc::{ErrorReason, Problem};
use pavior_store::idempotency;
use prost::Message as _;

use super::{Answer, App, ChangeContext, Goal, Readable};
use crate::domain::names::{self, Parent};
use crate::domain::plan::Plan;
use crate::error::{Error, Result};
use crate::store::{NewPlan, Page, StoredPlan};

/// A plan that was kept, or was made for a request at once.
#[derive(Debug)]
pub(crate) struct KeptPlan {
    pub(crate) plan: Plan,
    /// What it is about; nothing where it was made for a request at once.
    pub(crate) intent: Option<pb::plan::Intent>,
    /// The operation that carries it out, if any does.
    operation: Option<String>,
}

impl KeptPlan {
    fn read(StoredPlan { plan, intent, operation }: StoredPlan) -> Result<Self> {
        let intent = match intent.as_slice() {
            [] => None,
            bytes => Some(
                pb::plan::Intent::decode(bytes)
                    .map_err(|_| Error::Corrupt("the intent of a plan".to_owned()))?,
            ),
        };
        Ok(Self { plan, intent, operation })
    }
}

impl Readable for KeptPlan {
    const PATTERN: &'static str = names::PLAN;

    async fn get(app: &App, permit: &Permit, name: &ResourceName) -> Result<Self> {
        Self::read(app.db.kept_plan(permit, name.as_str()).await?)
    }

    async fn list(app: &App, permit: &Permit, _: &Parent, query: &ListQuery) -> Result<Page<Self>> {
        let page = app.db.plans_page(permit, query).await?;
        page.of(async |plans: Vec<StoredPlan>| plans.into_iter().map(Self::read).collect()).await
    }
}

impl App {
    /// The plan that answered the same request before.
    pub(crate) async fn planned_before(&self, context: &ChangeContext) -> Result<Option<KeptPlan>> {
        let Some((key, hash)) = Self::plan_key(context) else { return Ok(None) };
        match self.db.replayed_plan_unscoped(&key, &hash).await? {
            Some(id) => self.kept(&context.permit, id).await.map(Some),
            None => Ok(None),
        }
    }

    fn plan_key(context: &ChangeContext) -> Option<(idempotency::Key, Vec<u8>)> {
        if context.request_id.is_empty() {
            return None;
        }
        let (organization, asker) = (context.permit.organization(), context.permit.principal().asker());
        let key = idempotency::Key::new(organization, &asker, &context.method, &context.request_id);
        Some((key, context.hash.to_vec()))
    }

    async fn kept(&self, permit: &Permit, id: uuid::Uuid) -> Result<KeptPlan> {
        KeptPlan::read(self.db.kept_plan(permit, &names::plan(permit.organization(), &id)).await?)
    }

    /// Keeps a plan that policy would let be carried out.
    pub(super) async fn keep(
        &self,
        context: &ChangeContext,
        plan: Plan,
        intent: &pb::plan::Intent,
    ) -> Result<Answer> {
        let intent = with_ids(intent.clone(), &plan.target).encode_to_vec();
        let (key, request_id) = (Self::plan_key(context), context.request_id.clone());
        let new = NewPlan { plan, intent, key, request_id };
        let id = self.db.keep_plan(&context.permit, new).await?;
        Ok(Answer::Kept(Box::new(self.kept(&context.permit, id).await?)))
    }

    /// A kept plan that is to be carried out, as far as can be told without making it anew, and what it is
    /// about.
    pub(crate) async fn executable(
        &self,
        permit: &Permit,
        name: &str,
        digest: &str,
    ) -> Result<(Goal, pb::plan::Intent)> {
        Self::name(permit, permit.action(), "name", name, names::PLAN)?;
        let KeptPlan { plan, intent, operation } = KeptPlan::read(self.db.kept_plan(permit, name).await?)?;
        // Whatever else could be said of it, it is past that.
        if let Some(operation) = operation {
            return Err(Error::CarriedOut { operation });
        }
        let Some(intent) = intent else {
            let message = "the plan was made for a request at once: plan anew with CreatePlan";
            return Err(Problem::precondition(ErrorReason::InvalidState, message).into());
        };
        if plan.digest != digest {
            return Err(stale(digest, &plan.digest));
        }
        if plan.expire_time < self.db.now() {
            let message = "the plan has expired: plan anew";
            return Err(Problem::precondition(ErrorReason::PlanStale, message).into());
        }
        Ok((Goal::Execute { id: plan.id, author: plan.author }, intent))
    }
}

/// Refuses a plan that is no longer the one that was seen.
pub(super) fn expected(context: &ChangeContext, plan: &Plan) -> Result<()> {
    match context.plan_digest.is_empty() || context.plan_digest == plan.digest {
        true => Ok(()),
        false => Err(stale(&context.plan_digest, &plan.digest)),
    }
}

pub(super) fn stale(expected: &str, found: &str) -> Error {
    let message = "what would be done is no longer what was planned: look at the plan anew";
    let problem = Problem::precondition(ErrorReason::PlanStale, message);
    problem.with("expected", expected).with("found", found).into()
}

/// What is asked, with the ids that the server made: made anew, they would be others.
fn with_ids(mut intent: pb::plan::Intent, target: &str) -> pb::plan::Intent {
    let id = || names::last(target).to_owned();
    match &mut intent.request {
        Some(Request::CreateProject(request)) if request.project_id.is_empty() => request.project_id = id(),
        Some(Request::CreateEnvironment(request)) if request.environment_id.is_empty() => {
            request.environment_id = id();
        }
        _ => {}
    }
    intent
}

impl Goal {
    /// Whether it ends with a plan.
    pub(crate) fn only_plans(&self) -> bool {
        matches!(self, Self::ValidateOnly | Self::Keep(_))
    }
}

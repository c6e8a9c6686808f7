//! Admission of a request that comes within a plan: policy is asked what the gateway asks about one that comes by
//! itself, before anything is looked at for it. Whoever may not ask learns nothing of what there is.

use pavior_core::ResourceName;
use pavior_proto::pavior::policy::internal::v1::{DecisionContext, DecisionStage};
use pavior_proto::pavior::policy::v1::{Decision, Effect};
use pavior_rpc::problem::reason_name;
use pavior_rpc::{Problem, convert};

use super::decision::denial_of;
use super::peers::Asking;
use super::{App, ChangeContext};
use crate::error::{Error, Result};
use crate::store::{Refusal, refused_event};

/// Pattern of a group.
const GROUP: &str = "organizations/{organization}/groups/{group}";

/// What a request names, as its method's rule says where.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// What it is about, by resource name.
    pub(crate) resource: String,
    /// The group that is to own what is made; empty for none.
    pub(crate) owner: String,
}

impl App {
    /// Refuses a request whose caller may not make it by itself, and records that.
    pub(crate) async fn admit(&self, context: &ChangeContext, named: &Named) -> Result<()> {
        // What is no name, or no group, is told by the request's own checks, before anything is looked at.
        let Ok(name) = ResourceName::parse(&named.resource) else { return Ok(()) };
        let organization = format!("organizations/{}", context.permit.organization());
        if name.organization() != context.permit.organization() {
            let problem = Problem::permission_denied(context.action, &named.resource);
            // In the log of the caller's own organization: nobody writes into the logs of others, or makes new ones.
            return Err(self.refused(context, named, &organization, &Decision::default(), problem).await);
        }
        // Policy knows groups of the organization only; what else stands there is refused by the request's own checks.
        let is_group = ResourceName::parse_as(&named.owner, GROUP)
            .is_ok_and(|group| group.organization() == context.permit.organization());
        let facts = self.facts(&context.permit, &named.resource).await?;
        let decided_on = DecisionContext {
            environment_class: facts.environment_class.clone(),
            new_owner: if is_group { named.owner.clone() } else { String::new() },
            ..Default::default()
        };
        let asking = Asking {
            principal: context.permit.principal().clone(),
            organization: context.permit.organization().to_owned(),
            stage: DecisionStage::Admission,
            approval: String::new(),
            dry_run: false,
        };
        let decisions =
            self.peers.decide(asking, vec![(context.action.to_owned(), facts, decided_on)]).await?;
        let Some(decision) = decisions.first() else {
            let problem = Problem::unavailable("policy gave no answer");
            return Err(problem.with("dependency", "policy").into());
        };
        match decision.effect() {
            // What needs people waits for its plan.
            Effect::Allow | Effect::RequireApproval => Ok(()),
            Effect::Unspecified => {
                tracing::error!(action = context.action, "policy gave a decision without an effect");
                let problem = Problem::unavailable("policy gave no answer");
                Err(problem.with("dependency", "policy").into())
            }
            Effect::Deny => {
                let problem = denial_of(decision, context.action, &named.resource);
                Err(self.refused(context, named, &named.resource, decision, problem).await)
            }
        }
    }

    /// Records a refusal with `target` as what it is about.
    async fn refused(
        &self,
        context: &ChangeContext,
        named: &Named,
        target: &str,
        decision: &Decision,
        problem: Problem,
    ) -> Error {
        let ChangeContext { permit, request_id, action, .. } = context;
        let decision = match convert::to_json(decision) {
            Ok(decision) => decision,
            Err(error) => return Error::Corrupt(error.to_string()),
        };
        let refusal = Refusal { action, target, asked: &named.resource, reason: reason_name(problem.reason) };
        let event = refused_event(&self.db, permit, request_id, &refusal, &decision);
        match self.db.record_unscoped(event).await {
            Ok(()) => problem.into(),
            Err(error) => error,
        }
    }
}

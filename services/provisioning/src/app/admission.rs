//! Admission of a request that comes within a plan: policy is asked what the gateway asks about one that comes by
//! itself, before anything is looked at for it. Whoever may not ask learns nothing of what there is.

use pavior_core::ResourceName;
use pavior_proto::pavior::policy::internal::v1::{DecisionContext, DecisionStage};
use pavior_proto::pavior::policy::v1::{Decision, Effect};
use pavior_rpc::{Problem, convert};

use super::asking::denial_of;
use super::peers::Asking;
use super::{App, Ask, Goal};
use crate::error::{Error, Result};
use crate::store::refused_event;

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
    pub(crate) async fn admit(&self, ask: &Ask, named: &Named) -> Result<()> {
        // What is no name, or no group, is told by the request's own checks, before anything is looked at.
        let Ok(name) = ResourceName::parse(&named.resource) else { return Ok(()) };
        if name.organization() != ask.permit.organization() {
            let problem = Problem::permission_denied(ask.action, &named.resource);
            return Err(self.refused(ask, named, &Decision::default(), problem).await);
        }
        let facts = self.facts(&ask.permit, &named.resource).await?;
        let context = DecisionContext {
            environment_class: facts.environment_class.clone(),
            new_owner: named.owner.clone(),
            ..Default::default()
        };
        let asking = Asking {
            principal: ask.permit.principal().clone(),
            organization: ask.permit.organization().to_owned(),
            stage: DecisionStage::Admission,
            approval: String::new(),
            dry_run: ask.goal == Goal::Look,
        };
        let decisions = self.peers.decide(asking, vec![(ask.action.to_owned(), facts, context)]).await?;
        let Some(decision) = decisions.first() else {
            let problem = Problem::unavailable("policy gave no answer");
            return Err(problem.with("dependency", "policy").into());
        };
        match decision.effect() {
            // What needs people waits for its plan.
            Effect::Allow | Effect::RequireApproval => Ok(()),
            Effect::Deny | Effect::Unspecified => {
                let problem = denial_of(decision, ask.action, &named.resource);
                Err(self.refused(ask, named, decision, problem).await)
            }
        }
    }

    async fn refused(&self, ask: &Ask, named: &Named, decision: &Decision, problem: Problem) -> Error {
        let Ask { permit, request_id, action, .. } = ask;
        let decision = match convert::to_json(decision) {
            Ok(decision) => decision,
            Err(error) => return Error::Corrupt(error.to_string()),
        };
        let event = refused_event(&self.db, permit, request_id, action, &named.resource, &decision);
        match self.db.record(event).await {
            Ok(()) => problem.into(),
            Err(error) => error,
        }
    }
}

//! Decisions.

use std::sync::Arc;

use pavior_core::digest::{canonical_json, sha256_digest};
use pavior_core::resource::Stored;
use pavior_relay::known_to_fit;
use pavior_resource::Rules;
use pavior_rpc::Problem;
use serde_json::json;

use super::App;
use crate::domain::approval::{Requirement, State};
use crate::domain::combine::{Effect, Needed, Outcome};
use crate::domain::decision::DecisionFields;
use crate::domain::directory::{Copy, Directory};
use crate::domain::engine::Compilation;
use crate::domain::input::{GivenApproval, GroupRef, Input, Stage};
use crate::error::Error;
use crate::store;

/// Actions to be checked, or those of them that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActionSelection {
    /// Actions without a plan: guardrails are evaluated too.
    pub(crate) actions: Vec<String>,
    /// Actions that make a plan, about which guardrails are evaluated later.
    pub(crate) planned: Vec<String>,
}

/// A decoded request for a decision. The groups are taken from the directory.
#[derive(Debug, Clone)]
pub(crate) struct DecisionRequest {
    /// The input, without groups.
    pub(crate) input: Input,
    /// The id of the approval that the caller named.
    pub(crate) approval: Option<String>,
    /// True for a decision that is not recorded.
    pub(crate) dry_run: bool,
}

impl Rules for DecisionFields {
    type Service = App;
}

impl App {
    /// Decides and records the decision, unless it only allows a read.
    pub(crate) async fn decide(&self, request: DecisionRequest) -> Result<Stored<DecisionFields>, Error> {
        let DecisionRequest { mut input, approval, dry_run } = request;
        let mut directory = self.directories.get(&input.organization).await?;
        let compilation = self.prepare(&mut input, &directory).await?;
        let given = match &approval {
            Some(id) => self.given_approval(&input.organization, id).await?,
            None => None,
        };
        let mut outcome = compilation.decide(&input, given.as_ref());
        // A denial is checked against the current directory: the principal may just have been made a member. It stands if
        // the catalog does not answer.
        if outcome.effect == Effect::Deny
            && let Ok(current) = self.directories.current(&input.organization).await
            && current.revision != directory.revision
        {
            directory = current;
            let compilation = self.prepare(&mut input, &directory).await?;
            outcome = compilation.decide(&input, given.as_ref());
        }
        if outcome.effect != Effect::Deny && self.changes(&input.action) {
            self.refuse_outdated(&directory)?;
        }
        self.metrics.count(&outcome);
        let recorded = !dry_run && self.is_recorded(&input, &outcome);
        let fields = DecisionFields {
            input_digest: input_digest(&input, given.as_ref()),
            plan_digest: input.context.plan_digest.clone().unwrap_or_default(),
            policies_digest: compilation.digest.clone(),
            directory_version: directory.revision.clone(),
            ..self.decided(&input, outcome)
        };
        let uid = self.kernel.ids.uuid();
        let now = self.kernel.clock.now();
        let decision = Stored::new(&input.organization, &uid.to_string(), uid, now, fields);
        if recorded {
            self.record_decision(&decision).await?;
        }
        Ok(decision)
    }

    fn changes(&self, action: &str) -> bool {
        self.schema.actions.get(action).is_none_or(|action| action.change)
    }

    /// No change is allowed by what may be an older copy of the policies or of the directory: what forbids it may be missing there,
    /// and rights that were taken away may be there again. What an older copy denies stays denied, and reads go on.
    fn refuse_outdated(&self, directory: &Directory) -> Result<(), Error> {
        known_to_fit(self.kernel.store.history())?;
        match &directory.copy {
            Copy::Current => Ok(()),
            Copy::Older(why) => Err(Error::DirectoryOutdated(why.clone())),
            Copy::Unknown => {
                Err(Problem::unavailable("the catalog has not compared itself with the audit log yet").into())
            }
        }
    }

    /// The fields of a decision, without the digests.
    fn decided(&self, input: &Input, outcome: Outcome) -> DecisionFields {
        let Outcome { effect, reasons, warnings, shadow, approvals, granting_roles, policy_error } = outcome;
        let ttl_seconds = Some(self.config.approval_ttl_seconds);
        let requirements = approvals.into_iter().map(|(group, Needed { quorum, rule_ids })| Requirement {
            group,
            quorum,
            rule_ids: rule_ids.into_iter().collect(),
            ttl_seconds,
        });
        DecisionFields {
            principal: input.principal.name.clone(),
            on_behalf_of: input.principal.on_behalf_of.clone(),
            action: input.action.clone(),
            resource: input.resource.name.clone(),
            stage: input.stage,
            effect,
            reasons,
            warnings,
            shadow,
            requirements: requirements.collect(),
            granting_roles,
            policy_error,
            input_digest: String::new(),
            plan_digest: String::new(),
            policies_digest: String::new(),
            directory_version: String::new(),
        }
    }

    /// Those of the actions that are allowed; of planned ones, those that access allows. The answer is that of the
    /// admission of a call. With it comes why every change is refused now, if so: then none is among them.
    pub(crate) async fn allowed_actions(
        &self,
        mut input: Input,
        ActionSelection { actions, planned }: ActionSelection,
    ) -> Result<(ActionSelection, Option<Error>), Error> {
        let directory = self.directories.current(&input.organization).await?;
        let compilation = self.prepare(&mut input, &directory).await?;
        let refused = self.refuse_outdated(&directory).err();
        input.stage = Stage::Admission;
        let mut allowed = |actions: Vec<String>, plan_follows: bool| {
            input.plan_follows = plan_follows;
            let allows = |action: &String| {
                input.action.clone_from(action);
                let may_be_asked_for = refused.is_none() || !self.changes(action);
                may_be_asked_for && compilation.decide(&input, None).effect == Effect::Allow
            };
            actions.into_iter().filter(allows).collect()
        };
        let selection = ActionSelection { actions: allowed(actions, false), planned: allowed(planned, true) };
        Ok((selection, refused))
    }

    /// Fills in the groups.
    async fn prepare(&self, input: &mut Input, directory: &Directory) -> Result<Arc<Compilation>, Error> {
        let compilation = self.compilations.get(&input.organization).await?;
        // Groups of another organization mean nothing here, even where their ids are the same.
        if input.is_member() {
            let claimed =
                input.principal.groups.iter().map(|group| group.rsplit('/').next().unwrap_or(group));
            input.groups = directory.groups_of(&input.principal.name, claimed);
        }
        for owner in [&mut input.resource.owner, &mut input.context.new_owner].into_iter().flatten() {
            *owner = GroupRef { above: directory.above(&owner.id), id: std::mem::take(&mut owner.id) };
        }
        Ok(compilation)
    }

    async fn given_approval(&self, organization: &str, id: &str) -> Result<Option<GivenApproval>, Error> {
        let permit = self.system_permit(organization);
        let found = store::approval_by_id(self.kernel.store.read(), &permit, id).await?;
        Ok(found.map(|stored| GivenApproval {
            approved: stored.fields.state == State::Approved,
            requirements: stored.fields.quorums(),
            plan_digest: stored.fields.plan_digest,
        }))
    }

    /// Whether a decision is recorded: all but those that only allow a read.
    fn is_recorded(&self, input: &Input, outcome: &Outcome) -> bool {
        let reads = !self.changes(&input.action);
        let plain = outcome.warnings.is_empty() && outcome.shadow.is_empty() && !outcome.policy_error;
        !(reads && plain && outcome.effect == Effect::Allow)
    }

    async fn record_decision(&self, decision: &Stored<DecisionFields>) -> Result<(), Error> {
        let DecisionFields { policy_error, reasons, action, .. } = &decision.fields;
        if *policy_error {
            tracing::error!(organization = decision.organization, action, ?reasons, "POLICY_ERROR");
        }
        let stored = Stored { fields: decision.fields.clone().truncated(), ..decision.clone() };
        if self.decision_log.add(stored).await {
            Ok(())
        } else {
            Err(pavior_rpc::Problem::unavailable("the policy service is shutting down").into())
        }
    }
}

/// SHA-256 over the whole input, `sha256:` and hexadecimal.
fn input_digest(input: &Input, approval: Option<&GivenApproval>) -> String {
    let Input { organization, principal, groups, action, resource, stage, plan_follows, context } = input;
    let group = |group: &Option<GroupRef>| group.as_ref().map(|group| json!([group.id, group.above]));
    let everything = json!({
        "organization": organization,
        "principal": {
            "kind": principal.kind.as_str(),
            "name": principal.name,
            "organization": principal.organization,
            "email": principal.email,
            "installation_operator": principal.installation_operator,
            "on_behalf_of": principal.on_behalf_of,
        },
        "groups": groups,
        "action": action,
        "resource": {
            "name": resource.name,
            "exists": resource.exists,
            "type": resource.kind,
            "owner": group(&resource.owner),
            "project": resource.project,
            "environment_class_id": resource.environment_class_id,
            "labels": resource.labels,
        },
        "stage": stage.as_str(),
        "plan_follows": plan_follows,
        "context": {
            "environment_class_id": context.environment_class_id,
            "template": context.template,
            "template_version": context.template_version,
            "parameters": context.parameters,
            "counts": [context.create_count, context.update_count, context.replace_count, context.delete_count],
            "resource_types": context.resource_types,
            "new_owner": group(&context.new_owner),
            "moves_owner": context.moves_owner,
            "labels": context.labels,
            "changes_labels": context.changes_labels,
            "plan_digest": context.plan_digest,
        },
        "approval": approval.map(|given| json!([given.approved, given.plan_digest, given.requirements])),
    });
    sha256_digest(&canonical_json(&everything))
}

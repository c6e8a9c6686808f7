//! Decisions on the wire.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::principal::INSTALLATION;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::shape::{Request as _, Resource as _};
use pavior_resource::{
    Answer, Error as ResourceError, Scope, Service as _, Wire, close, crud, list_query, open_page, parse,
    read_request, respond,
};
use pavior_rpc::Problem;
use pavior_rpc::convert::to_timestamp;
use tonic::Request;

use super::Api;
use super::approval::encode_requirement;
use super::policy::encode_type;
use crate::app::App;
use crate::domain::annotation::Level;
use crate::domain::combine::{Effect, Reason};
use crate::domain::decision::{DecisionFields, decision_name};
use crate::domain::input::Stage;

impl Wire for DecisionFields {
    type Message = pb::Decision;

    /// A decision as its caller sees it: without matches in shadow mode.
    fn encode(decision: &Stored<Self>) -> pb::Decision {
        let Self {
            principal,
            on_behalf_of,
            action,
            resource,
            stage,
            effect,
            reasons,
            warnings,
            shadow: _,
            requirements,
            granting_roles,
            policy_error: _,
            input_digest,
            plan_digest,
            policies_digest,
            directory_version,
        } = decision.fields.clone();
        let effect = match effect {
            Effect::Allow => pb::Effect::Allow,
            Effect::RequireApproval => pb::Effect::RequireApproval,
            Effect::Deny => pb::Effect::Deny,
        };
        let stage = match stage {
            Stage::Admission => pb::decision::Stage::Admission,
            Stage::Plan => pb::decision::Stage::Plan,
            Stage::Execution => pb::decision::Stage::Execution,
        };
        let organization = &decision.organization;
        pb::Decision {
            name: decision.name(),
            effect: effect.into(),
            reasons: reasons.into_iter().map(encode_reason).collect(),
            warnings: warnings.into_iter().map(encode_reason).collect(),
            requirements: requirements.into_iter().map(|one| encode_requirement(organization, one)).collect(),
            granting_roles,
            input_digest,
            policies_digest,
            directory_version,
            plan_digest,
            create_time: Some(to_timestamp(decision.create_time)),
            principal,
            on_behalf_of: on_behalf_of.unwrap_or_default(),
            action,
            resource,
            stage: stage.into(),
            shadow_hits: Vec::new(),
            expire_time: None,
        }
    }

    fn decode(
        _message: &pb::Decision,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        violations.add("", Fault::Conflict, "the service decides, and it is never written otherwise");
        None
    }
}

fn encode_reason(reason: Reason) -> pb::Reason {
    let Reason { rule_id, policy, revision, policy_type, level, message, fix, docs } = reason;
    let level = match level {
        None => pb::reason::Level::Unspecified,
        Some(Level::Advisory) => pb::reason::Level::Advisory,
        Some(Level::Soft) => pb::reason::Level::Soft,
        Some(Level::Hard) => pb::reason::Level::Hard,
    };
    let policy_type = encode_type(policy_type).into();
    pb::Reason { rule_id, policy, policy_type, level: level.into(), message, fix, docs, revision }
}

/// The id in the name of a decision. The parent of decisions about the installation is `organizations/pavior`, which is not
/// an organization.
fn id_of(permit: &Permit, name: &str) -> Result<String, ResourceError> {
    if permit.organization() != INSTALLATION {
        let action = pb::GetDecisionRequest::ACTION;
        return Ok(parse(permit, "name", name, pb::Decision::PATTERN, action)?.id().to_owned());
    }
    match name.strip_prefix(&decision_name(INSTALLATION, "")) {
        Some(id) if !id.contains('/') => Ok(id.to_owned()),
        _ => Err(Problem::invalid_field(
            "name",
            Fault::Pattern,
            format!("must have the form `{}`", pb::Decision::PATTERN),
        )
        .into()),
    }
}

impl Api {
    /// A recorded decision: with matches in shadow mode and the time of its deletion.
    fn encode_recorded(&self, decision: &Stored<DecisionFields>) -> pb::Decision {
        let expire_time = decision.create_time + self.app.config.decision_retention();
        pb::Decision {
            shadow_hits: decision.fields.shadow.iter().cloned().map(encode_reason).collect(),
            expire_time: Some(to_timestamp(expire_time)),
            ..DecisionFields::encode(decision)
        }
    }

    pub(super) async fn decision(&self, request: Request<pb::GetDecisionRequest>) -> Answer<pb::Decision> {
        let (permit, request) = read_request(request)?;
        let found = async {
            let id = id_of(&permit, &request.name)?;
            crud::get::<DecisionFields>(&self.app, &permit, "", &id, &request.name).await
        };
        respond(found.await.map(|decision| self.encode_recorded(&decision)))
    }

    pub(super) async fn page_of_decisions(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Answer<pb::ListDecisionsResponse> {
        type List = pb::ListDecisionsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            if permit.organization() != INSTALLATION
                || request.parent != format!("organizations/{INSTALLATION}")
            {
                parse(&permit, "parent", &request.parent, "organizations/{organization}", List::ACTION)?;
            }
            let page = open_page(&kernel.tokens, &request)?;
            let query = list_query(&request, Some(String::new()), &page)?;
            let listing = crud::list::<DecisionFields>(&self.app, &permit, &query).await?;
            let rows =
                listing.rows.iter().map(|row| self.encode_recorded(row)).zip(listing.positions).collect();
            close::<List>(kernel, &page, rows, listing.total)
        };
        respond(listed.await)
    }
}

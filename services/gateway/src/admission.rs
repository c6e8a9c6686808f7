//! Whether a call may go on: the tenant's border, facts from the owner, policy's decision. Fails closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pavior_auth::{Peer, ServiceIdentity};
use pavior_core::Fault;
use pavior_core::audit::DecisionRef;
use pavior_core::name::ResourceName;
use pavior_core::principal::{Principal, PrincipalKind};
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_client::ResourceFactsServiceClient;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, OwnerChange, ResourceFacts};
use pavior_proto::pavior::policy::internal::v1::decision_service_client::DecisionServiceClient;
use pavior_proto::pavior::policy::internal::v1::{DecideRequest, DecisionContext, DecisionStage};
use pavior_proto::pavior::policy::v1::{Decision, Effect};
use pavior_proto::pavior::r#type::v1 as pb;
use pavior_rpc::facts::fingerprint;
use pavior_rpc::problem::{ErrorReason, FieldViolation, Problem};
use pavior_rpc::{RequestContext, context, validate};
use tonic::{Code, Status};

use crate::after::{After, USER};
use crate::denied_status::{Denial, Refused, access_denied, denied, reference, unapproved};
use crate::field;
use crate::resource::Resource;
use crate::routes::{Method, Target};

/// In so many ways a call may change owners; each is a question to policy.
const MAX_OWNER_CHANGES: usize = 200;
/// What the client layers keep back of a deadline for the way home, and a moment more.
const DEADLINE_MARGIN: Duration = Duration::from_millis(10);

/// A caller and until when its credential is good.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Arc<Principal>,
    /// Seconds since 1970; `None` for calls that the gateway makes for a caller within one request.
    pub(crate) expires_at: Option<i64>,
}

/// A call that may go on.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) resource: Option<Resource>,
    pub(crate) decision: Option<DecisionRef>,
    /// The fingerprint of the facts that were decided on; empty where there were none.
    pub(crate) facts: String,
}

/// The name that policy decides on: a singleton has none of its own.
fn governed_name<'a>(name: &'a str, method: &Method) -> Result<&'a str, String> {
    let Some(singleton) = &method.singleton else { return Ok(name) };
    let parent = name.strip_suffix(singleton.as_str()).and_then(|rest| rest.strip_suffix('/'));
    parent.ok_or_else(|| {
        let forms: Vec<String> =
            method.patterns.iter().map(|parent| format!("`{parent}/{singleton}`")).collect();
        format!("must have the form {}", forms.join(" or "))
    })
}

/// Who is asked before a call goes on.
pub(crate) struct Admission {
    pub(crate) identity: ServiceIdentity,
    pub(crate) decisions: DecisionServiceClient<Peer>,
    /// By role: the services that give facts about their resources.
    pub(crate) owners: HashMap<String, ResourceFactsServiceClient<Peer>>,
    pub(crate) decision_timeout: Duration,
}

impl Admission {
    /// Decides whether `caller` may make the call.
    pub(crate) async fn admit(
        &self,
        caller: &Caller,
        method: &Method,
        message: &Bytes,
    ) -> Result<Admitted, Refused> {
        let resource = match &method.target {
            Target::Caller => return Ok(Admitted { resource: None, decision: None, facts: String::new() }),
            Target::Platform => Resource::installation(),
            Target::Resource(field) => {
                let name =
                    field::string_at(message, &field.numbers).map_err(Problem::from)?.unwrap_or_default();
                governed_name(name, method)
                    .and_then(Resource::governed)
                    .map_err(|problem| Problem::invalid_field(&field.path, Resource::fault(name), problem))?
            }
        };
        let principal = &caller.principal;
        // What is answered to everybody about the platform as a whole holds nothing but what concerns the caller.
        let for_all = method.target == Target::Platform && !method.governed;
        if resource.organization != principal.organization && !principal.installation_operator && !for_all {
            return Err(self.across_the_border(method, &resource));
        }
        if !method.governed {
            return Ok(Admitted { resource: Some(resource), decision: None, facts: String::new() });
        }
        let creates = creation(message, method)?;
        let asks = method.facts || creates.is_some();
        let (facts, mut decided_on) = self.facts(caller, method, message, &resource, asks).await?;
        let creates = creates.filter(|_| !facts.exists);
        let after = After::read(message, method, &resource, &facts, creates.is_some())?;
        if let Some(create) = creates {
            self.admit_creation(caller, method, create, &resource, &after).await?;
        }
        // Each of them is done to many at once, whoever owns them: as if all went from nobody to nobody.
        let nobodys = After::owned_by("", true);
        for action in &method.amounts_to {
            let decision = self.decide(caller, method, action, &resource, facts.clone(), &nobodys).await?;
            followed(action, false, &resource, &decision)?;
        }
        let action = &method.action;
        let decision = self.decide(caller, method, action, &resource, facts, &after).await?;
        let reference = followed(action, method.plan_follows, &resource, &decision)
            .map_err(|refused| naming_owner(refused, method, after.new_owner))?;
        if method.owners_within {
            decided_on = self.admit_within(caller, method, message, &resource).await?;
        }
        Ok(Admitted { resource: Some(resource), decision: Some(reference), facts: decided_on })
    }

    /// Decides on an update that would make the resource, as if it was made by the method for that.
    async fn admit_creation(
        &self,
        caller: &Caller,
        method: &Method,
        create: &Method,
        resource: &Resource,
        after: &After<'_>,
    ) -> Result<(), Refused> {
        let action = &create.action;
        let parent = resource.parent().map_err(Problem::internal)?;
        let decision = self.decide(caller, create, action, &parent, named(create, &parent), after).await?;
        followed(action, create.plan_follows, &parent, &decision)
            .map(drop)
            .map_err(|refused| naming_owner(refused, method, after.new_owner))
    }

    /// Decides on what the call does to owners, as if each was done by a call of its own. Returns the fingerprint of
    /// that.
    async fn admit_within(
        &self,
        caller: &Caller,
        method: &Method,
        message: &Bytes,
        resource: &Resource,
    ) -> Result<String, Refused> {
        let ask = GetResourceFactsRequest { message: message.to_vec(), ..about(resource) };
        let ask = Self::asked_for(caller, method, message, ask)?;
        let facts = match self.facts_of(&caller.principal, &method.role, resource, ask).await {
            Ok(facts) => facts,
            // What is wrong with the request is told as the call itself would tell it.
            Err(status) if matches!(status.code(), Code::InvalidArgument | Code::NotFound) => {
                return Err(Refused { status, denial: None });
            }
            Err(status) => {
                tracing::warn!(role = method.role, code = ?status.code(), "no owners, the call is refused");
                return Err(unanswered(&status).into());
            }
        };
        if facts.owner_changes.len() > MAX_OWNER_CHANGES {
            let found = facts.owner_changes.len();
            let text =
                format!("changes owners in {found} ways, more than {MAX_OWNER_CHANGES}: do it in parts");
            return Err(Problem::invalid_field("", Fault::TooMany, text).into());
        }
        let decided_on = fingerprint(&facts);
        for OwnerChange { action, r#type, owner, new_owner, moves } in facts.owner_changes {
            let facts = ResourceFacts {
                name: resource.name.clone(),
                exists: true,
                r#type,
                owner,
                ..Default::default()
            };
            let after = After::owned_by(&new_owner, moves);
            let decision = self.decide(caller, method, &action, resource, facts, &after).await?;
            followed(&action, false, resource, &decision)?;
        }
        Ok(decided_on)
    }

    /// The answer is the same as policy's own, so that nobody learns which organizations there are.
    fn across_the_border(&self, method: &Method, resource: &Resource) -> Refused {
        let problem = access_denied(&method.action, &resource.name, "");
        let denial = Denial { resource: resource.name.clone(), decision: None };
        Refused { status: problem.into(), denial: Some(denial) }
    }

    /// The facts to decide on, and the fingerprint of those that the resource's service told, if it was asked.
    async fn facts(
        &self,
        caller: &Caller,
        method: &Method,
        message: &Bytes,
        resource: &Resource,
        asks: bool,
    ) -> Result<(ResourceFacts, String), Refused> {
        if !asks || *resource == Resource::installation() {
            return Ok((named(method, resource), String::new()));
        }
        let ask = Self::asked_for(caller, method, message, about(resource))?;
        match self.facts_of(&caller.principal, &method.role, resource, ask).await {
            Ok(facts) => {
                let decided_on = fingerprint(&facts);
                // What a user owns is nobody's to policy, which knows groups only.
                let is_users = ResourceName::parse_as(&facts.owner, USER).is_ok();
                let owner = if is_users { String::new() } else { facts.owner };
                Ok((ResourceFacts { owner, ..facts }, decided_on))
            }
            // The name is all that was asked about: its owner says that it has no such resources.
            Err(status) if status.code() == Code::InvalidArgument => {
                let path = method.resource().map_or("", |field| field.path.as_str());
                let what = match method.patterns.as_slice() {
                    [] => "is not the name of a resource of this method".to_owned(),
                    patterns => format!("must have the form `{}`", patterns.join("` or `")),
                };
                Err(Problem::invalid_field(path, Fault::Pattern, what).into())
            }
            Err(status) => {
                tracing::warn!(role = method.role, code = ?status.code(), "no facts, the call is refused");
                Err(unanswered(&status).into())
            }
        }
    }

    /// A question that says for whom and for which change it is asked.
    fn asked_for(
        caller: &Caller,
        method: &Method,
        message: &Bytes,
        ask: GetResourceFactsRequest,
    ) -> Result<GetResourceFactsRequest, Problem> {
        Ok(GetResourceFactsRequest {
            request_id: repeated(message, method)?.unwrap_or_default().to_owned(),
            method: method.path.clone(),
            principal: caller.principal.asker(),
            ..ask
        })
    }

    /// Asks the owner of a resource about it.
    pub(crate) async fn facts_of(
        &self,
        principal: &Arc<Principal>,
        role: &str,
        resource: &Resource,
        ask: GetResourceFactsRequest,
    ) -> Result<ResourceFacts, Status> {
        let Some(mut owner) = self.owners.get(role).cloned() else {
            return Err(Problem::internal(format!("no upstream for role `{role}`")).into());
        };
        let mut request = self.identity.request_as(principal, &resource.organization, ask);
        request.set_timeout(self.decision_timeout);
        Ok(owner.get_resource_facts(request).await?.into_inner())
    }

    async fn decide(
        &self,
        caller: &Caller,
        method: &Method,
        action: &str,
        resource: &Resource,
        facts: ResourceFacts,
        after: &After<'_>,
    ) -> Result<Decision, Refused> {
        let context = DecisionContext {
            environment_class: facts.environment_class.clone(),
            new_owner: after.new_owner.to_owned(),
            moves_owner: after.moves_owner,
            labels: after.labels.clone(),
            changes_labels: after.changes_labels,
            ..Default::default()
        };
        well_formed(method, &context)?;
        let request = DecideRequest {
            organization: resource.organization_name(),
            principal: Some(principal_to_pb(&caller.principal)),
            action: action.to_owned(),
            resource: Some(facts),
            stage: DecisionStage::Admission.into(),
            plan_follows: method.plan_follows,
            context: Some(context),
            approval: String::new(),
            dry_run: false,
        };
        let mut request = self.identity.request_as(&caller.principal, &resource.organization, request);
        request.set_timeout(self.decision_timeout);
        match self.decisions.clone().decide(request).await {
            Ok(decision) => Ok(decision.into_inner()),
            Err(status) => {
                let (code, error) = (status.code(), status.message());
                tracing::warn!(?code, error, action, "no decision, the call is refused");
                Err(unanswered(&status).into())
            }
        }
    }
}

/// Policy is asked about labels only that it can be asked about: the caller is told about the field of its own request.
fn well_formed(method: &Method, context: &DecisionContext) -> Result<(), Problem> {
    let Some(field) = &method.labels else { return Ok(()) };
    let of_labels = |mut violation: FieldViolation| {
        violation.field = format!("{}{}", field.path, violation.field.strip_prefix("labels")?);
        Some(violation)
    };
    let wrong: Vec<_> = validate::violations(context)?.into_vec().into_iter().filter_map(of_labels).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(wrong)) }
}

/// What is known of a resource by its name alone.
fn named(method: &Method, resource: &Resource) -> ResourceFacts {
    ResourceFacts {
        name: resource.name.clone(),
        r#type: method.resource_type.clone(),
        project: resource.project(),
        ..Default::default()
    }
}

/// What a decision leads to: the call may go on under it, or is refused.
#[allow(clippy::result_large_err)]
fn followed(
    action: &str,
    plan_follows: bool,
    resource: &Resource,
    decision: &Decision,
) -> Result<DecisionRef, Refused> {
    let reference = reference(decision);
    match decision.effect() {
        Effect::Allow => Ok(reference),
        Effect::RequireApproval if plan_follows => Ok(reference),
        Effect::RequireApproval => Err(unapproved(action, resource, decision, reference)),
        Effect::Deny => Err(denied(action, resource, decision, reference)),
        Effect::Unspecified => {
            tracing::error!(action, "policy gave a decision without an effect");
            Err(closed().into())
        }
    }
}

/// The method that makes what an update asks to be made where it is not there.
fn creation<'m>(message: &Bytes, method: &'m Method) -> Result<Option<&'m Method>, Problem> {
    let Some(creates) = &method.creates else { return Ok(None) };
    let asked = field::flag_at(message, creates.allow_missing)?;
    Ok(asked.then_some(&*creates.method))
}

/// A question about a resource as it is now.
pub(crate) fn about(resource: &Resource) -> GetResourceFactsRequest {
    GetResourceFactsRequest { name: resource.concrete().to_owned(), ..Default::default() }
}

/// The request id of a change, if it may be a repetition: what only validates is answered anew each time, and what is
/// not an id is refused by the service.
fn repeated<'a>(message: &'a Bytes, method: &Method) -> Result<Option<&'a str>, Problem> {
    let Some(fields) = &method.repeatable else { return Ok(None) };
    let validates = fields.validate_only.map(|number| field::flag_at(message, number)).transpose();
    let id = field::string_at(message, &[fields.request_id])?;
    let once = validates?.unwrap_or_default();
    Ok(id.filter(|id| !once && validate::is_uuid4(id.as_bytes())))
}

/// Policy or facts cannot be had: not a no, but not a yes either (gRFC A54: their codes are not the caller's).
/// Nobody to blame but the caller's own deadline when that is what has passed; trying again at once would not help.
fn unanswered(status: &Status) -> Problem {
    let decoded = pavior_rpc::problem::from_status(status);
    if decoded.is(ErrorReason::RestoreNeeded) {
        return Problem::restore_needed(status.message());
    }
    let left = context::with_current(|context| context.and_then(RequestContext::remaining));
    let late = matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled);
    match late && left.is_some_and(|left| left <= DEADLINE_MARGIN) {
        true => Problem::deadline_exceeded(),
        false => closed(),
    }
}

fn closed() -> Problem {
    Problem::unavailable("the decision about this call cannot be had now")
}

/// A *no* to a call that gives something to a group was said about that group, too: it is named as it was asked for,
/// which tells nothing of whether there is one.
fn naming_owner(refused: Refused, method: &Method, owner: &str) -> Refused {
    let Refused { status, denial } = refused;
    let field = method.owner.as_ref().filter(|_| !owner.is_empty());
    let decoded = pavior_rpc::problem::from_status(&status);
    let (Some(field), true) = (field, decoded.is(ErrorReason::AccessDenied)) else {
        return Refused { status, denial };
    };
    let text = format!(
        "{}. It was asked with `{}` = `{}`: whoever makes or gives something to a group must be allowed to for that group.",
        status.message().trim_end_matches('.'),
        field.path,
        owner
    );
    let problem = Problem::new(Code::PermissionDenied, ErrorReason::AccessDenied, text);
    let problem = decoded.metadata.iter().fold(problem, |problem, (key, value)| problem.with(key, value));
    Refused { status: problem.with("field", field.path.as_str()).into(), denial }
}

/// A principal as policy gets it.
pub(crate) fn principal_to_pb(principal: &Principal) -> pb::Principal {
    let Principal {
        kind,
        name,
        organization,
        subject,
        groups,
        email,
        display_name,
        installation_operator,
        on_behalf_of,
    } = principal;
    let kind = match kind {
        PrincipalKind::User => pb::principal::Kind::User,
        PrincipalKind::Service => pb::principal::Kind::Service,
        PrincipalKind::ServiceAccount => pb::principal::Kind::ServiceAccount,
        PrincipalKind::Agent => pb::principal::Kind::Agent,
    };
    pb::Principal {
        kind: kind.into(),
        name: name.clone(),
        organization_id: organization.clone(),
        subject: subject.clone(),
        group_ids: groups.clone(),
        email: email.clone().unwrap_or_default(),
        display_name: display_name.clone().unwrap_or_default(),
        installation_operator: *installation_operator,
        on_behalf_of: on_behalf_of.clone().unwrap_or_default(),
    }
}

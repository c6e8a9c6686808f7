//! Calls to catalog and policy. Their codes say nothing about the caller's request, so they never pass unchanged.

use std::sync::Arc;

use futures::future::join_all;
use pavior_auth::{Permit, ServiceIdentity};
use pavior_core::principal::{Principal, PrincipalKind};
use pavior_driver::CallContext;
use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::internal::v1::registration_service_client::RegistrationServiceClient;
use pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient;
use pavior_proto::pavior::catalog::v1::resource_type_service_client::ResourceTypeServiceClient;
use pavior_proto::pavior::catalog::v1::template_service_client::TemplateServiceClient;
use pavior_proto::pavior::catalog::v1::{self as catalog, match_resource_definitions_request::Context};
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::internal::v1::DecisionStage;
use pavior_proto::pavior::policy::internal::v1::decision_service_client::DecisionServiceClient;
use pavior_proto::pavior::policy::internal::v1::operation_approval_service_client::OperationApprovalServiceClient;
use pavior_proto::pavior::policy::v1::{self as policy};
use pavior_proto::pavior::r#type::v1 as types;
use pavior_rpc::problem::from_status;
use pavior_rpc::{ErrorReason, Problem, RetrySafe, Transport};
use tonic::Code;

use crate::error::{Error, Result};

/// The services that this one needs.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    identity: ServiceIdentity,
    groups: IdentityServiceClient<Transport>,
    entities: CatalogServiceClient<Transport>,
    registration: RegistrationServiceClient<Transport>,
    templates: TemplateServiceClient<Transport>,
    definitions: ResourceTypeServiceClient<Transport>,
    decisions: DecisionServiceClient<Transport>,
    approvals: OperationApprovalServiceClient<Transport>,
}

/// Most questions that policy answers at once.
const MAX_QUESTIONS: usize = 100;

/// Who asks policy, and why.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) principal: Principal,
    pub(crate) organization: String,
    pub(crate) stage: DecisionStage,
    pub(crate) approval: String,
    pub(crate) dry_run: bool,
}

/// An entity that is to be deleted: by its name, and by what tells it from a later one of that name, as far as it is known.
#[derive(Debug)]
pub(crate) struct Meant {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The key of the call that made it.
    pub(crate) key: String,
}

impl Peers {
    /// Over bare transports; calls are signed here.
    pub(crate) fn new(identity: ServiceIdentity, catalog: Transport, policy: Transport) -> Self {
        let catalog = identity.transport(catalog, "catalog");
        let policy = identity.transport(policy, "policy");
        Self {
            groups: IdentityServiceClient::new(catalog.clone()),
            entities: CatalogServiceClient::new(catalog.clone()),
            registration: RegistrationServiceClient::new(catalog.clone()),
            templates: TemplateServiceClient::new(catalog.clone()),
            definitions: ResourceTypeServiceClient::new(catalog),
            decisions: DecisionServiceClient::new(policy.clone()),
            approvals: OperationApprovalServiceClient::new(policy),
            identity,
        }
    }

    fn request<T>(&self, permit: &Permit, message: T) -> tonic::Request<T> {
        let mut request = self.identity.request(permit, message);
        request.extensions_mut().insert(RetrySafe);
        request
    }

    /// A template version; a channel's name is resolved to the version that it points at.
    pub(crate) async fn template_version(
        &self,
        permit: &Permit,
        name: &str,
    ) -> Result<catalog::TemplateVersion> {
        let message = catalog::GetTemplateVersionRequest { name: name.to_owned(), ..Default::default() };
        let answer = self.templates.clone().get_template_version(self.request(permit, message)).await;
        match answer {
            Ok(version) => Ok(version.into_inner()),
            Err(status) if matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
                let message = format!("template version `{name}` does not exist");
                Err(Problem::precondition(ErrorReason::ReferenceNotFound, message)
                    .because("REFERENCE", name, "name a version or a channel that is published")
                    .into())
            }
            Err(status) => Err(Problem::from_dependency("catalog", &status).into()),
        }
    }

    /// The definitions for several resources, in order.
    pub(crate) async fn matches(
        &self,
        permit: &Permit,
        contexts: Vec<Context>,
    ) -> Result<Vec<catalog::match_resource_definitions_response::Match>> {
        if contexts.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = contexts.len();
        let parent = format!("organizations/{}", permit.organization());
        let message = catalog::MatchResourceDefinitionsRequest { parent, contexts };
        let answer = self.definitions.clone().match_resource_definitions(self.request(permit, message)).await;
        let matches = match answer {
            Ok(answer) => answer.into_inner().matches,
            Err(status) => {
                let told = from_status(&status);
                if !told.is(ErrorReason::AmbiguousDefinition) {
                    return Err(Problem::from_dependency("catalog", &status).into());
                }
                // Definitions that tie are the organization's to mend, so it is told which they are.
                let message = "several resource definitions match what is asked for equally well";
                let mut problem = Problem::precondition(ErrorReason::AmbiguousDefinition, message);
                problem.preconditions = told.preconditions;
                return Err(problem.into());
            }
        };
        if matches.len() != wanted {
            return Err(Problem::internal("catalog answered another number of matches than was asked").into());
        }
        Ok(matches)
    }

    /// Makes the entity of a resource, or brings it up to date.
    pub(crate) async fn register_entity(
        &self,
        permit: &Permit,
        message: registration_pb::RegisterEntityRequest,
    ) -> std::result::Result<catalog::Entity, (Code, String)> {
        let answer = self.registration.clone().register_entity(self.request(permit, message)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// A part of the entities of resources, those of all organizations, in order of their names.
    pub(crate) async fn registered_entities(
        &self,
        permit: &Permit,
        after: String,
        page_size: i32,
    ) -> std::result::Result<Vec<registration_pb::RegisteredEntity>, (Code, String)> {
        let message = registration_pb::ListRegisteredEntitiesRequest { page_size, after };
        let answer = self.registration.clone().list_registered_entities(self.request(permit, message)).await;
        answer
            .map(|answer| answer.into_inner().entities)
            .map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// The entities for whose sake that of a resource is not deleted.
    pub(crate) async fn dependents(
        &self,
        permit: &Permit,
        name: &str,
        uid: &str,
        resource: &str,
    ) -> std::result::Result<Vec<String>, (Code, String)> {
        let message = registration_pb::ListDependentsRequest {
            name: name.to_owned(),
            resource: resource.to_owned(),
            uid: uid.to_owned(),
        };
        let answer = self.registration.clone().list_dependents(self.request(permit, message)).await;
        answer
            .map(|answer| answer.into_inner().entities)
            .map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// Reads an entity.
    pub(crate) async fn get_entity(
        &self,
        permit: &Permit,
        name: &str,
    ) -> std::result::Result<catalog::Entity, (Code, String)> {
        let message = catalog::GetEntityRequest { name: name.to_owned(), ..Default::default() };
        let answer = self.entities.clone().get_entity(self.request(permit, message)).await;
        answer.map(tonic::Response::into_inner).map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// Whether there is a group.
    pub(crate) async fn has_group(&self, permit: &Permit, name: &str) -> Result<bool> {
        let message = identity_pb::GetGroupRequest { name: name.to_owned() };
        match self.groups.clone().get_group(self.request(permit, message)).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(unanswered("group", name, status.code(), status.message())),
        }
    }

    /// Reads an entity that may be gone.
    pub(crate) async fn find_entity(&self, permit: &Permit, name: &str) -> Result<Option<catalog::Entity>> {
        match self.get_entity(permit, name).await {
            Ok(entity) => Ok(Some(entity)),
            Err((Code::NotFound, _)) => Ok(None),
            Err((code, message)) => Err(unanswered("entity", name, code, &message)),
        }
    }

    /// Deletes the entity of a resource, the very one that is meant; one that does not exist is no error.
    pub(crate) async fn unregister_entity(
        &self,
        permit: &Permit,
        Meant { name, uid, key }: Meant,
        context: &CallContext,
    ) -> std::result::Result<(), (Code, String)> {
        let message = registration_pb::UnregisterEntityRequest {
            name,
            uid,
            key,
            resource: context.resource.clone(),
            operation_id: context.operation.clone(),
        };
        let answer = self.registration.clone().unregister_entity(self.request(permit, message)).await;
        answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// One decision for each question (action, resource and context), in order.
    pub(crate) async fn decide(
        &self,
        asking: Asking,
        questions: Vec<(String, ResourceFacts, decision_pb::DecisionContext)>,
    ) -> Result<Vec<policy::Decision>> {
        let Asking { principal, organization, stage, approval, dry_run } = asking;
        // Whom it is about stands in the question; who asks is this service, at execution long after the call ended.
        let permit = Permit::for_system(&self.identity.authority(), &organization);
        let wire = principal_to_wire(&principal);
        let one = |(action, resource, context)| decision_pb::DecideRequest {
            organization: format!("organizations/{organization}"),
            principal: Some(wire.clone()),
            action,
            resource: Some(resource),
            stage: stage.into(),
            plan_follows: stage == DecisionStage::Admission,
            context: Some(context),
            approval: approval.clone(),
            dry_run,
        };
        let mut requests: Vec<decision_pb::DecideRequest> = questions.into_iter().map(one).collect();
        let mut batches = Vec::with_capacity(requests.len().div_ceil(MAX_QUESTIONS));
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(MAX_QUESTIONS));
            batches
                .push(decision_pb::BatchDecideRequest { requests: std::mem::replace(&mut requests, rest) });
        }
        let answers = join_all(batches.into_iter().map(|batch| {
            let mut client = self.decisions.clone();
            let wanted = batch.requests.len();
            let request = self.request(&permit, batch);
            async move { client.batch_decide(request).await.map(|answer| (wanted, answer.into_inner())) }
        }));
        let mut decisions = Vec::new();
        for answer in answers.await {
            let (wanted, answer) =
                answer.map_err(|status| Error::from(Problem::from_dependency("policy", &status)))?;
            if answer.decisions.len() != wanted {
                return Err(
                    Problem::internal("policy answered another number of questions than was asked").into()
                );
            }
            decisions.extend(answer.decisions);
        }
        Ok(decisions)
    }

    /// Asks people; the same operation and plan give the same request.
    pub(crate) async fn create_approval(
        &self,
        principal: &Arc<Principal>,
        organization: &str,
        approval: policy::Approval,
    ) -> Result<policy::Approval> {
        let message = decision_pb::CreateApprovalRequest {
            parent: format!("organizations/{organization}"),
            approval: Some(approval),
            request_id: String::new(),
        };
        let request = self.identity.request_as(principal, organization, message);
        let answer = self.approvals.clone().create_approval(request).await;
        Ok(answer.map_err(|status| Error::from(Problem::from_dependency("policy", &status)))?.into_inner())
    }

    /// Tells people that nobody needs their answer any more.
    pub(crate) async fn cancel_approval(
        &self,
        permit: &Permit,
        name: &str,
        invalidated: bool,
        reason: &str,
    ) -> Result<()> {
        let message = decision_pb::CancelApprovalRequest {
            name: name.to_owned(),
            invalidated,
            reason: reason.to_owned(),
        };
        match self.approvals.clone().cancel_approval(self.request(permit, message)).await {
            Ok(_) => Ok(()),
            // Policy was set back since, or has forgotten it.
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(Problem::from_dependency("policy", &status).into()),
        }
    }

    /// What people have said; nothing when one of them does not exist.
    pub(crate) async fn approvals(
        &self,
        permit: &Permit,
        names: Vec<String>,
    ) -> Result<Option<Vec<policy::Approval>>> {
        let parent = format!("organizations/{}", permit.organization());
        let message = decision_pb::BatchGetApprovalsRequest { parent, names };
        let answer = self.approvals.clone().batch_get_approvals(self.request(permit, message)).await;
        match answer {
            Ok(answer) => Ok(Some(answer.into_inner().approvals)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(Problem::from_dependency("policy", &status).into()),
        }
    }
}

/// A principal as the wire has it.
pub(crate) fn principal_to_wire(principal: &Principal) -> types::Principal {
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
    } = principal.clone();
    let kind = match kind {
        PrincipalKind::User => types::principal::Kind::User,
        PrincipalKind::Service => types::principal::Kind::Service,
        PrincipalKind::ServiceAccount => types::principal::Kind::ServiceAccount,
        PrincipalKind::Agent => types::principal::Kind::Agent,
    };
    types::Principal {
        kind: kind.into(),
        name,
        organization_id: organization,
        subject,
        group_ids: groups,
        email: email.unwrap_or_default(),
        display_name: display_name.unwrap_or_default(),
        installation_operator,
        on_behalf_of: on_behalf_of.unwrap_or_default(),
    }
}

fn unanswered(kind: &str, name: &str, code: Code, message: &str) -> Error {
    tracing::warn!(?code, message, kind, name, "the catalog does not tell what there is");
    Problem::unavailable("the catalog does not answer").with("dependency", "catalog").into()
}

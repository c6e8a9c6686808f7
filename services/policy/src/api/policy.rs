//! Policies on the wire.

use pavior_core::Fault;
use pavior_core::digest::sha256_digest;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, ChangeContext, Error as ResourceError, Scope, Update, Wire, end_times, name, once, respond, times,
};
use pavior_rpc::validate;
use prost::{Message, Name};
use tonic::Request;

use super::Api;
use crate::app::App;
use crate::app::policy::Rollback;
use crate::domain::policy::{PolicyFields, PolicyType};
use crate::domain::policy_revision::policy_revision_name;

/// The type of a policy; `None` if it is unspecified.
pub(super) fn type_of(message: &pb::Policy) -> Option<PolicyType> {
    match message.policy_type() {
        pb::PolicyType::Access => Some(PolicyType::Access),
        pb::PolicyType::Guardrail => Some(PolicyType::Guardrail),
        pb::PolicyType::Unspecified => None,
    }
}

/// The type of a policy on the wire.
pub(super) fn encode_type(kind: PolicyType) -> pb::PolicyType {
    match kind {
        PolicyType::Access => pb::PolicyType::Access,
        PolicyType::Guardrail => pb::PolicyType::Guardrail,
    }
}

impl Wire for PolicyFields {
    type Message = pb::Policy;

    fn encode(stored: &Stored<Self>) -> pb::Policy {
        let Self { display_name, description, kind, source, digest, text_revision } = stored.fields.clone();
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        pb::Policy {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            description,
            policy_type: encode_type(kind).into(),
            source,
            digest,
            delete_time,
            purge_time,
            create_time,
            update_time,
            revision: match stored.ended {
                // They went with it, and numbers begin anew for whatever has its name next.
                Some(_) => String::new(),
                None => policy_revision_name(&stored.organization, &stored.id, text_revision),
            },
        }
    }

    fn decode(
        message: &pb::Policy,
        _scope: &Scope<'_, App>,
        before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let kind = type_of(message);
        if kind.is_none() {
            violations.add(
                "policy_type",
                Fault::Unknown,
                "must be POLICY_TYPE_ACCESS or POLICY_TYPE_GUARDRAIL",
            );
        }
        let (source, digest) = (message.source.clone(), sha256_digest(message.source.as_bytes()));
        let fields = Self {
            display_name: message.display_name.clone(),
            description: message.description.clone(),
            kind: kind?,
            source: before.map_or_else(|| source.clone(), |before| before.source.clone()),
            digest: digest.clone(),
            text_revision: before.map_or(1, |before| before.text_revision),
        };
        Some(fields.with_source(source, digest))
    }
}

impl Api {
    /// Checks the text of a policy before the transaction that writes it, see [`App::check_ahead`].
    pub(super) async fn check_ahead<R: Message + Name>(
        &self,
        request: &Request<R>,
        policy: Option<&pb::Policy>,
    ) {
        if let (Ok(permit), Some(policy)) = (pavior_auth::permit(request), policy)
            && !policy.source.is_empty()
            // A malformed request is refused without a check of the text.
            && validate::request(request.get_ref()).is_ok()
        {
            let id = policy.name.rsplit('/').next().unwrap_or_default();
            self.app.check_ahead(&permit, type_of(policy), id, &policy.source).await;
        }
    }

    pub(super) async fn roll_back(&self, request: Request<pb::RollbackPolicyRequest>) -> Answer<pb::Policy> {
        let (permit, request) = (pavior_auth::permit(&request)?, request.into_inner());
        let context = ChangeContext::of(&permit, &request);
        let rolled = once(&self.app, &context, async {
            validate::request(&request).map_err(ResourceError::from)?;
            let named =
                name::<PolicyFields>(&permit, "name", &request.name, pb::RollbackPolicyRequest::ACTION)?;
            let update =
                Update { parent: String::new(), id: named.id, name: named.name, etag: request.etag.clone() };
            let rollback = Rollback { update, revision: request.revision_id.clone() };
            self.app.roll_back(&context, PolicyFields::encode, rollback).await
        });
        respond(rolled.await)
    }
}

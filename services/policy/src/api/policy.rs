//! Policies on the wire.

use pavior_core::digest::sha256_hex;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::{Scope, Wire, times};

use crate::app::App;
use crate::domain::record::PolicyFields;
use crate::domain::source::SetKind;

/// The set of a policy; nothing where it is not said.
pub(super) fn set_of(message: &pb::Policy) -> Option<SetKind> {
    match message.policy_set() {
        pb::PolicySet::Access => Some(SetKind::Access),
        pb::PolicySet::Guardrail => Some(SetKind::Guardrail),
        pb::PolicySet::Unspecified => None,
    }
}

/// A set as it is shown.
pub(super) fn encode_set(kind: SetKind) -> pb::PolicySet {
    match kind {
        SetKind::Access => pb::PolicySet::Access,
        SetKind::Guardrail => pb::PolicySet::Guardrail,
    }
}

impl Wire for PolicyFields {
    type Message = pb::Policy;

    fn encode(stored: &Stored<Self>) -> pb::Policy {
        let Self { display_name, description, kind, source, digest } = stored.fields.clone();
        let (create_time, update_time) = times(stored);
        pb::Policy {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            description,
            policy_set: encode_set(kind).into(),
            source,
            digest,
            create_time,
            update_time,
        }
    }

    fn decode(
        message: &pb::Policy,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let kind = set_of(message);
        if kind.is_none() {
            violations.add("policy_set", "must be POLICY_SET_ACCESS or POLICY_SET_GUARDRAIL");
        }
        Some(Self {
            display_name: message.display_name.clone(),
            description: message.description.clone(),
            kind: kind?,
            source: message.source.clone(),
            digest: sha256_hex(message.source.as_bytes()),
        })
    }
}

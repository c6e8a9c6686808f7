//! Policy revisions on the wire.

use pavior_core::Fault;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::{Scope, Wire, times};

use super::policy::encode_type;
use crate::app::App;
use crate::domain::policy_revision::PolicyRevisionFields;

impl Wire for PolicyRevisionFields {
    type Message = pb::PolicyRevision;

    fn encode(stored: &Stored<Self>) -> pb::PolicyRevision {
        let Self { policy: _, kind, source, digest, author } = stored.fields.clone();
        let (create_time, _) = times(stored);
        pb::PolicyRevision {
            name: stored.name(),
            uid: stored.uid.to_string(),
            policy_type: encode_type(kind).into(),
            source,
            digest,
            author,
            create_time,
        }
    }

    fn decode(
        _message: &pb::PolicyRevision,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        violations.add("", Fault::Pattern, "it is written with its policy, and never otherwise");
        None
    }
}

//! Memberships on the wire.

use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_resource::{Scope, Wire, end_times, times};

use crate::app::App;
use crate::domain::membership::Source;
use crate::domain::{MembershipFields, Stored, Violations};

impl Wire for MembershipFields {
    type Message = identity_pb::Membership;

    fn encode(stored: &Stored<Self>) -> identity_pb::Membership {
        let (create_time, _) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self { group: _, member, source } = stored.fields.clone();
        let source = match source {
            Source::Api => identity_pb::membership::Source::Api,
            Source::Import { .. } => identity_pb::membership::Source::Import,
        };
        identity_pb::Membership {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            member,
            delete_time,
            purge_time,
            create_time,
            source: source.into(),
        }
    }

    fn decode(
        message: &identity_pb::Membership,
        scope: &Scope<'_, App>,
        _before: Option<&Self>,
        _violations: &mut Violations,
    ) -> Option<Self> {
        let identity_pb::Membership {
            name: _,
            uid: _,
            etag: _,
            member,
            create_time: _,
            delete_time: _,
            purge_time: _,
            source: _,
        } = message;
        Some(Self { group: scope.parent.to_owned(), member: member.clone(), source: Source::Api })
    }
}

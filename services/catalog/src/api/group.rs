//! Groups on the wire.

use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_resource::{Scope, Wire, end_times, id_of, times};

use crate::app::App;
use crate::domain::{GroupFields, Stored, Violations};

impl Wire for GroupFields {
    type Message = identity_pb::Group;

    fn encode(stored: &Stored<Self>) -> identity_pb::Group {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self { display_name, description, parent } = stored.fields.clone();
        let parent_group = parent.map(|id| format!("organizations/{}/groups/{id}", stored.organization));
        identity_pb::Group {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            delete_time,
            purge_time,
            create_time,
            update_time,
            description,
            parent_group: parent_group.unwrap_or_default(),
        }
    }

    fn decode(
        message: &identity_pb::Group,
        scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let identity_pb::Group {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            delete_time: _,
            purge_time: _,
            update_time: _,
            description,
            parent_group,
        } = message;
        let parent = match parent_group.as_str() {
            "" => None,
            name => id_of::<identity_pb::Group>(violations, "parent_group", name, scope.organization),
        };
        Some(Self { display_name: display_name.clone(), description: description.clone(), parent })
    }
}

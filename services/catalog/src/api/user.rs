//! Users on the wire.

use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_resource::{Scope, Wire, end_times, times};

use crate::app::App;
use crate::domain::{Stored, UserFields, Violations};

impl Wire for UserFields {
    type Message = identity_pb::User;

    fn encode(stored: &Stored<Self>) -> identity_pb::User {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self { display_name, email } = stored.fields.clone();
        identity_pb::User {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            delete_time,
            purge_time,
            create_time,
            update_time,
            email,
        }
    }

    fn decode(
        message: &identity_pb::User,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        _violations: &mut Violations,
    ) -> Option<Self> {
        let identity_pb::User {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            delete_time: _,
            purge_time: _,
            update_time: _,
            email,
        } = message;
        Some(Self { display_name: display_name.clone(), email: email.clone() })
    }
}

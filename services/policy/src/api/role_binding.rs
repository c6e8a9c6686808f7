//! Role bindings on the wire.

use pavior_core::Fault;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::provisioning::v1::Project;
use pavior_resource::{Scope, Wire, id_of, times};

use crate::app::App;
use crate::domain::record::{RoleBindingFields, role_name};
use crate::domain::role::{Member, Reach};

impl Wire for RoleBindingFields {
    type Message = pb::RoleBinding;

    fn encode(stored: &Stored<Self>) -> pb::RoleBinding {
        let Self { role, members, project, reach } = &stored.fields;
        let reach = match reach {
            Reach::All => pb::role_binding::Reach::All,
            Reach::Owned => pb::role_binding::Reach::Owned,
        };
        let organization = &stored.organization;
        let (create_time, update_time) = times(stored);
        pb::RoleBinding {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            role: role_name(organization, role),
            members: members.iter().map(|member| member.name(organization)).collect(),
            scope: match project {
                Some(project) => format!("organizations/{organization}/projects/{project}"),
                None => format!("organizations/{organization}"),
            },
            reach: reach.into(),
            create_time,
            update_time,
        }
    }

    fn decode(
        message: &pb::RoleBinding,
        scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let organization = scope.organization;
        let role = id_of::<pb::Role>(violations, "role", &message.role, organization);
        let mut members = Vec::with_capacity(message.members.len());
        for (at, name) in message.members.iter().enumerate() {
            match Member::parse(name, organization) {
                Ok(member) if members.contains(&member) => {}
                Ok(member) => members.push(member),
                Err(text) => violations.add(format!("members.{at}"), Fault::Pattern, text),
            }
        }
        let project = match message.scope.as_str() {
            "" => None,
            name if name == format!("organizations/{organization}") => None,
            name => Some(id_of::<Project>(violations, "scope", name, organization)?),
        };
        let reach = match message.reach() {
            pb::role_binding::Reach::All | pb::role_binding::Reach::Unspecified => Reach::All,
            pb::role_binding::Reach::Owned => Reach::Owned,
        };
        Some(Self { role: role?, members, project, reach })
    }
}

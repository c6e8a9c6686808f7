//! Role bindings on the wire.

use pavior_core::resource::{Stored, Violations};
use pavior_core::{Fault, ResourceName};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::provisioning::v1::Project;
use pavior_proto::shape::Resource as _;
use pavior_resource::{Scope, Wire, end_times, id_of, times};

use crate::app::App;
use crate::domain::role::role_name;
use crate::domain::role_binding::{Member, Reach, RoleBindingFields};

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
        let (delete_time, purge_time) = end_times(stored);
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
            delete_time,
            purge_time,
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
            name => match ResourceName::parse_as(name, Project::PATTERN) {
                Ok(parsed) if parsed.organization() == organization => Some(parsed.id().to_owned()),
                _ => {
                    violations.add("scope", Fault::Pattern, wrong_scope(name, organization));
                    None
                }
            },
        };
        let reach = match message.reach() {
            pb::role_binding::Reach::All | pb::role_binding::Reach::Unspecified => Reach::All,
            pb::role_binding::Reach::Owned => Reach::Owned,
        };
        Some(Self { role: role?, members, project, reach })
    }
}

/// Whether the project exists is not checked: projects belong to provisioning, and a role may be granted before the project
/// is created.
fn wrong_scope(name: &str, organization: &str) -> String {
    let (name, root) = (name.chars().take(100).collect::<String>(), format!("organizations/{organization}"));
    format!("scope `{name}` must be `{root}` or a project of it, for example `{root}/projects/shop`")
}

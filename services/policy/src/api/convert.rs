//! Resources between the wire and the domain.

use pavior_core::digest::sha256_hex;
use pavior_core::{ResourceName, validate_id};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_rpc::{Violations, convert};

use crate::app::codec::{Codec, Decoding, name_of};
use crate::domain::action::Pattern;
use crate::domain::combine::Mode;
use crate::domain::record::{PolicyBindingSpec, PolicySpec, RoleBindingSpec, RoleSpec, Stored};
use crate::domain::role::Member;
use crate::domain::source::SetKind;

const MAX_DISPLAY_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 4_000;
const MAX_ACTIONS: usize = 200;
const MAX_MEMBERS: usize = 1_000;
const MAX_SCOPES: usize = 1_000;

struct Fields<'a, 'b> {
    decoding: Decoding<'a>,
    violations: &'b mut Violations,
}

impl Fields<'_, '_> {
    fn refuse(&mut self, field: &str, text: impl Into<String>) {
        self.violations.add(format!("{}.{field}", self.decoding.path), text);
    }

    fn texts(&mut self, display_name: &str, description: &str) {
        if display_name.len() > MAX_DISPLAY_NAME {
            self.refuse("display_name", format!("is longer than {MAX_DISPLAY_NAME} bytes"));
        }
        if description.len() > MAX_DESCRIPTION {
            self.refuse("description", format!("is longer than {MAX_DESCRIPTION} bytes"));
        }
    }

    /// The id of a resource of the organization, by its name.
    fn reference(&mut self, field: &str, name: &str, collection: &str) -> Option<String> {
        let pattern = format!("organizations/{{organization}}/{collection}/{{id}}");
        match ResourceName::parse_as(name, &pattern) {
            Ok(parsed) if parsed.organization() == self.decoding.organization => {
                return Some(parsed.id().to_owned());
            }
            Ok(_) => self
                .refuse(field, format!("`{name}` is not in `organizations/{}`", self.decoding.organization)),
            Err(error) => self.refuse(field, error.to_string()),
        }
        None
    }

    fn too_many(&mut self, field: &str, count: usize, limit: usize) -> bool {
        if count > limit {
            self.refuse(field, format!("has more than {limit} elements"));
        }
        count > limit
    }
}

impl Codec for RoleSpec {
    type Wire = pb::Role;

    fn encode(stored: &Stored<Self>) -> pb::Role {
        let Stored { uid, organization, id, revision: _, create_time, update_time, spec } = stored;
        let Self { display_name, description, actions } = spec;
        pb::Role {
            name: name_of::<Self>(organization, id),
            uid: uid.to_string(),
            etag: stored.etag(),
            display_name: display_name.clone(),
            description: description.clone(),
            actions: actions.iter().map(ToString::to_string).collect(),
            create_time: Some(convert::to_timestamp(*create_time)),
            update_time: Some(convert::to_timestamp(*update_time)),
        }
    }

    fn decode(wire: &pb::Role, decoding: Decoding<'_>, violations: &mut Violations) -> Option<Self> {
        let mut fields = Fields { decoding, violations };
        fields.texts(&wire.display_name, &wire.description);
        if wire.actions.is_empty() {
            fields.refuse("actions", "must name at least one action");
        }
        if fields.too_many("actions", wire.actions.len(), MAX_ACTIONS) {
            return None;
        }
        let mut actions = Vec::with_capacity(wire.actions.len());
        for (at, text) in wire.actions.iter().enumerate() {
            let field = format!("actions[{at}]");
            match Pattern::parse(text) {
                Err(error) => fields.refuse(&field, error.to_string()),
                Ok(pattern) if decoding.actions.iter().any(|action| pattern.matches(&action.name)) => {
                    if !actions.contains(&pattern) {
                        actions.push(pattern);
                    }
                }
                Ok(_) => fields.refuse(&field, format!("`{text}` stands for no action of this installation")),
            }
        }
        let (display_name, description) = (wire.display_name.clone(), wire.description.clone());
        Some(Self { display_name, description, actions })
    }
}

impl Codec for RoleBindingSpec {
    type Wire = pb::RoleBinding;

    fn encode(stored: &Stored<Self>) -> pb::RoleBinding {
        let Stored { uid, organization, id, revision: _, create_time, update_time, spec } = stored;
        let Self { role, members, project, owned_only } = spec;
        pb::RoleBinding {
            name: name_of::<Self>(organization, id),
            uid: uid.to_string(),
            etag: stored.etag(),
            role: name_of::<RoleSpec>(organization, role),
            members: members.iter().map(|member| member.name(organization)).collect(),
            scope: match project {
                Some(project) => format!("organizations/{organization}/projects/{project}"),
                None => format!("organizations/{organization}"),
            },
            owned_only: *owned_only,
            create_time: Some(convert::to_timestamp(*create_time)),
            update_time: Some(convert::to_timestamp(*update_time)),
        }
    }

    fn decode(wire: &pb::RoleBinding, decoding: Decoding<'_>, violations: &mut Violations) -> Option<Self> {
        let mut fields = Fields { decoding, violations };
        let role = fields.reference("role", &wire.role, "roles");
        if wire.members.is_empty() {
            fields.refuse("members", "must name at least one member");
        }
        if fields.too_many("members", wire.members.len(), MAX_MEMBERS) {
            return None;
        }
        let mut members = Vec::with_capacity(wire.members.len());
        for (at, name) in wire.members.iter().enumerate() {
            match Member::parse(name, decoding.organization) {
                Ok(member) if members.contains(&member) => {}
                Ok(member) => members.push(member),
                Err(text) => fields.refuse(&format!("members[{at}]"), text),
            }
        }
        let organization = format!("organizations/{}", decoding.organization);
        let project = match wire.scope.as_str() {
            "" => None,
            scope if scope == organization => None,
            scope => Some(fields.reference("scope", scope, "projects")?),
        };
        Some(Self { role: role?, members, project, owned_only: wire.owned_only })
    }
}

impl Codec for PolicySpec {
    type Wire = pb::Policy;

    fn encode(stored: &Stored<Self>) -> pb::Policy {
        let Stored { uid, organization, id, revision: _, create_time, update_time, spec } = stored;
        let Self { display_name, description, kind, source, digest } = spec;
        let policy_set = match kind {
            SetKind::Access => pb::policy::PolicySet::Access,
            SetKind::Guardrail => pb::policy::PolicySet::Guardrail,
        };
        pb::Policy {
            name: name_of::<Self>(organization, id),
            uid: uid.to_string(),
            etag: stored.etag(),
            display_name: display_name.clone(),
            description: description.clone(),
            policy_set: policy_set.into(),
            source: source.clone(),
            digest: digest.clone(),
            create_time: Some(convert::to_timestamp(*create_time)),
            update_time: Some(convert::to_timestamp(*update_time)),
        }
    }

    fn decode(wire: &pb::Policy, decoding: Decoding<'_>, violations: &mut Violations) -> Option<Self> {
        let mut fields = Fields { decoding, violations };
        fields.texts(&wire.display_name, &wire.description);
        let kind = match wire.policy_set() {
            pb::policy::PolicySet::Access => Some(SetKind::Access),
            pb::policy::PolicySet::Guardrail => Some(SetKind::Guardrail),
            pb::policy::PolicySet::Unspecified => {
                fields.refuse("policy_set", "must be POLICY_SET_ACCESS or POLICY_SET_GUARDRAIL");
                None
            }
        };
        if wire.source.is_empty() {
            fields.refuse("source", "must not be empty");
        }
        Some(Self {
            display_name: wire.display_name.clone(),
            description: wire.description.clone(),
            kind: kind?,
            source: wire.source.clone(),
            digest: sha256_hex(wire.source.as_bytes()),
        })
    }
}

impl Codec for PolicyBindingSpec {
    type Wire = pb::PolicyBinding;

    fn encode(stored: &Stored<Self>) -> pb::PolicyBinding {
        let Stored { uid, organization, id, revision: _, create_time, update_time, spec } = stored;
        let Self { policy, projects, environment_classes, mode } = spec;
        let mode = match mode {
            Mode::Off => pb::policy_binding::Mode::Off,
            Mode::Shadow => pb::policy_binding::Mode::Shadow,
            Mode::Warn => pb::policy_binding::Mode::Warn,
            Mode::Enforce => pb::policy_binding::Mode::Enforce,
        };
        let project = |project: &String| format!("organizations/{organization}/projects/{project}");
        pb::PolicyBinding {
            name: name_of::<Self>(organization, id),
            uid: uid.to_string(),
            etag: stored.etag(),
            policy: name_of::<PolicySpec>(organization, policy),
            projects: projects.iter().map(project).collect(),
            environment_classes: environment_classes.clone(),
            mode: mode.into(),
            create_time: Some(convert::to_timestamp(*create_time)),
            update_time: Some(convert::to_timestamp(*update_time)),
        }
    }

    fn decode(wire: &pb::PolicyBinding, decoding: Decoding<'_>, violations: &mut Violations) -> Option<Self> {
        let mut fields = Fields { decoding, violations };
        let policy = fields.reference("policy", &wire.policy, "policies");
        let many = fields.too_many("projects", wire.projects.len(), MAX_SCOPES);
        if fields.too_many("environment_classes", wire.environment_classes.len(), MAX_SCOPES) || many {
            return None;
        }
        let mut projects = Vec::with_capacity(wire.projects.len());
        for (at, name) in wire.projects.iter().enumerate() {
            projects.extend(fields.reference(&format!("projects[{at}]"), name, "projects"));
        }
        for (at, class) in wire.environment_classes.iter().enumerate() {
            if let Err(error) = validate_id(class) {
                fields.refuse(&format!("environment_classes[{at}]"), error.to_string());
            }
        }
        let mode = match wire.mode() {
            pb::policy_binding::Mode::Off => Mode::Off,
            pb::policy_binding::Mode::Shadow => Mode::Shadow,
            pb::policy_binding::Mode::Warn => Mode::Warn,
            pb::policy_binding::Mode::Enforce | pb::policy_binding::Mode::Unspecified => Mode::Enforce,
        };
        let environment_classes = wire.environment_classes.clone();
        Some(Self { policy: policy?, projects, environment_classes, mode })
    }
}

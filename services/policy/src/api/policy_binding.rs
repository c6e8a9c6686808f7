//! Policy bindings on the wire.

use pavior_core::Fault;
use pavior_core::id::validate_id_in;
use pavior_core::resource::{Stored, Violations};
use pavior_core::validate_id;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_proto::pavior::provisioning::v1::Project;
use pavior_resource::{Scope, Wire, end_times, id_of, times};

use crate::app::App;
use crate::domain::policy::policy_name;
use crate::domain::policy_binding::{Mode, PolicyBindingFields};

impl Wire for PolicyBindingFields {
    type Message = pb::PolicyBinding;

    fn encode(stored: &Stored<Self>) -> pb::PolicyBinding {
        let Self { policy, projects, environment_class_ids, mode, text_revision } = &stored.fields;
        let organization = &stored.organization;
        let mode = match mode {
            Mode::Off => pb::policy_binding::Mode::Off,
            Mode::Shadow => pb::policy_binding::Mode::Shadow,
            Mode::Warn => pb::policy_binding::Mode::Warn,
            Mode::Enforce => pb::policy_binding::Mode::Enforce,
        };
        let project = |project: &String| format!("organizations/{organization}/projects/{project}");
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        pb::PolicyBinding {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            policy: policy_name(organization, policy),
            projects: projects.iter().map(project).collect(),
            environment_class_ids: environment_class_ids.clone(),
            mode: mode.into(),
            delete_time,
            purge_time,
            create_time,
            update_time,
            revision_id: text_revision.map(|revision| revision.to_string()).unwrap_or_default(),
        }
    }

    fn decode(
        message: &pb::PolicyBinding,
        scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let organization = scope.organization;
        let policy = id_of::<pb::Policy>(violations, "policy", &message.policy, organization);
        let mut projects = Vec::with_capacity(message.projects.len());
        for (at, name) in message.projects.iter().enumerate() {
            projects.extend(id_of::<Project>(violations, &format!("projects.{at}"), name, organization));
        }
        for (at, class) in message.environment_class_ids.iter().enumerate() {
            violations.check(&format!("environment_class_ids.{at}"), Fault::Pattern, validate_id(class));
        }
        let mode = match message.mode() {
            pb::policy_binding::Mode::Off => Mode::Off,
            pb::policy_binding::Mode::Shadow => Mode::Shadow,
            pb::policy_binding::Mode::Warn => Mode::Warn,
            pb::policy_binding::Mode::Enforce | pb::policy_binding::Mode::Unspecified => Mode::Enforce,
        };
        let environment_class_ids = message.environment_class_ids.clone();
        let text_revision = match message.revision_id.as_str() {
            "" => None,
            id if validate_id_in("revisions", id).is_ok() && id.parse::<i64>().is_ok() => id.parse().ok(),
            id => {
                violations.add(
                    "revision_id",
                    Fault::Pattern,
                    format!("`{id}` is not the number of a revision"),
                );
                None
            }
        };
        Some(Self { policy: policy?, projects, environment_class_ids, mode, text_revision })
    }
}

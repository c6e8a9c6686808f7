//! Roles on the wire.

use pavior_core::Fault;
use pavior_core::resource::{Stored, Violations};
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::{Scope, Wire, end_times, times};

use crate::app::App;
use crate::domain::action::Pattern;
use crate::domain::role::RoleFields;

impl Wire for RoleFields {
    type Message = pb::Role;

    fn encode(stored: &Stored<Self>) -> pb::Role {
        let Self { display_name, description, actions } = &stored.fields;
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        pb::Role {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name: display_name.clone(),
            description: description.clone(),
            actions: actions.iter().map(ToString::to_string).collect(),
            delete_time,
            purge_time,
            create_time,
            update_time,
        }
    }

    fn decode(
        message: &pb::Role,
        scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let known = &scope.service.schema.actions;
        let mut actions = Vec::with_capacity(message.actions.len());
        for (at, text) in message.actions.iter().enumerate() {
            let field = format!("actions.{at}");
            match Pattern::parse(text) {
                Err(error) => violations.add(field, Fault::Pattern, error.to_string()),
                Ok(pattern) if !known.iter().any(|action| pattern.matches(&action.name)) => {
                    violations.add(
                        field,
                        Fault::Unknown,
                        format!("`{text}` stands for no action of this installation"),
                    );
                }
                Ok(pattern) if actions.contains(&pattern) => {}
                Ok(pattern) => actions.push(pattern),
            }
        }
        let (display_name, description) = (message.display_name.clone(), message.description.clone());
        Some(Self { display_name, description, actions })
    }
}

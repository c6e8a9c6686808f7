//! Between messages and the domain: organizations, groups, users and kinds. Others stand in files beside it.

use std::collections::{BTreeMap, HashMap};

use pavior_core::Fault;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_resource::{Scope, Wire, id_of, times};
use pavior_rpc::convert::{from_struct, to_struct};
use prost_types::Struct;

use crate::app::App;
use crate::domain::kind::RelationRule;
use crate::domain::membership::Source;
use crate::domain::{
    GroupFields, KindFields, MembershipFields, OrganizationFields, Schema, Stored, UserFields, Violations,
};
use crate::json::{Json, json};

/// A JSON object on the wire.
pub(super) fn to_pb_struct(value: &Json) -> Option<Struct> {
    to_struct(value).ok()
}

/// A JSON object from the wire; an absent one is empty.
pub(super) fn from_pb_struct(value: Option<&Struct>) -> Json {
    value.map_or_else(|| json!({}), from_struct)
}

pub(super) fn to_hash_map(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn from_hash_map(map: &HashMap<String, String>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A schema from the wire.
pub(super) fn schema(violations: &mut Violations, field: &str, text: &str) -> Schema {
    violations.check(field, Fault::Syntax, Schema::parse(text)).unwrap_or_default()
}

impl Wire for OrganizationFields {
    type Message = identity_pb::Organization;

    fn encode(stored: &Stored<Self>) -> identity_pb::Organization {
        let (create_time, update_time) = times(stored);
        let Self { display_name } = stored.fields.clone();
        identity_pb::Organization {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
        }
    }

    fn decode(
        message: &identity_pb::Organization,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        _violations: &mut Violations,
    ) -> Option<Self> {
        let identity_pb::Organization {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
        } = message;
        Some(Self { display_name: display_name.clone() })
    }
}

impl Wire for GroupFields {
    type Message = identity_pb::Group;

    fn encode(stored: &Stored<Self>) -> identity_pb::Group {
        let (create_time, update_time) = times(stored);
        let Self { display_name, description, parent } = stored.fields.clone();
        let parent_group = parent.map(|id| format!("organizations/{}/groups/{id}", stored.organization));
        identity_pb::Group {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
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

impl Wire for UserFields {
    type Message = identity_pb::User;

    fn encode(stored: &Stored<Self>) -> identity_pb::User {
        let (create_time, update_time) = times(stored);
        let Self { display_name, email } = stored.fields.clone();
        identity_pb::User {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
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
            update_time: _,
            email,
        } = message;
        Some(Self { display_name: display_name.clone(), email: email.clone() })
    }
}

impl Wire for MembershipFields {
    type Message = identity_pb::Membership;

    fn encode(stored: &Stored<Self>) -> identity_pb::Membership {
        let (create_time, _) = times(stored);
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
        let identity_pb::Membership { name: _, uid: _, etag: _, member, create_time: _, source: _ } = message;
        Some(Self { group: scope.parent.to_owned(), member: member.clone(), source: Source::Api })
    }
}

impl Wire for KindFields {
    type Message = pb::Kind;

    fn encode(stored: &Stored<Self>) -> pb::Kind {
        let (create_time, update_time) = times(stored);
        let Self { display_name, description, spec_schema, relation_rules, built_in } = stored.fields.clone();
        pb::Kind {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
            description,
            spec_schema_json: spec_schema.text(),
            relation_rules: relation_rules.into_iter().map(encode_rule).collect(),
            built_in,
        }
    }

    fn decode(
        message: &pb::Kind,
        _scope: &Scope<'_, App>,
        before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let pb::Kind {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            relation_rules,
            built_in: _,
            spec_schema_json,
        } = message;
        let spec_schema = schema(violations, "spec_schema_json", spec_schema_json);
        Some(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            spec_schema,
            relation_rules: relation_rules.iter().map(decode_rule).collect(),
            built_in: before.is_some_and(|before| before.built_in),
        })
    }
}

fn encode_rule(rule: RelationRule) -> pb::kind::RelationRule {
    let RelationRule { field, relation, inverse, default_kind } = rule;
    pb::kind::RelationRule { field, r#type: relation, inverse_type: inverse, default_kind_id: default_kind }
}

fn decode_rule(rule: &pb::kind::RelationRule) -> RelationRule {
    let pb::kind::RelationRule { field, r#type, inverse_type, default_kind_id: default_kind } = rule.clone();
    RelationRule { field, relation: r#type, inverse: inverse_type, default_kind }
}

//! Kinds on the wire.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_resource::{Scope, Wire, end_times, times};

use super::convert::schema;
use crate::app::App;
use crate::domain::kind::RelationRule;
use crate::domain::{KindFields, Stored, Violations};

impl Wire for KindFields {
    type Message = pb::Kind;

    fn encode(stored: &Stored<Self>) -> pb::Kind {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self { display_name, description, spec_schema, relation_rules, built_in } = stored.fields.clone();
        pb::Kind {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            delete_time,
            purge_time,
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
            delete_time: _,
            purge_time: _,
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

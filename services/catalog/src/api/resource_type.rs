//! Resource types on the wire.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_resource::{Scope, Wire, end_times, times};

use super::convert::schema;
use crate::app::App;
use crate::domain::{ResourceTypeFields, Stored, Violations};

impl Wire for ResourceTypeFields {
    type Message = pb::ResourceType;

    fn encode(stored: &Stored<Self>) -> pb::ResourceType {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self { display_name, description, input_schema, output_schema, secret_outputs } =
            stored.fields.clone();
        pb::ResourceType {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            delete_time,
            purge_time,
            create_time,
            update_time,
            description,
            secret_outputs,
            input_schema_json: input_schema.text(),
            output_schema_json: output_schema.text(),
        }
    }

    fn decode(
        message: &pb::ResourceType,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let pb::ResourceType {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            delete_time: _,
            purge_time: _,
            update_time: _,
            description,
            secret_outputs,
            input_schema_json,
            output_schema_json,
        } = message;
        Some(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            input_schema: schema(violations, "input_schema_json", input_schema_json),
            output_schema: schema(violations, "output_schema_json", output_schema_json),
            secret_outputs: secret_outputs.clone(),
        })
    }
}

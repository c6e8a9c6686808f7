//! What a driver says about itself, on the wire.

use pavior_core::digest::{canonical_json, sha256_digest};
use pavior_core::pointer;
use pavior_driver::{ActionSchema, DriverInfo, TypeSchema, Undo};
use pavior_proto::pavior::driver::v1 as pb;
use serde_json::Value;

use crate::WireError;

/// Changes whenever the description does.
pub(crate) fn digest(info: &DriverInfo) -> Result<String, serde_json::Error> {
    Ok(sha256_digest(&canonical_json(&serde_json::to_value(info)?)))
}

pub(crate) fn encode(schema: TypeSchema) -> pb::TypeSchema {
    let TypeSchema { id, inputs, outputs, secret_outputs, immutable, actions, undo, secret_inputs } = schema;
    let undo = match undo {
        Undo::Destroy => pb::Undo::Destroy,
        Undo::None => pb::Undo::None,
    };
    pb::TypeSchema {
        resource_type_id: id,
        input_schema_json: inputs.to_string(),
        output_schema_json: outputs.to_string(),
        secret_outputs,
        immutable_fields: immutable,
        actions: actions.into_iter().map(encode_action).collect(),
        undo: undo.into(),
        secret_inputs,
    }
}

fn encode_action(action: ActionSchema) -> pb::ActionSchema {
    let ActionSchema { name, description, arguments, outputs } = action;
    pb::ActionSchema {
        action_id: name,
        description,
        argument_schema_json: arguments.to_string(),
        output_schema_json: outputs.to_string(),
    }
}

pub(crate) fn decode(schema: pb::TypeSchema) -> Result<TypeSchema, WireError> {
    let pb::TypeSchema {
        resource_type_id: id,
        input_schema_json,
        output_schema_json,
        secret_outputs,
        immutable_fields,
        actions,
        undo,
        secret_inputs,
    } = schema;
    if id.is_empty() {
        return Err(WireError::Missing("types.resource_type_id"));
    }
    for (field, places) in
        [("types.immutable_fields", &immutable_fields), ("types.secret_inputs", &secret_inputs)]
    {
        if !places.iter().all(|place| pointer::is_valid(place)) {
            return Err(WireError::Meaningless(field));
        }
    }
    let undo = match pb::Undo::try_from(undo) {
        Ok(pb::Undo::Destroy) => Undo::Destroy,
        Ok(pb::Undo::None) => Undo::None,
        Ok(pb::Undo::Unspecified) | Err(_) => return Err(WireError::Meaningless("types.undo")),
    };
    Ok(TypeSchema {
        inputs: json(&input_schema_json, &id, "input")?,
        outputs: json(&output_schema_json, &id, "output")?,
        id,
        secret_outputs,
        immutable: immutable_fields,
        actions: actions.into_iter().map(decode_action).collect::<Result<_, _>>()?,
        undo,
        secret_inputs,
    })
}

fn decode_action(action: pb::ActionSchema) -> Result<ActionSchema, WireError> {
    let pb::ActionSchema { action_id: name, description, argument_schema_json, output_schema_json } = action;
    if name.is_empty() {
        return Err(WireError::Missing("types.actions.action_id"));
    }
    Ok(ActionSchema {
        arguments: json(&argument_schema_json, &name, "argument")?,
        outputs: json(&output_schema_json, &name, "output")?,
        name,
        description,
    })
}

fn json(text: &str, owner: &str, what: &'static str) -> Result<Value, WireError> {
    serde_json::from_str(text).map_err(|_| WireError::Schema { owner: owner.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use pavior_driver::Driver;
    use pavior_driver::testing::FakeDriver;

    use super::*;

    #[test]
    fn schemas_survive_and_the_digest_follows_them() {
        let info = FakeDriver::new("fake", &["thing"]).info();
        let mut back = info.clone();
        back.types = info.types.iter().cloned().map(|t| decode(encode(t)).unwrap()).collect();
        assert_eq!(back, info);
        assert_eq!(digest(&back).unwrap(), digest(&info).unwrap());
        back.types[0].secret_outputs.clear();
        assert_ne!(digest(&back).unwrap(), digest(&info).unwrap());
    }

    #[test]
    fn malformed_schemas_are_refused() {
        let schema = encode(FakeDriver::new("fake", &["thing"]).info().types.remove(0));
        let broken = pb::TypeSchema { input_schema_json: "{".to_owned(), ..schema.clone() };
        let owner = "thing".to_owned();
        assert_eq!(decode(broken), Err(WireError::Schema { owner, what: "input" }));
        let broken = pb::TypeSchema { undo: 7, ..schema.clone() };
        assert_eq!(decode(broken), Err(WireError::Meaningless("types.undo")));
        // A dotted path is no place: taken for one it would stand for everything.
        let dotted = vec!["variables".to_owned()];
        let broken = pb::TypeSchema { secret_inputs: dotted.clone(), ..schema.clone() };
        assert_eq!(decode(broken), Err(WireError::Meaningless("types.secret_inputs")));
        let broken = pb::TypeSchema { immutable_fields: dotted, ..schema };
        assert_eq!(decode(broken), Err(WireError::Meaningless("types.immutable_fields")));
    }
}

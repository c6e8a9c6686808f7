//! The schemas that clients see: forms are drawn from them, and recorded inputs are checked against them.

use pavior_drivers::build;
use serde_json::{Map, Value, json};

use crate::world::config;

/// What says the same in two ways, said in one: a list of texts needs no type beside it.
fn normal(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("enum") && map.get("type") == Some(&json!("string")) {
                map.remove("type");
            }
            map.values_mut().for_each(normal);
        }
        Value::Array(items) => items.iter_mut().for_each(normal),
        _ => {}
    }
}

/// The fields of every object in the order in which a form shows them.
fn fields(schema: &Value) -> Vec<String> {
    let Value::Object(map) = schema else {
        return schema.as_array().into_iter().flatten().flat_map(fields).collect();
    };
    let own = map.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned();
    let below =
        map.iter().filter(|(keyword, _)| *keyword != "properties").flat_map(|(_, below)| fields(below));
    own.chain(below).collect()
}

#[test]
fn schemas_are_what_clients_know() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().canonicalize().unwrap().join("data"));
    config.postgres_url = Some("postgres://admin@localhost/postgres".to_owned().into());
    let drivers = build(&config).unwrap();
    let mut found = Map::new();
    for driver in drivers.registry.infos() {
        for declared in driver.types {
            let name = format!("{}/{}", driver.id, declared.id);
            for action in declared.actions {
                found.insert(format!("{name}:{}", action.name), action.arguments);
            }
            found.insert(name, declared.inputs);
        }
    }
    let golden: Map<String, Value> = serde_json::from_str(include_str!("fixtures/schemas.json")).unwrap();
    assert_eq!(found.len(), golden.len());
    for (name, wanted) in golden {
        let schema = found.get_mut(&name).unwrap();
        normal(schema);
        assert_eq!(*schema, wanted, "{name}");
        assert_eq!(fields(schema), fields(&wanted), "{name}");
    }
}

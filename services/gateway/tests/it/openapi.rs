//! The description of HTTP with JSON.

use std::collections::BTreeSet;

use pavior_gateway::Config;
use pavior_proto::google::api::http_rule::Pattern;
use pavior_rpc::{convert, governance};
use serde_json::{Value, json};

use crate::harness::World;

async fn document(world: &World) -> Value {
    let request = http::Request::get("/openapi.json").header("host", "gateway").body(Vec::new()).unwrap();
    let response = world.http(request).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    serde_json::from_slice(response.body()).unwrap()
}

/// Every reference in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found.insert(reference.to_owned());
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_way_is_described_and_everything_is_there() {
    let world = World::new().await;
    let document = document(&world).await;
    assert_eq!(document, self::document(&World::new().await).await, "the same again");
    let table = pavior_gateway::RouteTable::build(pavior_proto::DESCRIPTORS).unwrap();
    let mut ways = 0;
    for declared in governance::declared(convert::pool()).unwrap() {
        if declared.rule.is_none() || table.method(&format!("/{}", declared.name)).is_none() {
            continue;
        }
        let rule = declared.http.unwrap();
        for rule in std::iter::once(rule.clone()).chain(rule.additional_bindings) {
            let verb = match rule.pattern.unwrap() {
                Pattern::Get(_) => "get",
                Pattern::Put(_) => "put",
                Pattern::Post(_) => "post",
                Pattern::Delete(_) => "delete",
                Pattern::Patch(_) => "patch",
                Pattern::Custom(_) => panic!(),
            };
            ways += 1;
            assert!(document["paths"].as_object().unwrap().values().any(|path| path.get(verb).is_some()));
        }
    }
    let operations: Vec<&Value> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .collect();
    assert_eq!(operations.len(), ways);
    let ids: BTreeSet<&str> =
        operations.iter().map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), ways);
    assert!(operations.iter().all(|operation| !operation["description"].as_str().unwrap().is_empty()));
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some_and(Value::is_object),
            "{reference}"
        );
    }
}

#[tokio::test]
async fn what_the_protos_say_of_fields_is_told() {
    let document = document(&World::new().await).await;
    let group = "/v1/organizations/{organization}/groups/{group}";
    let get = &document["paths"][group]["get"];
    assert_eq!(get["operationId"], "IdentityService_GetGroup");
    let names: Vec<&str> =
        get["parameters"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["organization", "group"]);
    let answer = &get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(answer, "#/components/schemas/pavior.identity.v1.Group");
    assert_eq!(get["responses"]["default"]["$ref"], "#/components/responses/Error");
    let schema = &document["components"]["schemas"]["pavior.identity.v1.Group"]["properties"];
    assert_eq!(schema["createTime"]["readOnly"], true);
    assert_eq!(schema["createTime"]["format"], "date-time");
    let list = &document["paths"]["/v1/organizations/{organization}/groups"];
    let names: Vec<&str> = list["get"]["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(
        names.starts_with(&["organization"]) && names.contains(&"pageSize") && !names.contains(&"parent"),
        "{names:?}"
    );
    let body = &list["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/pavior.identity.v1.Group");
    let approve = "/v1/organizations/{organization}/approvals/{approval}:approve";
    let approve = &document["paths"][approve]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(approve["properties"].get("name").is_none(), "{approve}");
    let watch = &document["paths"]["/v1/organizations/{organization}/operations/{operation}:watch"]["get"]["responses"]
        ["200"]["content"];
    let kinds: Vec<&String> = watch.as_object().unwrap().keys().collect();
    assert_eq!(kinds, ["application/x-ndjson", "text/event-stream"]);
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], json!("bearer"));
}

#[tokio::test]
async fn nothing_is_described_where_nothing_may_be_reflected() {
    let world = World::with(Config { reflection: false, ..Config::default() }).await;
    let request = http::Request::get("/openapi.json").header("host", "gateway").body(Vec::new()).unwrap();
    assert_eq!(world.http(request).await.status(), 404);
}

#[tokio::test]
async fn the_rules_of_fields_are_described() {
    let world = World::new().await;
    let document = document(&world).await;
    let schema = |path: &str| {
        let (message, field) = path.split_once('/').unwrap();
        document["components"]["schemas"][message]["properties"][field].clone()
    };
    let line = r"^(?:[^\u0000-\u001F\u007F-\u009F\u00AD\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u180E\u200B-\u200F\u202A-\u202E\u2060-\u2064\u2066-\u206F\uFEFF\uFFF9-\uFFFB\u2028\u2029]|[\u200C\u200D])*$";
    let id = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
    for (path, keyword, wanted) in [
        ("pavior.catalog.v1.Entity/displayName", "maxLength", json!(200)),
        ("pavior.catalog.v1.Entity/displayName", "pattern", json!(line)),
        ("pavior.catalog.v1.Entity/description", "maxLength", json!(16_384)),
        ("pavior.catalog.v1.Entity/tags", "maxItems", json!(64)),
        ("pavior.catalog.v1.Entity/labels", "maxProperties", json!(64)),
        (
            "pavior.catalog.v1.Entity/labels",
            "propertyNames",
            json!({ "pattern": "^[A-Za-z0-9_./-]{1,128}$" }),
        ),
        ("pavior.catalog.v1.Entity.Link/url", "minLength", json!(1)),
        // What is not set is as good as empty.
        ("pavior.catalog.v1.ResourceDefinition/driverId", "pattern", json!(format!("^$|{id}"))),
    ] {
        assert_eq!(schema(path)[keyword], wanted, "{path} {keyword}");
    }
    let values = &schema("pavior.catalog.v1.Entity/labels")["additionalProperties"];
    assert_eq!((&values["maxLength"], &values["pattern"]), (&json!(256), &json!(line)));
    let list = &document["paths"]["/v1/organizations/{organization}/groups"]["get"]["parameters"];
    let size = list.as_array().unwrap().iter().find(|one| one["name"] == "pageSize").unwrap();
    assert_eq!(size["schema"]["minimum"], json!(0));
}

//! The table that the descriptors make, and the descriptors that make none.

use pavior_gateway::{Error, RouteTable, Target};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

/// The platform's own descriptors with one more file, whose options are written as JSON.
fn with_service(methods: Vec<Value>, service_options: Value) -> Vec<u8> {
    let mut options = json!({ "[pavior.governance.v1.service]": { "roles": ["catalog"] } });
    options.as_object_mut().unwrap().extend(service_options.as_object().unwrap().clone());
    let pool = DescriptorPool::decode(pavior_proto::DESCRIPTORS).unwrap();
    let file = json!({
        "name": "pavior/catalog/v1/extra.proto",
        "package": "pavior.catalog.v1",
        "syntax": "proto3",
        "dependency": [
            "pavior/governance/v1/governance.proto", "pavior/catalog/v1/catalog_service.proto",
            "google/protobuf/empty.proto", "google/api/annotations.proto",
        ],
        "messageType": [{
            "name": "ExtraRequest",
            "oneofDecl": [{ "name": "choice" }],
            "field": [
                { "name": "name", "number": 1, "type": "TYPE_STRING", "label": "LABEL_OPTIONAL" },
                { "name": "names", "number": 2, "type": "TYPE_STRING", "label": "LABEL_REPEATED" },
                { "name": "count", "number": 3, "type": "TYPE_INT32", "label": "LABEL_OPTIONAL" },
                { "name": "this", "number": 4, "type": "TYPE_STRING", "label": "LABEL_OPTIONAL", "oneofIndex": 0 },
                { "name": "that", "number": 5, "type": "TYPE_STRING", "label": "LABEL_OPTIONAL", "oneofIndex": 0 },
            ],
        }],
        "service": [{ "name": "ExtraService", "method": methods, "options": options }],
    });
    let descriptor = pool.get_message_by_name("google.protobuf.FileDescriptorProto").unwrap();
    let file = DynamicMessage::deserialize(descriptor, file).unwrap();
    let mut set = pavior_proto::DESCRIPTORS.to_vec();
    // Field 1 of FileDescriptorSet; sets are merged by being written one after the other.
    prost::encoding::bytes::encode(1, &bytes::Bytes::from(file.encode_to_vec()), &mut set);
    set
}

fn method(name: &str, rule: Value) -> Value {
    json!({
        "name": name,
        "inputType": ".pavior.catalog.v1.ExtraRequest",
        "outputType": ".google.protobuf.Empty",
        "options": if rule.is_null() {
            json!({})
        } else {
            json!({
                "[pavior.governance.v1.rule]": rule,
                "[google.api.http]": { "get": format!("/v1/{{name=extras/*}}:{name}") },
            })
        },
    })
}

fn rule(resource: &str) -> Value {
    json!({
        "action": "catalog.extras.get",
        "resource": resource,
        "access": "ACCESS_READ",
        "audit": "AUDIT_DENIALS",
    })
}

fn platform(resource: &str) -> Value {
    let mut rule = rule(resource);
    rule["scope"] = json!("SCOPE_PLATFORM");
    rule
}

fn offenders(methods: Vec<Value>, service_options: Value) -> Vec<String> {
    match RouteTable::build(&with_service(methods, service_options)) {
        Err(Error::Ungoverned(offenders)) => offenders,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_platforms_own_descriptors_are_governed() {
    let table = RouteTable::build(pavior_proto::DESCRIPTORS).unwrap_or_else(|error| panic!("{error}"));
    let get = table.method("/pavior.catalog.v1.CatalogService/GetEntity").unwrap();
    assert_eq!((get.role.as_str(), get.action.as_str()), ("catalog", "catalog.entities.get"));
    assert!(get.reads && get.governed && !get.streaming);
    assert_eq!(get.resource_type, "catalog.pavior.dev/Entity");
    assert_eq!(get.patterns, ["organizations/{organization}/kinds/{kind}/entities/{entity}"]);
    let update = table.method("/pavior.catalog.v1.CatalogService/UpdateEntity").unwrap();
    let field = update.resource().unwrap();
    assert_eq!((field.path.as_str(), field.numbers.len()), ("entity.name", 2));
    assert_eq!(update.patterns, get.patterns);
    let creates = update.creates.as_ref().unwrap();
    assert_eq!(creates.method.path, "/pavior.catalog.v1.CatalogService/CreateEntity");
    let operation = table.method("/google.longrunning.Operations/CancelOperation").unwrap();
    assert_eq!(
        (operation.role.as_str(), operation.action.as_str()),
        ("provisioning", "provisioning.operations.cancel")
    );
    assert!(table.method("/pavior.policy.internal.v1.DecisionService/Decide").is_none());
    assert!(table.methods().all(|method| !method.service.starts_with("pavior.driver")));
    assert_eq!(table.roles(), ["audit", "catalog", "platform", "policy", "provisioning"]);
    let project = "organizations/acme/projects/hello";
    assert_eq!(table.kind(project).unwrap().role, "provisioning");
    let actions = table.actions_on(project);
    for action in ["provisioning.projects.get", "provisioning.environments.create"] {
        assert!(actions.iter().any(|a| a == action), "{action}: {actions:?}");
    }
    assert!(!actions.iter().any(|action| action == "catalog.entities.get"), "{actions:?}");
}

#[test]
fn well_governed_methods_are_added() {
    let table = RouteTable::build(&with_service(vec![method("GetExtra", rule("name"))], json!({}))).unwrap();
    assert!(table.method("/pavior.catalog.v1.ExtraService/GetExtra").is_some());
    let table = RouteTable::build(&with_service(vec![method("GetExtra", platform(""))], json!({}))).unwrap();
    let platform = table.method("/pavior.catalog.v1.ExtraService/GetExtra").unwrap();
    assert_eq!(platform.target, Target::Platform);
}

#[test]
fn all_methods_without_proper_governance_are_named() {
    let cases = [
        (json!(null), "has no governance rule"),
        (rule(""), "does not say which field names its resource"),
        (rule("title"), "`title`, which does not exist"),
        (rule("name.more"), "which is not a string"),
        (rule("count"), "which is not a string"),
        (rule("names"), "which can have several values"),
        (rule("this"), "which can have several values"),
        (json!({ "resource": "name" }), "is not like `catalog.entities.get`"),
        (platform("name"), "is about the platform, and names the field `name`"),
        (
            json!({ "action": "catalog.extras.get", "resource": "name", "audit": "AUDIT_DENIALS" }),
            "reads or changes",
        ),
        (
            json!({ "action": "catalog.extras.get", "resource": "name", "access": "ACCESS_READ" }),
            "how it is recorded",
        ),
    ];
    let methods = cases.iter().enumerate().map(|(i, (rule, _))| method(&format!("M{i}"), rule.clone()));
    let offenders = offenders(methods.collect(), json!({}));
    for (i, (_, what)) in cases.iter().enumerate() {
        let name = format!("`pavior.catalog.v1.ExtraService/M{i}`");
        assert!(
            offenders.iter().any(|o| o.starts_with(&name) && o.contains(what)),
            "{name} {what}: {offenders:#?}"
        );
    }
    let text = Error::Ungoverned(offenders).to_string();
    assert!(text.contains("M0") && text.contains("M10"), "{text}");
}

#[test]
fn every_method_has_a_place_of_its_own_over_http() {
    let at = |name: &str, http: Value| {
        let mut method = method(name, rule("name"));
        method["options"]["[google.api.http]"] = http;
        method
    };
    let cases = [
        (json!(null), "is served nowhere over HTTP"),
        (json!({ "custom": { "kind": "HEAD", "path": "/v1/x" } }), "has no verb and path"),
        (json!({ "get": "/v1/{title}" }), "names `title` in `/v1/{title}`, which is no single value"),
        (json!({ "get": "/v1/{names}" }), "which is no single value"),
        (json!({ "get": "/v1/{name" }), "in which a variable does not end"),
        (json!({ "get": "/v1/a", "body": "*" }), "wants a body for GET"),
        (json!({ "post": "/v1/b", "body": "name" }), "has the body `name` for `/v1/b`, which is no message"),
        (json!({ "get": "/v1/c", "responseBody": "x" }), "which is not built"),
        (json!({ "get": "/v1/{name=organizations/*}" }), "served over HTTP where"),
        (
            json!({ "get": "/v1/d", "additionalBindings": [{ "get": "/v1/organizations" }] }),
            "served over HTTP where",
        ),
    ];
    let methods = cases.iter().enumerate().map(|(i, (http, _))| match http {
        Value::Null => {
            let mut method = method(&format!("M{i}"), rule("name"));
            method["options"].as_object_mut().unwrap().remove("[google.api.http]");
            method
        }
        http => at(&format!("M{i}"), http.clone()),
    });
    let offenders = offenders(methods.collect(), json!({}));
    for (i, (_, what)) in cases.iter().enumerate() {
        let name = format!("`pavior.catalog.v1.ExtraService/M{i}`");
        let named = |text: &String| text.contains(&name) && text.contains(what);
        assert!(offenders.iter().any(named), "{name} {what}: {offenders:#?}");
    }
    assert_eq!(offenders.len(), cases.len(), "{offenders:#?}");
}

#[test]
fn a_public_service_is_answered_by_one_role_and_is_public() {
    let of = |roles: Value| {
        let options = json!({ "[pavior.governance.v1.service]": { "roles": roles } });
        offenders(vec![method("GetExtra", rule("name"))], options)
    };
    assert!(of(json!([]))[0].contains("says of nobody that it answers it"));
    assert!(of(json!(["catalog", "policy"]))[0].contains("several roles answer its service"));
    let mut hidden = rule("name");
    hidden["audience"] = json!("AUDIENCE_INTERNAL");
    let found = offenders(vec![method("GetExtra", hidden)], json!({}));
    assert!(found[0].contains("stands in a package that is not"), "{found:#?}");
}

#[test]
fn request_streams_cannot_be_governed() {
    let mut streams = method("Upload", rule("name"));
    streams["clientStreaming"] = json!(true);
    assert!(offenders(vec![streams], json!({}))[0].contains("streams its request"));
}

#[test]
fn a_method_is_claimed_once_and_exists() {
    let mixin = |method: &str| json!({ "method": method, "rule": rule("name") });
    let options = json!({ "[pavior.governance.v1.mixin]": [
        mixin("google.longrunning.Operations/GetOperation"),
        mixin("google.longrunning.Operations/Explode"),
        mixin("pavior.catalog.v1.ExtraService/GetExtra"),
    ] });
    let offenders = offenders(vec![method("GetExtra", rule("name"))], options);
    assert_eq!(offenders.len(), 3, "{offenders:#?}");
    assert!(offenders.iter().any(|o| o.contains("Operations/GetOperation`: claimed by")));
    assert!(offenders.iter().any(|o| o.contains("Explode`: taken over, but there is no such method")));
    assert!(offenders.iter().any(|o| o.contains("ExtraService/GetExtra`: claimed by")));
}

#[tokio::test]
async fn a_role_without_an_upstream_keeps_the_gateway_from_starting() {
    use std::sync::Arc;

    use opentelemetry::metrics::MeterProvider;
    let clock = crate::harness::clock();
    let signer = pavior_auth::InternalSigner::generate().unwrap();
    let ids = Arc::new(pavior_core::id_gen::SystemIds);
    let deps = pavior_gateway::Deps {
        identity: pavior_auth::ServiceIdentity::new("gateway", signer, clock.clone(), ids.clone()),
        tokens: pavior_auth::TokenVerifier::new(Vec::new(), clock.clone()).unwrap(),
        upstreams: [("catalog".to_owned(), pavior_rpc::remote("http://127.0.0.1:1", None))].into(),
        clock,
        ids,
        meter: opentelemetry::metrics::noop::NoopMeterProvider::new().meter("test"),
        descriptors: pavior_proto::DESCRIPTORS,
    };
    let config = pavior_gateway::Config::default();
    match pavior_gateway::build(&config, deps.clone()) {
        Err(Error::NoUpstream(roles)) => assert_eq!(roles, ["audit", "policy", "provisioning"]),
        other => panic!("{other:?}"),
    }
    let origin = pavior_gateway::Config { web_origins: vec!["*".to_owned()], ..config };
    assert!(matches!(pavior_gateway::build(&origin, deps), Err(Error::Config(_))));
}

#[test]
fn an_owner_and_labels_that_a_change_can_set_are_named_in_its_rule() {
    let change = |owner: &str, labels: &str| {
        let mut rule = json!({
            "action": "catalog.entities.update", "resource": "entity.name", "access": "ACCESS_CHANGE",
            "audit": "AUDIT_CHANGE",
        });
        rule["owner"] = json!(owner);
        rule["labels"] = json!(labels);
        let mut method = method("UpdateExtra", rule);
        method["inputType"] = json!(".pavior.catalog.v1.UpdateEntityRequest");
        method["options"]["[google.api.http]"] =
            json!({ "patch": "/v1/{entity.name=extras/*}", "body": "entity" });
        method
    };
    for (owner, labels, wanted) in [
        ("", "entity.labels", "can set `entity.owner`, and does not name it as its owner"),
        ("entity.owner", "", "can set `entity.labels`, and does not name it as its labels"),
    ] {
        let unspoken = offenders(vec![change(owner, labels)], json!({}));
        assert_eq!(unspoken, [format!("`pavior.catalog.v1.ExtraService/UpdateExtra`: {wanted}")]);
    }
    let no_map = offenders(vec![change("entity.owner", "entity.tags")], json!({}));
    assert!(no_map[1].ends_with("names the labels `entity.tags`, which are no map of texts"), "{no_map:?}");
    // It can make what is not there, too.
    let change = change("entity.owner", "entity.labels");
    let alone = offenders(vec![change.clone()], json!({}));
    let wanted = "has `allow_missing`, and beside it is no creation that is decided without facts or a plan";
    assert_eq!(alone, [format!("`pavior.catalog.v1.ExtraService/UpdateExtra`: {wanted}")]);
    let rule = json!({
        "action": "catalog.extras.create", "resource": "parent", "access": "ACCESS_CHANGE",
        "audit": "AUDIT_CHANGE", "owner": "entity.owner", "labels": "entity.labels",
    });
    let mut create = method("CreateExtra", rule);
    create["inputType"] = json!(".pavior.catalog.v1.CreateEntityRequest");
    create["options"]["[google.api.http]"] =
        json!({ "post": "/v1/{parent=extras/*}/entities", "body": "entity" });
    let table = RouteTable::build(&with_service(vec![change, create], json!({}))).unwrap();
    let method = table.method("/pavior.catalog.v1.ExtraService/UpdateExtra").unwrap();
    assert_eq!(method.update_mask.as_ref().unwrap().numbers, [2, 1]);
}

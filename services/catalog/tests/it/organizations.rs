//! Organizations and kinds.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, mask, object};
use pavior_testkit::{assert_problem, fields};

/// Not in the order of the alphabet.
const SCHEMA: &str =
    r#"{"type":"object","properties":{"size":{"type":"integer"},"host":{},"place":{},"area":{}}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_organization_has_the_built_in_kinds() {
    db::both(|db| async {
        let world = World::new(db).await;
        let made = world.organization("acme").await;
        assert_eq!((made.name.as_str(), made.display_name.as_str()), ("organizations/acme", "ACME"));
        let mut client = world.client.clone();
        let request = identity_pb::GetOrganizationRequest { name: made.name.clone() };
        assert_eq!(client.identity.get_organization(world.alice(request)).await.unwrap().into_inner(), made);
        let request = pb::ListKindsRequest { parent: made.name.clone(), ..Default::default() };
        let kinds = client.catalog.list_kinds(world.alice(request)).await.unwrap().into_inner().kinds;
        let ids: Vec<&str> = kinds.iter().map(|kind| kind.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(ids, ["api", "component", "domain", "environment", "location", "resource", "system"]);
        assert!(kinds.iter().all(|kind| kind.built_in));
        let component = &kinds[1];
        assert!(
            component
                .relation_rules
                .iter()
                .any(|rule| rule.r#type == "dependsOn" && rule.inverse_type == "dependencyOf")
        );
        let events = world.audited().await;
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].action.as_str(), events[0].target.as_ref().unwrap().name.as_str()),
            ("identity.organizations.create", "organizations/acme")
        );
        assert_eq!(events[0].principal.name, "organizations/pavior/users/root");
    })
    .await;
}

#[tokio::test]
async fn only_operators_make_organizations_and_everybody_lists_their_own() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let request =
        identity_pb::CreateOrganizationRequest { organization_id: "other".into(), ..Default::default() };
    assert_problem(
        client.identity.create_organization(world.alice(request.clone())).await,
        Code::PermissionDenied,
        "ACCESS_DENIED",
        &[],
    );
    let again = identity_pb::CreateOrganizationRequest { organization_id: "acme".into(), ..request.clone() };
    let error = assert_problem(
        client.identity.create_organization(world.root(again)).await,
        Code::AlreadyExists,
        "RESOURCE_ALREADY_EXISTS",
        &[],
    );
    assert_eq!(error.resource.unwrap().name, "organizations/acme");
    let bad = identity_pb::CreateOrganizationRequest { organization_id: "A B".into(), ..request };
    let error = assert_problem(
        client.identity.create_organization(world.root(bad)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(fields(&error), ["organization_id"]);
    let list = identity_pb::ListOrganizationsRequest { page_size: 1, ..Default::default() };
    for (of, own) in
        [("acme", vec!["organizations/acme"]), ("umbrella", vec!["organizations/umbrella"]), ("x", vec![])]
    {
        let request = world.on_platform(of, list.clone());
        let answer = client.identity.list_organizations(request).await.unwrap().into_inner();
        let names: Vec<&str> = answer.organizations.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names, answer.next_page_token.as_str()), (own, ""), "{of}");
    }
    let first = client.identity.list_organizations(world.root(list.clone())).await.unwrap().into_inner();
    assert_eq!(first.organizations[0].name, "organizations/acme");
    let next = identity_pb::ListOrganizationsRequest { page_token: first.next_page_token, ..list };
    let second = client.identity.list_organizations(world.root(next)).await.unwrap().into_inner();
    assert_eq!(second.organizations[0].name, "organizations/umbrella");
    assert_eq!(second.next_page_token, "");
}

#[tokio::test]
async fn the_installation_is_no_organization() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.identity.clone();
        let request =
            identity_pb::CreateOrganizationRequest { organization_id: "pavior".into(), ..Default::default() };
        let answer = client.create_organization(world.root(request)).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        let [violation] = error.violations.as_slice() else { panic!("{error:?}") };
        assert_eq!((violation.field.as_str(), violation.reason.as_str()), ("organization_id", "RESERVED"));
        assert_eq!(violation.description, "`pavior` is the platform's own name");
        let told =
            "resource name `organizations/pavior` is of the installation itself, which is no organization";
        let request = identity_pb::GetOrganizationRequest { name: "organizations/pavior".into() };
        let answer = client.get_organization(world.root(request)).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(error.violations[0].description, told);
        let request = identity_pb::CreateGroupRequest {
            parent: "organizations/pavior".into(),
            group_id: "core".into(),
            group: Some(identity_pb::Group::default()),
            ..Default::default()
        };
        let answer = client.create_group(world.root(request)).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert!(fields(&error).contains(&"parent"), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn calls_without_a_token_are_refused() {
    let world = World::ready(db::sqlite()).await;
    let request = identity_pb::GetOrganizationRequest { name: "organizations/acme".into() };
    assert_problem(
        world.bare.identity.clone().get_organization(request).await,
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_made_changed_and_deleted() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let rule = |field: &str| pb::kind::RelationRule {
            field: field.into(),
            r#type: "runsOn".into(),
            inverse_type: "runs".into(),
            default_kind_id: "component".into(),
        };
        let request = pb::CreateKindRequest {
            parent: "organizations/acme".into(),
            kind_id: "job".into(),
            kind: Some(pb::Kind {
                spec_schema_json: SCHEMA.into(),
                relation_rules: vec![rule("host")],
                ..Default::default()
            }),
            ..Default::default()
        };
        let kind = client.catalog.create_kind(world.alice(request)).await.unwrap().into_inner();
        assert!(!kind.built_in);
        assert_eq!(kind.spec_schema_json, SCHEMA, "in the order of its author");
        let told = world.audited().await.pop().unwrap().change.unwrap().after.unwrap();
        assert_eq!(told["specSchemaJson"], SCHEMA, "in the audit log too");
        world.component("acme", "web", json!({})).await;
        let entity = pb::CreateEntityRequest {
            parent: kind.name.clone(),
            entity_id: "nightly".into(),
            entity: Some(pb::Entity {
                spec: Some(object(json!({"size": 3, "host": "web", "place": "x"}))),
                ..Default::default()
            }),
            ..Default::default()
        };
        let entity = client.catalog.create_entity(world.alice(entity)).await.unwrap().into_inner();
        assert_eq!((entity.relations.len(), entity.relations[0].r#type.as_str()), (1, "runsOn"));

        // Another rule takes effect on the entities that exist; a schema that they do not fit is refused.
        let changed = pb::UpdateKindRequest {
            kind: Some(pb::Kind {
                name: kind.name.clone(),
                relation_rules: vec![rule("place")],
                ..Default::default()
            }),
            update_mask: mask(&["relation_rules"]),
            ..Default::default()
        };
        client.catalog.update_kind(world.alice(changed)).await.unwrap();
        let get = pb::GetEntityRequest { name: entity.name.clone(), ..Default::default() };
        let relations = client.catalog.get_entity(world.alice(get)).await.unwrap().into_inner().relations;
        assert_eq!(relations[0].target, "organizations/acme/kinds/component/entities/x");
        assert!(!relations[0].resolved);
        let strict = pb::UpdateKindRequest {
            kind: Some(pb::Kind {
                name: kind.name.clone(),
                spec_schema_json: json!({"required": ["colour"]}).to_string(),
                ..Default::default()
            }),
            update_mask: mask(&["spec_schema_json"]),
            ..Default::default()
        };
        let error = assert_problem(
            client.catalog.update_kind(world.alice(strict)).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, entity.name);

        let delete = pb::DeleteKindRequest { name: kind.name.clone(), ..Default::default() };
        assert_problem(
            client.catalog.delete_kind(world.alice(delete.clone())).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        let gone = pb::DeleteEntityRequest { name: entity.name, ..Default::default() };
        client.catalog.delete_entity(world.alice(gone)).await.unwrap();
        client.catalog.delete_kind(world.alice(delete)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn built_in_kinds_and_bad_kinds_are_refused() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let name = "organizations/acme/kinds/component".to_owned();
    let delete = pb::DeleteKindRequest { name: name.clone(), ..Default::default() };
    assert_problem(
        client.catalog.delete_kind(world.alice(delete)).await,
        Code::FailedPrecondition,
        "INVALID_STATE",
        &[],
    );
    let update = pb::UpdateKindRequest {
        kind: Some(pb::Kind { name, description: "mine".into(), ..Default::default() }),
        ..Default::default()
    };
    assert_problem(
        client.catalog.update_kind(world.alice(update)).await,
        Code::FailedPrecondition,
        "INVALID_STATE",
        &[],
    );
    let request = pb::CreateKindRequest {
        parent: "organizations/acme".into(),
        kind_id: "job".into(),
        kind: Some(pb::Kind {
            display_name: "x".repeat(300),
            spec_schema_json: json!({"type": "nonsense", "$ref": "https://example.com"}).to_string(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let error = assert_problem(
        client.catalog.create_kind(world.alice(request)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(fields(&error), ["kind.display_name", "kind.spec_schema_json.$ref"]);
}

#[tokio::test]
async fn a_schema_is_its_text() {
    let world = World::ready(db::sqlite()).await;
    let mut catalog = world.client.catalog.clone();
    let create = |id: &str, kind: pb::Kind| pb::CreateKindRequest {
        parent: "organizations/acme".into(),
        kind_id: id.into(),
        kind: Some(kind),
        ..Default::default()
    };
    for text in ["[]", "{", "type: object", r#"{"maximum": 9007199254740993}"#] {
        let kind = pb::Kind { spec_schema_json: text.into(), ..Default::default() };
        let answer = catalog.create_kind(world.alice(create("job", kind))).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert!(fields(&error)[0].starts_with("kind.spec_schema_json"), "{text}: {error:?}");
    }
    let made =
        catalog.create_kind(world.alice(create("job", pb::Kind::default()))).await.unwrap().into_inner();
    assert_eq!(made.spec_schema_json, "");
    // The same keys in another order are another form.
    for text in [SCHEMA.to_owned(), SCHEMA.replace(r#""place":{},"area":{}"#, r#""area":{},"place":{}"#)] {
        let kind = pb::Kind { name: made.name.clone(), spec_schema_json: text.clone(), ..Default::default() };
        let update = pb::UpdateKindRequest { kind: Some(kind), ..Default::default() };
        let changed = catalog.update_kind(world.alice(update)).await.unwrap().into_inner();
        assert_eq!(changed.spec_schema_json, text);
        let get = pb::GetKindRequest { name: made.name.clone() };
        assert_eq!(catalog.get_kind(world.alice(get)).await.unwrap().into_inner(), changed);
    }
}

//! What every change has in common: request ids, validate_only, etags, masks, audit records.

use pavior_core::audit::{AuditClass, Phase, Status};
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component, mask, object, uuid};
use pavior_testkit::{assert_problem, fields};

fn update(entity: pb::Entity, paths: Option<&[&str]>) -> pb::UpdateEntityRequest {
    pb::UpdateEntityRequest { entity: Some(entity), update_mask: paths.and_then(mask), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let mut request = create_component("acme", "", json!({}));
        request.request_id = uuid();
        request.entity.as_mut().unwrap().labels =
            (0..20).map(|n| (format!("label-{n}"), n.to_string())).collect();
        let first = client.catalog.create_entity(world.alice(request.clone())).await.unwrap().into_inner();
        world.later();
        // Decoded anew, its maps are in another order.
        let again: pb::CreateEntityRequest = {
            use prost::Message as _;
            pb::CreateEntityRequest::decode(request.encode_to_vec().as_slice()).unwrap()
        };
        assert_eq!(client.catalog.create_entity(world.alice(again)).await.unwrap().into_inner(), first);
        let other = pb::CreateEntityRequest { entity_id: "other".into(), ..request.clone() };
        let error = assert_problem(
            client.catalog.create_entity(world.alice(other)).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
            &[],
        );
        assert_eq!(fields(&error), ["request_id"]);
        let mut delete =
            pb::DeleteEntityRequest { name: first.name.clone(), request_id: uuid(), ..Default::default() };
        client.catalog.delete_entity(world.alice(delete.clone())).await.unwrap();
        client.catalog.delete_entity(world.alice(delete.clone())).await.unwrap();
        delete.request_id = String::new();
        assert_problem(
            client.catalog.delete_entity(world.alice(delete.clone())).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        delete.allow_missing = true;
        client.catalog.delete_entity(world.alice(delete)).await.unwrap();
        let actions: Vec<String> =
            world.audited().await.into_iter().map(|e| e.action).filter(|a| a.contains("entities")).collect();
        assert_eq!(actions, ["catalog.entities.create", "catalog.entities.delete"]);
        request.request_id = "not-a-uuid".into();
        let error = assert_problem(
            client.catalog.create_entity(world.alice(request)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(fields(&error), ["request_id"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_the_same_time_is_done_once() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut request = create_component("acme", "cart", json!({}));
        request.request_id = uuid();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (mut client, request) = (world.client.clone(), world.alice(request.clone()));
            tasks.spawn(async move {
                client.catalog.create_entity(request).await.map(tonic::Response::into_inner)
            });
        }
        let mut answers = Vec::new();
        while let Some(answer) = tasks.join_next().await {
            answers.push(answer.unwrap().unwrap());
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_only_checks_everything_and_writes_nothing() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let before = world.audited().await.len();
        let mut request = create_component("acme", "cart", json!({"dependsOn": ["stock"]}));
        request.validate_only = true;
        request.request_id = uuid();
        let shown = client.catalog.create_entity(world.alice(request.clone())).await.unwrap().into_inner();
        assert_eq!(
            (shown.name.as_str(), shown.relations.len()),
            ("organizations/acme/kinds/component/entities/cart", 1)
        );
        let get = pb::GetEntityRequest { name: shown.name.clone(), ..Default::default() };
        assert_problem(
            client.catalog.get_entity(world.alice(get)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        assert_eq!(world.audited().await.len(), before);
        let bad = pb::CreateEntityRequest { entity: Some(pb::Entity::default()), ..request.clone() };
        assert_problem(
            client.catalog.create_entity(world.alice(bad)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );

        request.validate_only = false;
        let made = client.catalog.create_entity(world.alice(request)).await.unwrap().into_inner();
        let mut change = update(
            pb::Entity { name: made.name.clone(), description: "x".into(), ..Default::default() },
            None,
        );
        change.validate_only = true;
        let shown = client.catalog.update_entity(world.alice(change)).await.unwrap().into_inner();
        assert_eq!(shown.description, "x");
        let delete =
            pb::DeleteEntityRequest { name: made.name.clone(), validate_only: true, ..Default::default() };
        client.catalog.delete_entity(world.alice(delete)).await.unwrap();
        let get = pb::GetEntityRequest { name: made.name.clone(), ..Default::default() };
        assert_eq!(client.catalog.get_entity(world.alice(get)).await.unwrap().into_inner(), made);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_etag_is_aborted_with_the_current_one() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let made = world.component("acme", "cart", json!({})).await;
        world.later();
        let change = |etag: &str, text: &str| {
            let entity = pb::Entity {
                name: made.name.clone(),
                etag: etag.into(),
                description: text.into(),
                ..Default::default()
            };
            update(entity, None)
        };
        let second =
            client.catalog.update_entity(world.alice(change(&made.etag, "one"))).await.unwrap().into_inner();
        assert_ne!(second.etag, made.etag);
        assert!(second.update_time.unwrap().seconds > made.update_time.unwrap().seconds);
        let error = assert_problem(
            client.catalog.update_entity(world.alice(change(&made.etag, "two"))).await,
            Code::Aborted,
            "ETAG_MISMATCH",
            &[],
        );
        assert_eq!(error.metadata["currentEtag"], second.etag);
        // What changes nothing is no change.
        let same = client.catalog.update_entity(world.alice(change("", "one"))).await.unwrap().into_inner();
        assert_eq!(same, second);
        let delete = |etag: &str| pb::DeleteEntityRequest {
            name: made.name.clone(),
            etag: etag.into(),
            ..Default::default()
        };
        assert_problem(
            client.catalog.delete_entity(world.alice(delete(&made.etag))).await,
            Code::Aborted,
            "ETAG_MISMATCH",
            &[],
        );
        client.catalog.delete_entity(world.alice(delete(&second.etag))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn masks_say_what_changes() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let mut request = create_component("acme", "cart", json!({"a": 1, "b": 2}));
    let entity = request.entity.as_mut().unwrap();
    entity.description = "old".into();
    entity.labels = [("a/b".to_owned(), "1".to_owned()), ("c".to_owned(), "2".to_owned())].into();
    let made = client.catalog.create_entity(world.alice(request)).await.unwrap().into_inner();
    let patch = |entity: pb::Entity| pb::Entity { name: made.name.clone(), ..entity };
    let spec = Some(object(json!({"a": 9})));
    let changed = update(
        patch(pb::Entity { spec, uid: "x".into(), ..Default::default() }),
        Some(&["spec.a", "labels.`a/b`", "uid"]),
    );
    let changed = client.catalog.update_entity(world.alice(changed)).await.unwrap().into_inner();
    let spec = pavior_rpc::convert::from_struct(changed.spec.as_ref().unwrap());
    assert_eq!((&spec["a"], &spec["b"]), (&json!(9), &json!(2)));
    assert_eq!(changed.labels, [("c".to_owned(), "2".to_owned())].into());
    assert_eq!((changed.uid.as_str(), changed.description.as_str()), (made.uid.as_str(), "old"));
    let whole =
        pb::Entity { spec: Some(object(json!({"type": "t", "lifecycle": "l"}))), ..Default::default() };
    let whole = client
        .catalog
        .update_entity(world.alice(update(patch(whole), Some(&["*"]))))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((whole.description.as_str(), whole.labels.len()), ("", 0));
    let labels = |range: std::ops::Range<usize>| range.map(|n| (format!("k{n}"), String::new())).collect();
    let full = pb::Entity { labels: labels(0..64), ..Default::default() };
    client.catalog.update_entity(world.alice(update(patch(full), Some(&["labels"])))).await.unwrap();
    let one_more =
        update(patch(pb::Entity { labels: labels(64..65), ..Default::default() }), Some(&["labels.k64"]));
    let answer = client.catalog.update_entity(world.alice(one_more)).await;
    let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
    assert_eq!(fields(&error), ["entity.labels"], "too much together with what is kept");
    let unknown = update(patch(pb::Entity::default()), Some(&["colour", "description"]));
    let error = assert_problem(
        client.catalog.update_entity(world.alice(unknown)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(fields(&error), ["update_mask"]);
    let missing = update(
        pb::Entity { name: "organizations/acme/kinds/component/entities/none".into(), ..Default::default() },
        None,
    );
    assert_problem(
        client.catalog.update_entity(world.alice(missing)).await,
        Code::NotFound,
        "RESOURCE_NOT_FOUND",
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_recorded_with_what_was_and_what_is() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let group = world.group("acme", "team", "").await;
        let change = identity_pb::UpdateGroupRequest {
            group: Some(identity_pb::Group {
                name: group.name.clone(),
                display_name: "Team".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        client.identity.update_group(world.alice(change)).await.unwrap();
        let delete = identity_pb::DeleteGroupRequest { name: group.name.clone(), ..Default::default() };
        client.identity.delete_group(world.alice(delete)).await.unwrap();
        let events: Vec<_> = world
            .audited()
            .await
            .into_iter()
            .filter(|e| e.target.as_ref().unwrap().name == group.name)
            .collect();
        let actions: Vec<&str> = events.iter().map(|event| event.action.as_str()).collect();
        assert_eq!(actions, ["identity.groups.create", "identity.groups.update", "identity.groups.delete"]);
        assert!(events.iter().all(|e| (e.audit_class, e.phase, e.outcome.status)
            == (AuditClass::Required, Phase::Outcome, Status::Succeeded)));
        assert!(events.iter().all(|e| e.principal.name == "organizations/acme/users/alice"));
        assert!(events.iter().all(|e| e.target.as_ref().unwrap().r#type == "identity.pavior.dev/Group"));
        let change = events[1].change.as_ref().unwrap();
        assert_eq!(change.before.as_ref().unwrap()["displayName"], "");
        assert_eq!(change.after.as_ref().unwrap()["displayName"], "Team");
        assert_eq!(events[2].change.as_ref().unwrap().after, None);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_rather_than_a_bug() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let mut request = create_component("acme", "cart", json!({}));
    let spec = request.entity.as_mut().unwrap().spec.as_mut().unwrap();
    let kind = Some(prost_types::value::Kind::NumberValue(f64::NAN));
    spec.fields.insert("n".to_owned(), prost_types::Value { kind });
    assert_problem(
        client.catalog.create_entity(world.alice(request)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    let mut request = create_component("acme", "cart", json!({}));
    request.entity.as_mut().unwrap().create_time =
        Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 });
    let answer = client.catalog.create_entity(world.alice(request)).await;
    assert!(answer.is_ok() || answer.is_err_and(|status| status.code() == Code::InvalidArgument));
    for text in ["a\0b", "\u{7f}"] {
        let mut request = create_component("acme", "nul", json!({}));
        request.entity.as_mut().unwrap().display_name = text.into();
        assert_problem(
            client.catalog.create_entity(world.alice(request)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
    }
}

#[tokio::test]
async fn changes_in_an_organization_that_does_not_exist_are_not_found() {
    let world = World::ready(db::sqlite()).await;
    let request = create_component("nowhere", "cart", json!({}));
    let answer = world.client.catalog.clone().create_entity(world.in_org("nowhere", request)).await;
    assert_eq!(
        assert_problem(answer, Code::NotFound, "RESOURCE_NOT_FOUND", &[]).resource.unwrap().name,
        "organizations/nowhere"
    );
}

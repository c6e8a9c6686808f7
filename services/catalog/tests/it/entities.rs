//! Entities: reading, filtering, ordering, paging, relations.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component, mask, object};
use pavior_testkit::{assert_problem, fields};

const KIND: &str = "organizations/acme/kinds/component";
const ALL: &str = "organizations/acme/kinds/-";

fn name(id: &str) -> String {
    format!("{KIND}/entities/{id}")
}

async fn list(world: &World, parent: &str, filter: &str, order_by: &str) -> Vec<String> {
    let request = pb::ListEntitiesRequest {
        parent: parent.into(),
        filter: filter.into(),
        order_by: order_by.into(),
        ..Default::default()
    };
    let found = world.client.catalog.clone().list_entities(world.alice(request)).await;
    let found = found.unwrap_or_else(|status| panic!("{filter}: {status:?}")).into_inner();
    found.entities.iter().map(|entity| entity.name.rsplit('/').next().unwrap().to_owned()).collect()
}

async fn get(world: &World, name: &str) -> pb::Entity {
    let request = pb::GetEntityRequest { name: name.into(), ..Default::default() };
    world.client.catalog.clone().get_entity(world.alice(request)).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_twenty_dependents_are_not_all_named() {
    let world = World::ready(db::sqlite()).await;
    world.component("acme", "base", json!({})).await;
    for n in 0..22 {
        world.component("acme", &format!("user-{n:02}"), json!({"dependsOn": ["base"]})).await;
    }
    let delete = pb::DeleteEntityRequest { name: name("base"), ..Default::default() };
    let answer = world.client.catalog.clone().delete_entity(world.alice(delete)).await;
    let error = assert_problem(answer, Code::FailedPrecondition, "HAS_DEPENDENTS", &[]);
    assert_eq!((error.preconditions.len(), error.metadata["more"].as_str()), (20, "true"));
}

async fn shelf(world: &World) {
    for (id, labels, tags, spec) in [
        (
            "alpha",
            vec![("tier", "gold"), ("team.name", "x")],
            vec!["java"],
            json!({"replicas": 2, "public": true}),
        ),
        ("beta", vec![("tier", "silver")], vec!["go", "grpc"], json!({"replicas": 10, "public": false})),
        (
            "gamma",
            vec![("tier", "gold")],
            vec!["go"],
            json!({"profile": {"email": "g@x.org"}, "replicas": "many"}),
        ),
        ("delta", vec![], vec![], json!({"type": "library"})),
    ] {
        world.later();
        let mut request = create_component("acme", id, spec);
        let entity = request.entity.as_mut().unwrap();
        entity.display_name = format!("The {id}");
        entity.labels = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        entity.tags = tags.into_iter().map(str::to_owned).collect();
        world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap();
    }
    world.later();
    let request = pb::CreateEntityRequest {
        parent: "organizations/acme/kinds/system".into(),
        entity_id: "shop".into(),
        entity: Some(pb::Entity { description: "Sells the alpha".into(), ..Default::default() }),
        ..Default::default()
    };
    world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_give_the_same_on_both_databases() {
    db::both(|db| async {
        let world = World::ready(db).await;
        shelf(&world).await;
        for (parent, filter, order_by, wanted) in [
            (KIND, "", "", vec!["alpha", "beta", "delta", "gamma"]),
            (ALL, "", "", vec!["alpha", "beta", "delta", "gamma", "shop"]),
            (ALL, "", "create_time desc", vec!["shop", "delta", "gamma", "beta", "alpha"]),
            (KIND, "", "display_name desc", vec!["gamma", "delta", "beta", "alpha"]),
            (KIND, "", "update_time", vec!["alpha", "beta", "gamma", "delta"]),
            (KIND, "labels.tier = gold", "", vec!["alpha", "gamma"]),
            (KIND, "labels.tier != gold", "", vec!["beta"]),
            (KIND, "NOT labels.tier = gold", "", vec!["beta", "delta"]),
            (KIND, "labels.tier:*", "", vec!["alpha", "beta", "gamma"]),
            (KIND, "labels:tier", "", vec!["alpha", "beta", "gamma"]),
            (KIND, "labels.\"team.name\" = x", "", vec!["alpha"]),
            (KIND, "labels.tier = \"g*\"", "", vec!["alpha", "gamma"]),
            (KIND, "labels.none = gold", "", vec![]),
            (KIND, "tags:go", "", vec!["beta", "gamma"]),
            (KIND, "tags:go AND NOT tags:grpc", "", vec!["gamma"]),
            (KIND, "-tags:go", "", vec!["alpha", "delta"]),
            (KIND, "spec.type = library", "", vec!["delta"]),
            (KIND, "spec.type != library", "", vec!["alpha", "beta", "gamma"]),
            (KIND, "spec.replicas > 2", "", vec!["beta"]),
            (KIND, "spec.replicas >= 2", "", vec!["alpha", "beta"]),
            (KIND, "spec.replicas = 10", "", vec!["beta"]),
            (KIND, "spec.replicas = many", "", vec!["gamma"]),
            (KIND, "spec.public = true", "", vec!["alpha"]),
            (KIND, "spec.public = false", "", vec!["beta"]),
            (KIND, "spec.profile.email = \"g@x.org\"", "", vec!["gamma"]),
            (KIND, "spec.profile.email:*", "", vec!["gamma"]),
            (KIND, "NOT spec.replicas > 2", "", vec!["alpha", "delta", "gamma"]),
            (ALL, "kind = system", "", vec!["shop"]),
            (KIND, "id = \"*eta\"", "", vec!["beta"]),
            (KIND, "id = \"*lta\"", "", vec!["delta"]),
            (ALL, "alpha", "", vec!["alpha", "shop"]),
            (KIND, "display_name:beta", "", vec!["beta"]),
            (KIND, "create_time > \"2026-01-01T00:00:02Z\"", "", vec!["delta", "gamma"]),
            (KIND, "labels.tier = gold OR labels.tier = silver AND tags:go", "", vec!["beta", "gamma"]),
        ] {
            assert_eq!(list(&world, parent, filter, order_by).await, wanted, "{filter} | {order_by}");
        }
    })
    .await;
}

#[tokio::test]
async fn bad_filters_and_orders_are_refused() {
    let world = World::ready(db::sqlite()).await;
    let long = "a".repeat(100_000);
    for (filter, order_by, field) in [
        ("colour = red", "", "filter"),
        ("labels.tier =", "", "filter"),
        ("spec = x", "", "filter"),
        ("spec.a.b.c.d.e.f.g.h.i = x", "", "filter"),
        ("((((((((((((((((((((((((a))))))))))))))))))))))))", "", "filter"),
        (long.as_str(), "", "filter"),
        ("create_time > yesterday", "", "filter"),
        ("tags < 3", "", "filter"),
        ("", "spec.type", "order_by"),
        ("", "owner", "order_by"),
        ("", "name name", "order_by"),
    ] {
        let request = pb::ListEntitiesRequest {
            parent: KIND.into(),
            filter: filter.into(),
            order_by: order_by.into(),
            ..Default::default()
        };
        let answer = world.client.catalog.clone().list_entities(world.alice(request)).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FILTER", &[]);
        assert_eq!(fields(&error), [field], "{filter} {order_by}");
    }
    for filter in ["labels.a = \"\0\"", "spec.\"\0\" = x"] {
        let request =
            pb::ListEntitiesRequest { parent: KIND.into(), filter: filter.into(), ..Default::default() };
        let status = world.client.catalog.clone().list_entities(world.alice(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_everything_once_in_every_order() {
    db::both(|db| async {
        let world = World::ready(db).await;
        for n in 0..23 {
            // Some share their time and their name.
            if n % 3 == 0 {
                world.later();
            }
            let mut request = create_component("acme", &format!("c-{n:02}"), json!({}));
            request.entity.as_mut().unwrap().display_name = format!("Name {}", n % 4);
            world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap();
        }
        for order_by in [
            "",
            "name desc",
            "display_name",
            "display_name desc, create_time",
            "create_time desc",
            "update_time",
        ] {
            let mut request = pb::ListEntitiesRequest {
                parent: KIND.into(),
                page_size: 5,
                order_by: order_by.into(),
                ..Default::default()
            };
            let mut all = Vec::new();
            loop {
                let page = world
                    .client
                    .clone()
                    .catalog
                    .list_entities(world.alice(request.clone()))
                    .await
                    .unwrap()
                    .into_inner();
                assert!(page.entities.len() <= 5);
                all.extend(page.entities.into_iter().map(|entity| entity.name));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let whole = list(&world, KIND, "", order_by).await;
            let ids: Vec<String> =
                all.iter().map(|name| name.rsplit('/').next().unwrap().to_owned()).collect();
            assert_eq!(ids, whole, "{order_by}");
            let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
            assert_eq!(distinct.len(), 23, "{order_by}");
        }
    })
    .await;
}

#[tokio::test]
async fn page_tokens_are_bound_to_their_list() {
    let world = World::ready(db::sqlite()).await;
    shelf(&world).await;
    let request = pb::ListEntitiesRequest { parent: KIND.into(), page_size: 2, ..Default::default() };
    let token = world
        .client
        .clone()
        .catalog
        .list_entities(world.alice(request.clone()))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    for changed in [
        pb::ListEntitiesRequest { filter: "tags:go".into(), ..request.clone() },
        pb::ListEntitiesRequest { order_by: "create_time".into(), ..request.clone() },
        pb::ListEntitiesRequest { parent: ALL.into(), ..request.clone() },
    ] {
        let changed = pb::ListEntitiesRequest { page_token: token.clone(), ..changed };
        let answer = world.client.catalog.clone().list_entities(world.alice(changed)).await;
        assert_eq!(
            fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[])),
            ["page_token"]
        );
    }
    let larger = pb::ListEntitiesRequest { page_size: 100, page_token: token, ..request.clone() };
    assert_eq!(
        world
            .client
            .catalog
            .clone()
            .list_entities(world.alice(larger))
            .await
            .unwrap()
            .into_inner()
            .entities
            .len(),
        2
    );
    let negative = pb::ListEntitiesRequest { page_size: -1, ..request };
    assert_problem(
        world.client.catalog.clone().list_entities(world.alice(negative)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_pages_end_early() {
    let world = World::ready(db::sqlite()).await;
    for n in 0..20 {
        world.component("acme", &format!("big-{n:02}"), json!({"text": "x".repeat(240_000)})).await;
    }
    let request = pb::ListEntitiesRequest { parent: KIND.into(), page_size: 20, ..Default::default() };
    let page =
        world.client.catalog.clone().list_entities(world.alice(request.clone())).await.unwrap().into_inner();
    assert!((5..20).contains(&page.entities.len()), "{}", page.entities.len());
    let next = pb::ListEntitiesRequest { page_token: page.next_page_token, ..request };
    let rest = world.client.catalog.clone().list_entities(world.alice(next)).await.unwrap().into_inner();
    assert_eq!(page.entities.len() + rest.entities.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_come_in_the_order_asked_for_or_not_at_all() {
    db::both(|db| async {
        let world = World::ready(db).await;
        shelf(&world).await;
        let system = "organizations/acme/kinds/system/entities/shop".to_owned();
        let batch =
            |parent: &str, names: Vec<String>| pb::BatchGetEntitiesRequest { parent: parent.into(), names };
        let names = vec![name("gamma"), system.clone(), name("alpha"), name("gamma")];
        let mut client = world.client.clone();
        let found = client
            .catalog
            .batch_get_entities(world.alice(batch(ALL, names.clone())))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(found.entities.iter().map(|e| e.name.clone()).collect::<Vec<_>>(), names);
        let answer = client.catalog.batch_get_entities(world.alice(batch(KIND, names))).await;
        assert_eq!(
            fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
            ["names[1]"]
        );
        let answer =
            client.catalog.batch_get_entities(world.alice(batch(ALL, vec![system, name("none")]))).await;
        let error = assert_problem(answer, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        assert_eq!(error.resource.unwrap().name, name("none"));
        let answer = client.catalog.batch_get_entities(world.alice(batch(ALL, vec![]))).await;
        assert_eq!(fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])), ["names"]);
    })
    .await;
}

#[tokio::test]
async fn a_batch_larger_than_an_answer_may_be_is_refused() {
    let world = World::ready(db::sqlite()).await;
    world.component("acme", "large", json!({"type": "x".repeat(10_000)})).await;
    let names = vec![name("large"); 1_000];
    let request = pb::BatchGetEntitiesRequest { parent: ALL.into(), names };
    let answer = world.client.catalog.clone().batch_get_entities(world.alice(request)).await;
    assert_problem(answer, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", &[]);
}

#[tokio::test]
async fn bad_entities_are_refused_with_every_violation() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let mut request =
        create_component("acme", "cart", json!({"lifecycle": 7, "dependsOn": ["ok", "component:a b"]}));
    let answer = client.catalog.create_entity(world.alice(request.clone())).await;
    let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
    assert_eq!(fields(&error), ["entity.spec.lifecycle", "entity.spec.dependsOn[1]"]);
    let entity = request.entity.as_mut().unwrap();
    entity.tags = vec!["a b".into()];
    entity.links = vec![pb::entity::Link { url: "javascript:x".into(), ..Default::default() }];
    entity.labels = [("team".to_owned(), "x".repeat(300))].into();
    entity.owner = "team-a".into();
    let error = assert_problem(
        client.catalog.create_entity(world.alice(request.clone())).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(
        fields(&error),
        ["entity.labels.team", "entity.tags[0]", "entity.links[0].url", "entity.owner"]
    );
    let mut unknown = create_component("acme", "x", json!({}));
    unknown.parent = "organizations/acme/kinds/robot".into();
    let error = assert_problem(
        client.catalog.create_entity(world.alice(unknown.clone())).await,
        Code::NotFound,
        "RESOURCE_NOT_FOUND",
        &[],
    );
    assert_eq!(error.resource.unwrap().name, "organizations/acme/kinds/robot");
    unknown.parent = "organizations/acme/kinds/-".into();
    assert_problem(
        client.catalog.create_entity(world.alice(unknown.clone())).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    unknown.parent = KIND.into();
    unknown.entity.as_mut().unwrap().owner = "organizations/acme/groups/none".into();
    assert_problem(
        client.catalog.create_entity(world.alice(unknown)).await,
        Code::FailedPrecondition,
        "REFERENCE_NOT_FOUND",
        &[],
    );
}

#[tokio::test]
async fn an_id_is_made_when_none_is_given() {
    let world = World::ready(db::sqlite()).await;
    let made = world.component("acme", "", json!({})).await;
    let id = made.name.rsplit('/').next().unwrap();
    assert!(id.starts_with("entity-") && pavior_core::validate_id(id).is_ok(), "{id}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_policy_was_not_asked_about_is_not_taken() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let team = world.group("acme", "team-a", "").await;
        let spec = json!({"owner": "team-a"});
        let owned = |owner: &str| {
            let mut request = create_component("acme", "cart", spec.clone());
            request.entity.as_mut().unwrap().owner = owner.to_owned();
            world.alice(request)
        };
        let mut client = world.client.clone();
        let error = assert_problem(
            client.catalog.create_entity(owned("")).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(error.violations[0].field, "entity.owner");
        assert!(error.violations[0].description.contains(&team.name), "{error:?}");
        let cart = client.catalog.create_entity(owned(&team.name)).await.unwrap().into_inner();
        assert_eq!(cart.owner, team.name);
        // Neither is it taken when it is all that an update leaves, or brings.
        world.component("acme", "till", json!({})).await;
        let update = |id: &str, paths: &[&str]| {
            let entity =
                pb::Entity { name: name(id), spec: Some(object(spec.clone())), ..Default::default() };
            let request = pb::UpdateEntityRequest {
                entity: Some(entity),
                update_mask: mask(paths),
                ..Default::default()
            };
            world.alice(request)
        };
        for (id, paths) in [("cart", "owner"), ("till", "spec.owner")] {
            let answer = client.catalog.update_entity(update(id, &[paths])).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(error.violations[0].field, "entity.owner", "{id}");
        }
        assert_eq!(get(&world, &name("cart")).await.owner, team.name);
        assert_eq!(get(&world, &name("till")).await.owner, "");
    })
    .await;
}

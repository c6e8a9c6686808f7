//! Import of Backstage documents.

use std::time::Instant;

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::governance::internal::v1 as facts_pb;
use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_testkit::db;
use prost::Message as _;
use serde_json::json;
use tonic::Code;

use crate::support::{World, uuid};
use pavior_testkit::{assert_problem, fields};

const SHOP: &str = include_str!("fixtures/shop.yaml");
const ORG: &str = include_str!("fixtures/org.yaml");

const IMPORT: &str = "/pavior.catalog.v1.CatalogService/ImportEntities";

fn import(contents: &[&str]) -> pb::ImportEntitiesRequest {
    let document = |content: &&str| pb::import_entities_request::Document {
        origin: "file:catalog-info.yaml".into(),
        content: (*content).to_owned(),
    };
    pb::ImportEntitiesRequest {
        parent: "organizations/acme".into(),
        documents: contents.iter().map(document).collect(),
        ..Default::default()
    }
}

fn id(name: &str) -> &str {
    name.rsplit('/').next().unwrap()
}

async fn counts(world: &World, request: pb::ImportEntitiesRequest) -> (i32, i32, i32) {
    let answer =
        world.client.catalog.clone().import_entities(world.alice(request)).await.unwrap().into_inner();
    (answer.created_count, answer.updated_count, answer.unchanged_count)
}

async fn entity(world: &World, kind: &str, id: &str) -> pb::Entity {
    let name = format!("organizations/acme/kinds/{kind}/entities/{id}");
    world
        .client
        .catalog
        .clone()
        .get_entity(world.alice(pb::GetEntityRequest { name, ..Default::default() }))
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_could_read_again_is_refused() {
    let world = World::ready(db::sqlite()).await;
    let document = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(
            "apiVersion: backstage.io/v1alpha1\nkind: System\nmetadata: {{ name: deep }}\n\
             spec: {{ owner: storefront, deep: {open}1{close} }}\n"
        )
    };
    // The spec itself is a level.
    for levels in [32, 40] {
        let request = world.alice(import(&[&document(levels)]));
        let answer = world.client.catalog.clone().import_entities(request).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        assert_eq!(fields(&error), ["documents[0].content.spec"]);
        assert_eq!(error.violations[0].description, "nests deeper than 32 levels");
    }
    assert_eq!(counts(&world, import(&[&document(31)])).await.0, 1);
    entity(&world, "system", "deep").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_as_they_are_found_are_imported_and_brought_up_to_date() {
    db::both(|db| async {
        let world = World::ready(db).await;
        assert_eq!(counts(&world, import(&[SHOP, ORG])).await, (10, 0, 0));
        let cart = entity(&world, "component", "cart-service").await;
        assert_eq!(
            (cart.display_name.as_str(), cart.owner.as_str()),
            ("Cart_Service", "organizations/acme/groups/payments")
        );
        assert_eq!(cart.origin, "file:catalog-info.yaml");
        assert_eq!(cart.labels["pci"], "true");
        let relations: Vec<String> = cart
            .relations
            .iter()
            .map(|r| {
                format!(
                    "{} {} {}",
                    r.r#type,
                    r.target.trim_start_matches("organizations/acme/kinds/"),
                    r.resolved
                )
            })
            .collect();
        assert_eq!(
            relations,
            [
                "consumesApi api/entities/stock-api false",
                "dependsOn component/entities/stock false",
                "dependsOn resource/entities/cart-db true",
                "ownedBy organizations/acme/groups/payments true",
                "partOf system/entities/shop true",
                "providesApi api/entities/cart-api true",
            ]
        );
        let database = entity(&world, "resource", "cart-db").await;
        assert_eq!(database.owner, "organizations/acme/users/frank.tiernan");
        let owner = database.relations.iter().find(|r| r.r#type == "ownedBy").unwrap();
        assert_eq!((owner.target.as_str(), owner.resolved), (database.owner.as_str(), true));
        let list = pb::ListEntityRelationsRequest {
            parent: entity(&world, "system", "shop").await.name,
            ..Default::default()
        };
        let shop = world.client.catalog.clone().list_entity_relations(world.alice(list)).await.unwrap();
        let parts = shop.into_inner().relations.into_iter().filter(|r| r.r#type == "hasPart");
        assert_eq!(parts.count(), 3);

        // Groups and users are the organization's own, and no entities.
        let request = directory_pb::GetDirectoryRequest {
            organization: "organizations/acme".into(),
            ..Default::default()
        };
        let directory = world
            .policy
            .clone()
            .directory
            .get_directory(world.by_service("policy", request))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(directory.groups[1].parent_group, "organizations/acme/groups/commerce-leads");
        let members: Vec<(&str, Vec<&str>)> = directory
            .memberships
            .iter()
            .map(|one| (id(&one.member), one.groups.iter().map(|group| id(group)).collect()))
            .collect();
        assert_eq!(
            members,
            [("amelia.park", vec!["commerce-leads", "payments"]), ("frank.tiernan", vec!["payments"])]
        );

        let events = world.audited().await.len();
        world.later();
        assert_eq!(counts(&world, import(&[SHOP, ORG])).await, (0, 0, 10));
        assert_eq!(world.audited().await.len(), events);
        let changed = SHOP.replace(
            "lifecycle: production\n  owner: payments\n  system: shop\n  providesApis",
            "lifecycle: deprecated\n  owner: payments\n  providesApis",
        );
        assert_eq!(counts(&world, import(&[&changed])).await, (0, 1, 5));
        let after = entity(&world, "component", "cart-service").await;
        assert_eq!((after.uid.as_str(), after.create_time), (cart.uid.as_str(), cart.create_time));
        assert_ne!(after.etag, cart.etag);
        assert!(!after.relations.iter().any(|r| r.r#type == "partOf"));
        let list = pb::ListEntitiesRequest {
            parent: "organizations/acme/kinds/-".into(),
            filter: "labels.tier = \"1\" AND tags:java AND spec.lifecycle = deprecated".into(),
            ..Default::default()
        };
        assert_eq!(
            world
                .client
                .catalog
                .clone()
                .list_entities(world.alice(list))
                .await
                .unwrap()
                .into_inner()
                .entities
                .len(),
            1
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_keeps_all_out() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let bad = "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata: { name: x }\nspec: { type: service, lifecycle: 7, dependsOn: ['a b'] }";
        let answer = world.client.catalog.clone().import_entities(world.alice(import(&[SHOP, bad]))).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        assert_eq!(fields(&error), ["documents[1].content.spec.lifecycle", "documents[1].content.spec.dependsOn.0"]);
        let list = pb::ListEntitiesRequest { parent: "organizations/acme/kinds/-".into(), ..Default::default() };
        assert!(world.client.catalog.clone().list_entities(world.alice(list)).await.unwrap().into_inner().entities.is_empty());
        let dry = pb::ImportEntitiesRequest { validate_only: true, ..import(&[SHOP]) };
        assert_eq!(counts(&world, dry).await, (6, 0, 0));
        assert_eq!(counts(&world, pb::ImportEntitiesRequest { request_id: uuid(), ..import(&[SHOP]) }).await, (6, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn bad_documents_are_refused_with_their_places() {
    let world = World::ready(db::sqlite()).await;
    let head = "apiVersion: backstage.io/v1alpha1\nkind: System\nmetadata: { name: x }";
    let twice = format!("{head}\n---\n{head}");
    let circle = "apiVersion: backstage.io/v1alpha1\nkind: Group\nmetadata: { name: a }\nspec: { type: t, parent: b }\n---\n\
        apiVersion: backstage.io/v1alpha1\nkind: Group\nmetadata: { name: b }\nspec: { type: t, parent: a }";
    let bomb = format!("a: &a [x]\n{}", (0..2_000).map(|n| format!("b{n}: *a\n")).collect::<String>());
    for (content, wanted) in [
        ("a: [", "documents[0].content"),
        ("a: 1\na: 2", "documents[0].content"),
        ("just text", "documents[0].content"),
        (
            "apiVersion: scaffolder.backstage.io/v1beta3\nkind: Template\nmetadata: { name: x }",
            "documents[0].content.kind",
        ),
        (&twice, "documents[0].content[1].metadata.name"),
        (circle, "documents[0].content[0].spec.parent"),
        (&bomb, "documents[0].content"),
        ("x: \"\\0\"", "documents[0].content.x"),
    ] {
        let answer = world.client.catalog.clone().import_entities(world.alice(import(&[content]))).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        assert!(fields(&error).contains(&wanted), "{content:.60}: {:?}", fields(&error));
    }
    let unruly = "apiVersion: backstage.io/v1alpha1\nkind: System\nmetadata:\n  name: x\n  title: \"a\\tb\"\n  \
        labels: { \"a b\": c }\n  tags: [ok, a b]\n  links: [{ url: \"https://x\", title: \"a\\tb\" }]\n\
        spec: { owner: group:a }";
    let answer = world.client.catalog.clone().import_entities(world.alice(import(&[unruly]))).await;
    let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
    let mut found = fields(&error);
    found.sort_unstable();
    let wanted = ["labels.a b", "links.0.title", "tags.1", "title"]
        .map(|at| format!("documents[0].content.metadata.{at}"));
    assert_eq!(found, wanted);
    let none = pb::ImportEntitiesRequest { documents: vec![], ..import(&[]) };
    let answer = world.client.catalog.clone().import_entities(world.alice(none)).await;
    assert_eq!(fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])), ["documents"]);
}

/// Ten thousand entities in the calls that a message's size allows. Prints how long it took.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_entities_are_imported_and_listed() {
    db::both(|db| async {
        let kind = db.kind;
        let world = World::ready(db).await;
        let one = |n: usize| {
            format!(
                "---\napiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata:\n  name: service-{n:05}\n  \
                 description: Service number {n}\n  labels: {{ tier: \"{}\", team: team-{} }}\n  tags: [java, grpc]\n\
                 spec: {{ type: service, lifecycle: production, owner: team-{}, system: system-{}, dependsOn: [service-{:05}] }}\n",
                n % 5, n % 500, n % 500, n % 100, (n + 1) % 10_000
            )
        };
        let started = Instant::now();
        for part in 0..5 {
            let contents: Vec<String> = (0..20).map(|doc| (0..100).map(|n| one(part * 2_000 + doc * 100 + n)).collect()).collect();
            let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
            assert_eq!(counts(&world, import(&contents)).await, (2_000, 0, 0));
        }
        println!("{kind}: imported 10,000 entities in {:?}", started.elapsed());
        let list = |filter: &str, order_by: &str| pb::ListEntitiesRequest {
            parent: "organizations/acme/kinds/component".into(),
            page_size: 20,
            filter: filter.into(),
            order_by: order_by.into(),
            ..Default::default()
        };
        for (filter, order_by) in [
            ("labels.team = team-7", ""),
            ("labels.tier = \"3\"", ""),
            ("labels.tier = \"3\"", "create_time desc"),
            ("tags:java", "display_name"),
            ("owner = \"organizations/acme/groups/team-7\"", ""),
            ("spec.system = system-9", ""),
        ] {
            // The first call also pays for what is cached afterwards.
            world.client.catalog.clone().list_entities(world.alice(list(filter, order_by))).await.unwrap();
            let started = Instant::now();
            let found = world.client.catalog.clone().list_entities(world.alice(list(filter, order_by))).await.unwrap().into_inner();
            assert_eq!(found.entities.len(), 20);
            assert!(found.entities.iter().all(|e| e.relations.len() >= 3));
            println!("{kind}: {filter} by `{order_by}`: {:?}", started.elapsed());
        }
        let started = Instant::now();
        let one = entity(&world, "component", "service-00007").await;
        println!("{kind}: one entity: {:?}", started.elapsed());
        let spec = pavior_rpc::convert::from_struct(one.spec.as_ref().unwrap());
        assert_eq!(spec["dependsOn"], json!(["service-00008"]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_does_to_owners_is_told_before_it_is_done() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let document = |id: &str, owner: &str| {
            format!(
                "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata: {{ name: {id} }}\n\
                 spec: {{ type: service, lifecycle: production, owner: {owner} }}\n"
            )
        };
        counts(&world, import(&[&document("cart", "payments"), &document("till", "user:frank")])).await;
        let (cart, till, shelf, stock, bag) = (
            document("cart", "storefront"),
            document("till", "storefront"),
            document("shelf", "storefront"),
            document("stock", "storefront"),
            document("bag", "user:frank"),
        );
        let request = import(&[&cart, &till, &shelf, &stock, &bag]);
        let ask = |method: &str, name: &str| facts_pb::GetResourceFactsRequest {
            name: name.to_owned(),
            method: method.to_owned(),
            message: request.encode_to_vec(),
            ..Default::default()
        };
        let facts = world.alice(ask(IMPORT, "organizations/acme"));
        let facts = world.facts.clone().get_resource_facts(facts).await.unwrap().into_inner();
        let changes = facts.owner_changes.iter().map(|change| {
            let short = |name: &str| name.trim_start_matches("organizations/acme/groups/").to_owned();
            let facts_pb::OwnerChange { action, r#type, owner, new_owner, moves } = change;
            assert_eq!(r#type, "catalog.pavior.dev/Entity");
            format!("{action} {:?} {:?} {moves}", short(owner), short(new_owner))
        });
        assert_eq!(
            changes.collect::<Vec<_>>(),
            [
                "catalog.entities.create \"\" \"\" false",
                "catalog.entities.create \"\" \"storefront\" false",
                "catalog.entities.update \"\" \"storefront\" true",
                "catalog.entities.update \"payments\" \"storefront\" true",
            ]
        );
        for (method, name, field) in [
            ("/pavior.catalog.v1.CatalogService/DeleteEntity", "organizations/acme", "method"),
            (IMPORT, "organizations/acme/groups/a", "message"),
        ] {
            let answer = world.facts.clone().get_resource_facts(world.alice(ask(method, name))).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(error.violations[0].field, field);
        }
    })
    .await;
}

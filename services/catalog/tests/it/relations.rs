//! Relations of entities: those that they declare, and those that others declare of them.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component, mask, object};
use pavior_testkit::{assert_problem, fields};

const KIND: &str = "organizations/acme/kinds/component";
/// Most relations that an entity declares.
const MAX: usize = 1_000;

fn name(id: &str) -> String {
    format!("{KIND}/entities/{id}")
}

async fn get(world: &World, id: &str) -> pb::Entity {
    let request = pb::GetEntityRequest { name: name(id), ..Default::default() };
    world.client.catalog.clone().get_entity(world.alice(request)).await.unwrap().into_inner()
}

fn seen(relations: &[pb::entity::Relation]) -> Vec<String> {
    let short = |target: &str| target.rsplit('/').next().unwrap().to_owned();
    relations.iter().map(|r| format!("{} {} {}", r.r#type, short(&r.target), r.resolved)).collect()
}

fn list(parent: &str, page_size: i32, page_token: String) -> pb::ListEntityRelationsRequest {
    pb::ListEntityRelationsRequest {
        parent: parent.to_owned(),
        page_size,
        page_token,
        return_total_size: true,
    }
}

/// Everything that the pages of this size hold.
async fn all(world: &World, id: &str, page_size: i32) -> Vec<String> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let request = world.alice(list(&name(id), page_size, token));
        let page = world.client.catalog.clone().list_entity_relations(request).await.unwrap().into_inner();
        assert!(page_size == 0 || page.relations.len() <= usize::try_from(page_size).unwrap());
        found.extend(seen(&page.relations));
        token = page.next_page_token;
        if token.is_empty() {
            assert_eq!(page.total_size.map(|total| total as usize), Some(found.len()));
            return found;
        }
    }
}

/// A page of entities ends where its relations would be too many, and goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_entities_has_a_bounded_number_of_relations() {
    let world = World::ready(db::sqlite()).await;
    let apis: Vec<String> = (0..MAX).map(|n| format!("api-{n}")).collect();
    for n in 0..21 {
        world.component("acme", &format!("wide-{n:02}"), json!({ "providesApis": apis })).await;
    }
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let request =
            pb::ListEntitiesRequest { parent: KIND.into(), page_token: token, ..Default::default() };
        let page =
            world.client.catalog.clone().list_entities(world.alice(request)).await.unwrap().into_inner();
        assert!(page.entities.iter().all(|entity| entity.relations.len() == MAX));
        pages.push(page.entities.iter().map(|entity| entity.name.clone()).collect::<Vec<_>>());
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages.concat(), (0..21).map(|n| name(&format!("wide-{n:02}"))).collect::<Vec<_>>());
    assert!(pages.len() > 1 && pages.iter().all(|page| page.len() <= 20), "{pages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_are_seen_from_both_sides() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let team = world.group("acme", "team-a", "").await;
        world.component("acme", "stock", json!({})).await;
        let mut request = create_component(
            "acme",
            "cart",
            json!({"dependsOn": ["stock", "resource:cart-db"], "system": "shop"}),
        );
        request.entity.as_mut().unwrap().owner = team.name.clone();
        let cart =
            world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap().into_inner();
        let wanted =
            ["dependsOn stock true", "dependsOn cart-db false", "ownedBy team-a true", "partOf shop false"];
        assert_eq!(seen(&cart.relations), wanted);
        assert_eq!(get(&world, "cart").await, cart);
        // The entity itself says what it declares, and no more; the list has both sides.
        assert_eq!(get(&world, "stock").await.relations, []);
        assert_eq!(all(&world, "stock", 0).await, ["dependencyOf cart true"]);
        assert_eq!(all(&world, "cart", 0).await, wanted);

        // What is needed stays; what declares may go.
        let mut client = world.client.clone();
        let delete = |id: &str| pb::DeleteEntityRequest { name: name(id), ..Default::default() };
        let error = assert_problem(
            client.catalog.delete_entity(world.alice(delete("stock"))).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, cart.name);
        assert_eq!(error.metadata["more"], "false");
        let update = pb::UpdateEntityRequest {
            entity: Some(pb::Entity {
                name: cart.name.clone(),
                spec: Some(object(json!({"dependsOn": []}))),
                ..Default::default()
            }),
            update_mask: mask(&["spec.dependsOn"]),
            ..Default::default()
        };
        let updated = client.catalog.update_entity(world.alice(update)).await.unwrap().into_inner();
        assert_eq!(seen(&updated.relations), ["ownedBy team-a true", "partOf shop false"]);
        assert_eq!(all(&world, "stock", 0).await, Vec::<String>::new());
        client.catalog.delete_entity(world.alice(delete("stock"))).await.unwrap();
        let gone = pb::GetEntityRequest { name: name("stock"), ..Default::default() };
        let error = assert_problem(
            client.catalog.get_entity(world.alice(gone)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        assert_eq!(error.resource.unwrap().name, name("stock"));
    })
    .await;
}

/// A kind `gadget` with rules of which several say the same, or nearly.
async fn gadgets(world: &World) {
    let rule = |field: &str, relation: &str, inverse: &str| pb::kind::RelationRule {
        field: field.into(),
        r#type: relation.into(),
        inverse_type: inverse.into(),
        default_kind_id: "component".into(),
    };
    let rules = [
        rule("uses", "uses", "usedBy"),
        rule("needs", "uses", "usedBy"),
        rule("wants", "uses", "wantedBy"),
        rule("likes", "likes", "usedBy"),
    ];
    let request = pb::CreateKindRequest {
        parent: "organizations/acme".into(),
        kind_id: "gadget".into(),
        kind: Some(pb::Kind { relation_rules: rules.into(), ..Default::default() }),
        ..Default::default()
    };
    world.client.catalog.clone().create_kind(world.alice(request)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_several_times_is_one_relation() {
    db::both(|db| async {
        let world = World::ready(db).await;
        gadgets(&world).await;
        world.component("acme", "base", json!({})).await;
        let spec = json!({"uses": "base", "needs": ["base"], "wants": "base", "likes": "base"});
        let request = pb::CreateEntityRequest {
            parent: "organizations/acme/kinds/gadget".into(),
            entity_id: "lamp".into(),
            entity: Some(pb::Entity { spec: Some(object(spec)), ..Default::default() }),
            ..Default::default()
        };
        let lamp =
            world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap().into_inner();
        assert_eq!(seen(&lamp.relations), ["likes base true", "uses base true"]);
        assert_eq!(all(&world, "base", 1).await, ["usedBy lamp true", "wantedBy lamp true"]);
        // Each says it of the other.
        world.component("acme", "web", json!({"dependsOn": ["stock"]})).await;
        world.component("acme", "stock", json!({"dependencyOf": ["web"]})).await;
        assert_eq!(all(&world, "web", 1).await, ["dependsOn stock true"]);
        assert_eq!(all(&world, "stock", 1).await, ["dependencyOf web true"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_relation_once_in_order() {
    db::both(|db| async {
        let world = World::ready(db).await;
        world
            .component("acme", "hub", json!({"dependsOn": ["a-3", "none", "api:hub"], "system": "shop"}))
            .await;
        for n in 0..7 {
            // The third is related from both sides, and once more in its own way.
            let spec = if n == 3 {
                json!({"dependencyOf": ["hub"], "subcomponentOf": "hub"})
            } else {
                json!({"dependsOn": ["hub"]})
            };
            world.component("acme", &format!("a-{n}"), spec).await;
        }
        let mut wanted: Vec<String> = [0, 1, 2, 4, 5, 6].map(|n| format!("dependencyOf a-{n} true")).to_vec();
        // By type, then by kind and id of the target.
        wanted.extend(
            [
                "dependsOn hub false",
                "dependsOn a-3 true",
                "dependsOn none false",
                "hasPart a-3 true",
                "partOf shop false",
            ]
            .map(str::to_owned),
        );
        for page_size in [0, 1, 2, 3, 5, 11, 1_000] {
            assert_eq!(all(&world, "hub", page_size).await, wanted, "{page_size}");
        }
        // What the neighbours of the same id have is not its own.
        let request = pb::CreateEntityRequest {
            parent: "organizations/acme/kinds/system".into(),
            entity_id: "hub".into(),
            entity: Some(pb::Entity::default()),
            ..Default::default()
        };
        let other =
            world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap().into_inner();
        let request = world.alice(list(&other.name, 0, String::new()));
        let page = world.client.catalog.clone().list_entity_relations(request).await.unwrap().into_inner();
        assert_eq!((page.relations.len(), page.next_page_token.as_str()), (0, ""));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_relations_are_refused_where_they_cannot_be_given() {
    db::both(|db| async {
        let world = World::ready(db).await;
        world.component("acme", "hub", json!({"dependsOn": ["a", "b"]})).await;
        world.component("acme", "other", json!({"dependsOn": ["a", "b"]})).await;
        world.component("umbrella", "secret", json!({})).await;
        let ask =
            async |request| world.client.catalog.clone().list_entity_relations(world.alice(request)).await;
        let page = ask(list(&name("hub"), 1, String::new())).await.unwrap().into_inner();
        let token = page.next_page_token;
        let larger = ask(list(&name("hub"), 10, token.clone())).await.unwrap().into_inner();
        assert_eq!(seen(&larger.relations), ["dependsOn b false"]);
        let elsewhere = ask(list(&name("other"), 1, token)).await;
        let error = assert_problem(elsewhere, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[]);
        assert_eq!(fields(&error), ["page_token"]);
        let error = assert_problem(
            ask(list(&name("none"), 0, String::new())).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        assert_eq!(error.resource.unwrap().name, name("none"));
        for (parent, page_size, field) in [
            ("", 0, "parent"),
            (KIND, 0, "parent"),
            ("organizations/acme/groups/a", 0, "parent"),
            ("organizations/acme/kinds/-/entities/hub", 0, "parent"),
            (&name("hub"), -1, "page_size"),
        ] {
            let answer = ask(list(parent, page_size, String::new())).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&error), [field], "{parent}");
        }
        for id in ["secret", "absent"] {
            let foreign = format!("organizations/umbrella/kinds/component/entities/{id}");
            assert_problem(
                ask(list(&foreign, 0, String::new())).await,
                Code::PermissionDenied,
                "ACCESS_DENIED",
                &[],
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_declares_a_bounded_number_of_relations() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let some = |from: usize, n: usize| (from..from + n).map(|n| format!("c-{n:04}")).collect::<Vec<_>>();
        let full = world.component("acme", "full", json!({"dependsOn": some(0, MAX)})).await;
        assert_eq!(full.relations.len(), MAX);
        assert_eq!(all(&world, "full", 300).await.len(), MAX);
        // As many again in a list: nothing is cut off.
        world.component("acme", "twin", json!({"dependsOn": some(0, MAX)})).await;
        let request = pb::ListEntitiesRequest { parent: KIND.into(), ..Default::default() };
        let found =
            world.client.catalog.clone().list_entities(world.alice(request)).await.unwrap().into_inner();
        assert_eq!(found.entities.iter().map(|one| one.relations.len()).collect::<Vec<_>>(), [MAX, MAX]);

        let why = "an entity declares at most 1000 relations, its owner among them";
        let over = json!({"dependsOn": some(0, MAX - 1), "dependencyOf": some(MAX, 2)});
        let create = world
            .client
            .catalog
            .clone()
            .create_entity(world.alice(create_component("acme", "over", over)))
            .await;
        let error = assert_problem(create, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(fields(&error), ["entity.spec.dependencyOf"]);
        assert_eq!(
            (error.violations[0].reason.as_str(), error.violations[0].description.as_str()),
            ("TOO_MANY", why)
        );
        let update = pb::UpdateEntityRequest {
            entity: Some(pb::Entity {
                name: full.name.clone(),
                spec: Some(object(json!({"dependsOn": some(0, MAX + 1)}))),
                ..Default::default()
            }),
            update_mask: mask(&["spec.dependsOn"]),
            ..Default::default()
        };
        let answer = world.client.catalog.clone().update_entity(world.alice(update)).await;
        assert_eq!(
            fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
            ["entity.spec.dependsOn"]
        );
        let document = |n: usize| {
            let content = format!(
                "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata: {{ name: told }}\n\
                 spec: {{ type: service, lifecycle: production, owner: one, dependsOn: [{}] }}\n",
                some(0, n).join(", ")
            );
            let document = pb::import_entities_request::Document { origin: "test".into(), content };
            let parent = "organizations/acme".to_owned();
            pb::ImportEntitiesRequest { parent, documents: vec![document], ..Default::default() }
        };
        // The owner is a relation too.
        let import = async |request| world.client.catalog.clone().import_entities(world.alice(request)).await;
        let error =
            assert_problem(import(document(MAX)).await, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        assert_eq!(fields(&error), ["documents[0].content.spec.dependsOn"]);
        assert_eq!(
            (error.violations[0].reason.as_str(), error.violations[0].description.as_str()),
            ("TOO_MANY", why)
        );
        import(document(MAX - 1)).await.unwrap();
        assert_eq!(get(&world, "told").await.relations.len(), MAX);
    })
    .await;
}

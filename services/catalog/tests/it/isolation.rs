//! One organization gets nothing of another: by name, list, batch, import, reference or error text. And facts.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::governance::internal::v1 as facts_pb;
use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component};
use pavior_testkit::{assert_problem, fields};

#[tokio::test(flavor = "multi_thread")]
async fn names_of_another_organization_are_denied_whether_they_exist_or_not() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        world.component("umbrella", "secret", json!({})).await;
        world.group("umbrella", "lab", "").await;
        let mut texts = Vec::new();
        for id in ["secret", "absent"] {
            let name = format!("organizations/umbrella/kinds/component/entities/{id}");
            let get = pb::GetEntityRequest { name: name.clone(), ..Default::default() };
            let error = assert_problem(
                client.catalog.get_entity(world.alice(get)).await,
                Code::PermissionDenied,
                "ACCESS_DENIED",
                &[],
            );
            texts.push(error.message.replace(id, "X"));
            let delete = pb::DeleteEntityRequest { name: name.clone(), ..Default::default() };
            assert_problem(
                client.catalog.delete_entity(world.alice(delete)).await,
                Code::PermissionDenied,
                "ACCESS_DENIED",
                &[],
            );
            let entity = pb::Entity { name: name.clone(), description: "mine".into(), ..Default::default() };
            let update = pb::UpdateEntityRequest { entity: Some(entity), ..Default::default() };
            assert_problem(
                client.catalog.update_entity(world.alice(update)).await,
                Code::PermissionDenied,
                "ACCESS_DENIED",
                &[],
            );
            let batch = pb::BatchGetEntitiesRequest {
                parent: "organizations/acme/kinds/-".into(),
                names: vec![name],
            };
            assert_problem(
                client.catalog.batch_get_entities(world.alice(batch)).await,
                Code::PermissionDenied,
                "ACCESS_DENIED",
                &[],
            );
        }
        assert_eq!(texts[0], texts[1]);
        let parent = "organizations/umbrella".to_owned();
        let list = pb::ListEntitiesRequest { parent: format!("{parent}/kinds/-"), ..Default::default() };
        assert_problem(
            client.catalog.list_entities(world.alice(list)).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
        let list = identity_pb::ListGroupsRequest { parent: parent.clone(), ..Default::default() };
        assert_problem(
            client.identity.list_groups(world.alice(list)).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
        assert_problem(
            client.catalog.create_entity(world.alice(create_component("umbrella", "x", json!({})))).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
        let import = pb::ImportEntitiesRequest {
            parent: parent.clone(),
            documents: vec![pb::import_entities_request::Document {
                content: "a: 1".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_problem(
            client.catalog.import_entities(world.alice(import)).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
        let directory =
            directory_pb::GetDirectoryRequest { organization: parent.clone(), ..Default::default() };
        let mut policy = world.policy.clone();
        assert_problem(
            policy.directory.get_directory(world.by_service("policy", directory)).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
        let facts =
            facts_pb::GetResourceFactsRequest { name: format!("{parent}/groups/lab"), ..Default::default() };
        assert_problem(
            world.facts.clone().get_resource_facts(world.alice(facts)).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
        let get = identity_pb::GetOrganizationRequest { name: parent };
        assert_problem(
            client.identity.get_organization(world.alice(get)).await,
            Code::PermissionDenied,
            "ACCESS_DENIED",
            &[],
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_names_live_side_by_side() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        for organization in ["acme", "umbrella"] {
            world.component(organization, "base", json!({})).await;
            let mut labelled = create_component(organization, "cart", json!({"dependsOn": ["base"]}));
            labelled.entity.as_mut().unwrap().labels = [("tier".to_owned(), "gold".to_owned())].into();
            client.catalog.create_entity(world.in_org(organization, labelled)).await.unwrap();
        }
        let list = |organization: &str| pb::ListEntitiesRequest {
            parent: format!("organizations/{organization}/kinds/-"),
            filter: "labels.tier = gold OR base".into(),
            ..Default::default()
        };
        let found = client.catalog.list_entities(world.alice(list("acme"))).await.unwrap().into_inner();
        assert_eq!(found.entities.len(), 2);
        for entity in &found.entities {
            assert!(entity.name.starts_with("organizations/acme/"));
            let list = pb::ListEntityRelationsRequest { parent: entity.name.clone(), ..Default::default() };
            let seen = client.catalog.list_entity_relations(world.alice(list)).await.unwrap().into_inner();
            assert_eq!(seen.relations.len(), 1, "each is related to the other, and to nothing else");
            let mut both = seen.relations.iter().chain(&entity.relations);
            assert!(both.all(|r| r.target.starts_with("organizations/acme/")));
        }
        // What one declares does not bind the other.
        let cart = "organizations/acme/kinds/component/entities/cart".to_owned();
        client
            .catalog
            .delete_entity(world.alice(pb::DeleteEntityRequest { name: cart, ..Default::default() }))
            .await
            .unwrap();
        let base = "organizations/acme/kinds/component/entities/base".to_owned();
        client
            .catalog
            .delete_entity(world.alice(pb::DeleteEntityRequest { name: base, ..Default::default() }))
            .await
            .unwrap();
        let found = client
            .catalog
            .list_entities(world.in_org("umbrella", list("umbrella")))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(found.entities.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_of_the_resource_or_of_what_is_above_it() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let team = world.group("acme", "team", "").await;
        let mut request = create_component("acme", "cart", json!({}));
        let entity = request.entity.as_mut().unwrap();
        entity.owner = team.name.clone();
        entity.labels = [("tier".to_owned(), "gold".to_owned())].into();
        world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap();
        let facts = |name: &str| {
            let request = world.alice(facts_pb::GetResourceFactsRequest {
                name: format!("organizations/acme{name}"),
                ..Default::default()
            });
            let mut client = world.facts.clone();
            async move { client.get_resource_facts(request).await.unwrap().into_inner() }
        };
        let cart = facts("/kinds/component/entities/cart").await;
        assert_eq!(
            (cart.exists, cart.owner.as_str(), cart.labels["tier"].as_str()),
            (true, team.name.as_str(), "gold")
        );
        assert_eq!(cart.r#type, "catalog.pavior.dev/Entity");
        let absent = facts("/kinds/component/entities/none").await;
        assert_eq!((absent.exists, absent.name.as_str()), (false, "organizations/acme/kinds/component"));
        let group = facts("/groups/team").await;
        assert_eq!((group.exists, group.r#type.as_str()), (true, "identity.pavior.dev/Group"));
        let member = facts("/groups/nobody/memberships/alice").await;
        assert_eq!((member.exists, member.name.as_str()), (false, "organizations/acme"));
        assert_eq!(member.r#type, "identity.pavior.dev/Organization");
        assert!(facts("").await.exists);
        for bad in ["nonsense", "organizations/acme/projects/shop", "organizations/acme/kinds/component/x/y"]
        {
            let bad = facts_pb::GetResourceFactsRequest { name: bad.into(), ..Default::default() };
            let refused = world.facts.clone().get_resource_facts(world.alice(bad)).await;
            let problem = assert_problem(refused, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&problem), ["name"]);
        }
    })
    .await;
}

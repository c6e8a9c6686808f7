//! Entities of resources: what provisioning registers, and nobody else changes.

use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_rpc::problem::Decoded;
use pavior_testkit::db::both;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component, mask};
use pavior_testkit::{assert_problem, fields};

pub(crate) const OPERATION: &str = "01980000-0000-7000-8000-000000000001";
pub(crate) const RESOURCE: &str = "organizations/acme/projects/shop/resources/catalog";

pub(crate) fn register(id: &str, resource: &str, title: &str) -> registration_pb::RegisterEntityRequest {
    let entity = create_component("acme", id, json!({})).entity.unwrap();
    registration_pb::RegisterEntityRequest {
        parent: "organizations/acme/kinds/component".to_owned(),
        entity_id: id.to_owned(),
        entity: Some(pb::Entity { display_name: title.to_owned(), ..entity }),
        resource: resource.to_owned(),
        key: "k1".to_owned(),
        operation_id: OPERATION.to_owned(),
        declaration_digest: format!("declared as {title}"),
        create: false,
        uid: String::new(),
    }
}

impl World {
    pub(crate) async fn register(
        &self,
        request: registration_pb::RegisterEntityRequest,
    ) -> Result<tonic::Response<pb::Entity>, tonic::Status> {
        self.provisioning.clone().registration.register_entity(self.by_provisioning(request)).await
    }

    pub(crate) async fn unregister(&self, name: &str, resource: &str) {
        self.unregister_one(name, resource, ["", ""]).await;
    }

    async fn unregister_one(&self, name: &str, resource: &str, [uid, key]: [&str; 2]) {
        let request = registration_pb::UnregisterEntityRequest {
            name: name.to_owned(),
            resource: resource.to_owned(),
            operation_id: OPERATION.to_owned(),
            uid: uid.to_owned(),
            key: key.to_owned(),
        };
        self.provisioning
            .clone()
            .registration
            .unregister_entity(self.by_provisioning(request))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_entity_of_a_resource_is_made_kept_and_taken_back_by_its_resource_only() {
    both(|db| async move {
        let world = World::ready(db).await;
        let made = world.register(register("shop", RESOURCE, "Shop")).await.unwrap().into_inner();
        assert_eq!(made.annotations["pavior.dev/resource"], RESOURCE);
        assert_eq!(made.annotations["pavior.dev/key"], "k1");
        assert_eq!(made.annotations["pavior.dev/declaration"], "declared as Shop");
        // What people add to it stays.
        let mut mine = made.clone();
        mine.annotations.insert("team/pager".to_owned(), "on".to_owned());
        let request = pb::UpdateEntityRequest {
            entity: Some(mine),
            update_mask: mask(&["annotations"]),
            ..Default::default()
        };
        world.client.catalog.clone().update_entity(world.alice(request)).await.unwrap();
        let again = world.register(register("shop", RESOURCE, "Shop 2")).await.unwrap().into_inner();
        assert_eq!((again.uid, again.display_name.as_str()), (made.uid.clone(), "Shop 2"));
        assert_eq!(again.annotations["team/pager"], "on");
        // Whoever makes the resource goes on with what it has made itself, and takes over nothing of an earlier one.
        let creation = |key: &str| registration_pb::RegisterEntityRequest {
            create: true,
            key: key.to_owned(),
            ..register("shop", RESOURCE, "Shop 2")
        };
        assert_eq!(world.register(creation("k1")).await.unwrap().into_inner().uid, made.uid);
        let left = world.register(creation("k2")).await;
        assert_problem(left, Code::AlreadyExists, "RESOURCE_ALREADY_EXISTS", &[]);
        // Whoever brings it up to date means the one that it knows; what it has made itself meanwhile is that, too.
        let over = |key: &str, uid: &str| registration_pb::RegisterEntityRequest {
            key: key.to_owned(),
            uid: uid.to_owned(),
            ..register("shop", RESOURCE, "Shop 2")
        };
        assert_eq!(world.register(over("k2", &made.uid)).await.unwrap().into_inner().uid, made.uid);
        let other = world.register(over("k3", "0190b5c8-0000-7000-8000-000000000000")).await;
        assert_problem(other, Code::AlreadyExists, "RESOURCE_ALREADY_EXISTS", &[]);
        world.register(over("k1", "0190b5c8-0000-7000-8000-000000000000")).await.unwrap();
        assert_eq!(world.register(creation("k1")).await.unwrap().into_inner().uid, made.uid, "its key stays");
        // Not those of others: of another resource, or of people.
        assert_problem(
            world.register(register("shop", "organizations/acme/projects/b/resources/x", "B")).await,
            Code::AlreadyExists,
            "RESOURCE_ALREADY_EXISTS",
            &[],
        );
        let own = world.component("acme", "own", json!({})).await;
        assert_problem(
            world.register(register("own", RESOURCE, "Mine")).await,
            Code::AlreadyExists,
            "RESOURCE_ALREADY_EXISTS",
            &[],
        );
        let needs = |name: &str, resource: &str| {
            let request = registration_pb::ListDependentsRequest {
                name: name.into(),
                resource: resource.into(),
                uid: String::new(),
            };
            let (mut client, request) = (world.provisioning.clone(), world.by_provisioning(request));
            async move { client.registration.list_dependents(request).await.unwrap().into_inner().entities }
        };
        // Its owner does not need it, nor what it needs itself.
        assert_eq!(needs(&made.name, RESOURCE).await, Vec::<String>::new());
        let mut user = create_component("acme", "user", json!({ "dependsOn": ["component:shop"] }));
        user.entity.as_mut().unwrap().owner = made.owner.clone();
        let user = world.client.catalog.clone().create_entity(world.alice(user)).await.unwrap().into_inner();
        assert_eq!(needs(&made.name, RESOURCE).await, std::slice::from_ref(&user.name));
        assert_eq!(
            needs(&made.name, "organizations/acme/projects/b/resources/x").await,
            Vec::<String>::new()
        );
        assert_eq!(needs(&user.name, RESOURCE).await, Vec::<String>::new());
        let gone = pb::DeleteEntityRequest { name: user.name, ..Default::default() };
        world.client.catalog.clone().delete_entity(world.alice(gone)).await.unwrap();
        world.unregister(&own.name, RESOURCE).await;
        world.unregister(&made.name, "organizations/acme/projects/b/resources/x").await;
        world.unregister_one(&made.name, RESOURCE, [&own.uid, ""]).await;
        world.unregister_one(&made.name, RESOURCE, ["", "k2"]).await;
        let get =
            |name: &str| world.alice(pb::GetEntityRequest { name: name.to_owned(), ..Default::default() });
        for name in [&own.name, &made.name] {
            world.client.catalog.clone().get_entity(get(name)).await.unwrap();
        }
        world.unregister_one(&made.name, RESOURCE, [&made.uid, "k1"]).await;
        assert_problem(
            world.client.catalog.clone().get_entity(get(&made.name)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        world.unregister(&made.name, RESOURCE).await;
        let records = world
            .audited()
            .await
            .into_iter()
            .filter(|record| record.target.as_ref().unwrap().name == made.name);
        let causes = records.map(|record| (record.action, record.cause.operation));
        let operation = format!("organizations/acme/operations/{OPERATION}");
        let of = |action: &str, operation: &str| (action.to_owned(), operation.to_owned());
        assert_eq!(
            causes.collect::<Vec<_>>(),
            [
                of("catalog.entities.register", &operation),
                of("catalog.entities.update", ""),
                of("catalog.entities.register", &operation),
                of("catalog.entities.unregister", &operation),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_project_declares_is_changed_by_the_project_only() {
    both(|db| async move {
        let world = World::ready(db).await;
        world.group("acme", "payments", "").await;
        let made = world.register(register("shop", RESOURCE, "Shop")).await.unwrap().into_inner();
        let events = world.audited().await.len();
        let managed = |error: Decoded| {
            assert_eq!(error.metadata["managedBy"], RESOURCE);
            let told = format!("`{}` is managed by a project: change or delete it there", made.name);
            assert_eq!(error.message, told);
            let [violation] = &*error.preconditions else { panic!("{error:?}") };
            assert_eq!((violation.r#type.as_str(), &violation.subject), ("STATE", &made.name));
            let how = format!("is made for `{RESOURCE}`: change its project, with which it changes");
            assert_eq!(violation.description, how);
        };
        let update = |path: &str, entity: pb::Entity| {
            let entity = Some(pb::Entity { name: made.name.clone(), ..entity });
            let request =
                pb::UpdateEntityRequest { entity, update_mask: mask(&[path]), ..Default::default() };
            let (mut client, request) = (world.client.clone(), world.alice(request));
            async move { client.catalog.update_entity(request).await }
        };
        let spec = create_component("acme", "x", json!({ "type": "library" })).entity.unwrap().spec;
        let owner = "organizations/acme/groups/payments".to_owned();
        for (path, entity) in [
            ("display_name", pb::Entity { display_name: "Mine".to_owned(), ..Default::default() }),
            ("description", pb::Entity { description: "Mine".to_owned(), ..Default::default() }),
            ("owner", pb::Entity { owner, ..Default::default() }),
            ("spec", pb::Entity { spec, ..Default::default() }),
        ] {
            managed(assert_problem(
                update(path, entity).await,
                Code::FailedPrecondition,
                "INVALID_STATE",
                &[],
            ));
        }
        for allow_missing in [false, true] {
            let request =
                pb::DeleteEntityRequest { name: made.name.clone(), allow_missing, ..Default::default() };
            let answer = world.client.catalog.clone().delete_entity(world.alice(request)).await;
            managed(assert_problem(answer, Code::FailedPrecondition, "INVALID_STATE", &[]));
        }
        assert_eq!(world.audited().await.len(), events);
        // What a project does not declare is everybody's, and what changes nothing is no change.
        let tagged = pb::Entity { tags: vec!["shop".to_owned()], ..Default::default() };
        assert_eq!(update("tags", tagged).await.unwrap().into_inner().tags, ["shop"]);
        let same = pb::Entity { display_name: "Shop".to_owned(), ..Default::default() };
        assert_eq!(update("display_name", same).await.unwrap().into_inner().display_name, "Shop");
    })
    .await;
}

#[tokio::test]
async fn an_entity_of_another_owner_does_not_keep_a_project_from_going() {
    both(|db| async move {
        let world = World::ready(db).await;
        for group in ["payments", "web"] {
            world.group("acme", group, "").await;
        }
        let owned = |group: &str| format!("organizations/acme/groups/{group}");
        let mut request = register("shop", RESOURCE, "Shop");
        request.entity.as_mut().unwrap().owner = owned("payments");
        let made = world.register(request).await.unwrap().into_inner();
        let mut dependents = Vec::new();
        for (id, group) in [("own", "payments"), ("foreign", "web")] {
            let mut request = create_component("acme", id, json!({ "dependsOn": ["component:shop"] }));
            request.entity.as_mut().unwrap().owner = owned(group);
            let made = world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap();
            dependents.push(made.into_inner().name);
        }
        let unregister = || {
            let request = registration_pb::UnregisterEntityRequest {
                name: made.name.clone(),
                resource: RESOURCE.to_owned(),
                operation_id: OPERATION.to_owned(),
                uid: String::new(),
                key: String::new(),
            };
            let (mut client, request) = (world.provisioning.clone(), world.by_provisioning(request));
            async move { client.registration.unregister_entity(request).await }
        };
        let listed = registration_pb::ListDependentsRequest {
            name: made.name.clone(),
            resource: RESOURCE.to_owned(),
            uid: made.uid.clone(),
        };
        let listed = world.by_provisioning(listed);
        let listed = world.provisioning.clone().registration.list_dependents(listed).await.unwrap();
        assert_eq!(listed.into_inner().entities, dependents[..1]);
        let error = assert_problem(unregister().await, Code::FailedPrecondition, "HAS_DEPENDENTS", &[]);
        let named: Vec<&str> = error.preconditions.iter().map(|one| one.subject.as_str()).collect();
        assert_eq!(named, [dependents[0].as_str()]);

        let request = pb::DeleteEntityRequest { name: dependents[0].clone(), ..Default::default() };
        world.client.catalog.clone().delete_entity(world.alice(request)).await.unwrap();
        unregister().await.unwrap();
        let request = pb::GetEntityRequest { name: dependents[1].clone(), ..Default::default() };
        let foreign = world.client.catalog.clone().get_entity(world.alice(request)).await.unwrap();
        let relations = foreign.into_inner().relations.into_iter();
        let left: Vec<_> = relations.filter(|one| one.r#type == "dependsOn").collect();
        assert_eq!(left.len(), 1);
        assert_eq!((&left[0].target, left[0].resolved), (&made.name, false));
    })
    .await;
}

/// What drivers have is compared with what is declared: of all organizations, in order, a part at a time, and without
/// what people made.
#[tokio::test]
async fn entities_of_resources_are_listed_over_all_organizations() {
    both(|db| async move {
        let world = World::ready(db).await;
        world.component("acme", "own", json!({})).await;
        let mut uids = std::collections::BTreeMap::new();
        for id in ["shop", "cart"] {
            let made = world.register(register(id, RESOURCE, id)).await.unwrap().into_inner();
            uids.insert(id.to_owned(), made.uid);
        }
        let list = |after: &str, page_size| {
            let after = after.to_owned();
            let request = registration_pb::ListRegisteredEntitiesRequest { page_size, after };
            let (mut client, request) = (world.provisioning.clone(), world.by_provisioning(request));
            async move { client.registration.list_registered_entities(request).await }
        };
        let name = |id: &str| format!("organizations/acme/kinds/component/entities/{id}");
        let entity = |id: &str| registration_pb::RegisteredEntity {
            name: name(id),
            resource: RESOURCE.to_owned(),
            key: "k1".to_owned(),
            declaration_digest: format!("declared as {id}"),
            uid: uids[id].clone(),
        };
        let all = list("", 10).await.unwrap().into_inner().entities;
        assert_eq!(all, [entity("cart"), entity("shop")]);
        assert_eq!(list("", 1).await.unwrap().into_inner().entities, [entity("cart")]);
        assert_eq!(list(&name("cart"), 1).await.unwrap().into_inner().entities, [entity("shop")]);
        // One that is gone is a place to go on from, too.
        world.unregister(&name("cart"), RESOURCE).await;
        assert_eq!(list(&name("cart"), 10).await.unwrap().into_inner().entities, [entity("shop")]);
        assert_eq!(list("", 10).await.unwrap().into_inner().entities, [entity("shop")]);
        for page_size in [0, 1_001] {
            let problem =
                assert_problem(list("", page_size).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&problem), ["page_size"]);
        }
    })
    .await;
}

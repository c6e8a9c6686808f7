//! What is the platform's own.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_rpc::problem::Decoded;
use pavior_testkit::db::both;
use serde_json::json;
use tonic::Code;

use crate::registration::{RESOURCE, register};
use crate::support::{World, create_component, mask};
use pavior_testkit::{assert_problem, fields};

#[tokio::test]
async fn keys_of_the_platform_are_set_by_the_platform_only() {
    both(|db| async move {
        let world = World::ready(db).await;
        let client = || world.client.clone();
        let keyed = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        let mut claim = create_component("acme", "claim", json!({}));
        claim.entity.as_mut().unwrap().annotations = keyed("pavior.dev/resource", RESOURCE);
        claim.entity.as_mut().unwrap().labels = keyed("policy.PAVIOR.dev/tier", "gold");
        let error = assert_problem(
            client().catalog.create_entity(world.alice(claim)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(
            fields(&error),
            ["entity.labels.policy.PAVIOR.dev/tier", "entity.annotations.pavior.dev/resource"]
        );
        let made = world.register(register("shop", RESOURCE, "Shop")).await.unwrap().into_inner();
        let declared = ("pavior.dev/declaration", "declared as Shop");
        let update = |annotations: Vec<(&str, &str)>| {
            let annotations = annotations
                .into_iter()
                .chain([declared])
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            world.alice(pb::UpdateEntityRequest {
                entity: Some(pb::Entity { name: made.name.clone(), annotations, ..Default::default() }),
                update_mask: mask(&["annotations"]),
                ..Default::default()
            })
        };
        for changed in [
            vec![("pavior.dev/resource", "organizations/acme/projects/evil"), ("pavior.dev/key", "k1")],
            vec![("pavior.dev/key", "k1")],
        ] {
            let answer = client().catalog.update_entity(update(changed)).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&error), ["entity.annotations.pavior.dev/resource"]);
        }
        let kept =
            vec![("pavior.dev/resource", RESOURCE), ("pavior.dev/key", "k1"), ("pavior.development/x", "y")];
        let kept = client().catalog.update_entity(update(kept)).await.unwrap().into_inner();
        assert_eq!(kept.annotations.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn an_import_neither_sets_nor_loses_keys_of_the_platform() {
    both(|db| async move {
        let world = World::ready(db).await;
        world.register(register("shop", RESOURCE, "Shop")).await.unwrap();
        let import = |annotations: &str| {
            let content = format!(
                "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata:\n  name: shop\n{annotations}\
                 spec:\n  type: service\n  lifecycle: production\n  owner: payments\n"
            );
            let document = pb::import_entities_request::Document { origin: "test".to_owned(), content };
            let parent = "organizations/acme".to_owned();
            world.alice(pb::ImportEntitiesRequest { parent, documents: vec![document], ..Default::default() })
        };
        let claim = import("  annotations:\n    pavior.dev/resource: organizations/acme/projects/evil\n");
        let error = assert_problem(
            world.client.catalog.clone().import_entities(claim).await,
            Code::InvalidArgument,
            "INVALID_DOCUMENT",
            &[],
        );
        assert_eq!(fields(&error), ["documents[0].content.metadata.annotations.pavior.dev/resource"]);
        // A document that says something else of it is refused as a whole.
        let error = assert_problem(
            world.client.catalog.clone().import_entities(import("")).await,
            Code::FailedPrecondition,
            "INVALID_STATE",
            &[],
        );
        assert_eq!(error.metadata["managedBy"], RESOURCE);
        let name = "organizations/acme/kinds/component/entities/shop".to_owned();
        let request = world.alice(pb::GetEntityRequest { name, ..Default::default() });
        let entity = world.client.catalog.clone().get_entity(request).await.unwrap().into_inner();
        assert_eq!(entity.annotations["pavior.dev/resource"], RESOURCE);
        assert_eq!(entity.display_name, "Shop");
    })
    .await;
}

#[tokio::test]
async fn an_owner_that_is_misspelt_is_told_with_the_group_that_may_be_meant() {
    both(|db| async move {
        let world = World::ready(db).await;
        world.group("acme", "payments", "").await;
        let owner = |kind: &str, id: &str| format!("organizations/acme/{kind}/{id}");
        let unknown = "`entity.owner` refers to it, but it does not exist";
        let hint = format!("{unknown}; did you mean `{}`?", owner("groups", "payments"));
        for (kind, id, wanted) in
            [("groups", "paymnets", hint.as_str()), ("groups", "web", unknown), ("users", "payment", unknown)]
        {
            let mut request = create_component("acme", "shop", json!({}));
            request.entity.as_mut().unwrap().owner = owner(kind, id);
            let answer = world.client.catalog.clone().create_entity(world.alice(request)).await;
            let error = assert_problem(answer, Code::FailedPrecondition, "REFERENCE_NOT_FOUND", &[]);
            assert_eq!(error.metadata["field"], "entity.owner");
            let [violation] = &*error.preconditions else { panic!("{error:?}") };
            assert_eq!(violation.subject, owner(kind, id));
            assert_eq!(violation.description, wanted);
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_is_made_who_is_called_like_a_part_of_the_platform() {
    both(|db| async move {
        let world = World::ready(db).await;
        for id in ["provisioning", "gateway", "operator"] {
            let parent = "organizations/acme".to_owned();
            let user = identity_pb::CreateUserRequest {
                parent: parent.clone(),
                user_id: id.to_owned(),
                user: Some(identity_pb::User::default()),
                ..Default::default()
            };
            let answer = world.client.identity.clone().create_user(world.alice(user)).await;
            assert_eq!(
                fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
                ["user_id"],
                "{id}"
            );
            let group = identity_pb::CreateGroupRequest {
                parent,
                group_id: id.to_owned(),
                group: Some(identity_pb::Group::default()),
                ..Default::default()
            };
            let answer = world.client.identity.clone().create_group(world.alice(group)).await;
            assert_eq!(
                fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
                ["group_id"],
                "{id}"
            );
        }
        let content = "apiVersion: backstage.io/v1alpha1\nkind: Group\nmetadata:\n  name: policy\n\
                       spec:\n  type: team\n  children: []\n";
        let document =
            pb::import_entities_request::Document { origin: "test".to_owned(), content: content.to_owned() };
        let parent = "organizations/acme".to_owned();
        let request = pb::ImportEntitiesRequest { parent, documents: vec![document], ..Default::default() };
        let answer = world.client.catalog.clone().import_entities(world.alice(request)).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        assert_eq!(fields(&error), ["documents[0].content.metadata.name"]);
    })
    .await;
}

#[tokio::test]
async fn everybody_belongs_to_the_group_of_all_without_a_word() {
    both(|db| async move {
        let world = World::ready(db).await;
        let parent = "organizations/acme".to_owned();
        let told = |error: &Decoded| {
            let violation = &error.violations[0];
            format!("{}: {}", violation.field, violation.description)
        };
        let group = identity_pb::CreateGroupRequest {
            parent: parent.clone(),
            group_id: "everyone".to_owned(),
            group: Some(identity_pb::Group::default()),
            ..Default::default()
        };
        let answer = world.client.identity.clone().create_group(world.alice(group)).await;
        assert_eq!(
            told(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
            "group_id: `everyone` is the group of everybody in the organization, which nobody makes"
        );
        let membership = identity_pb::CreateMembershipRequest {
            parent: format!("{parent}/groups/everyone"),
            membership: Some(identity_pb::Membership {
                member: format!("{parent}/users/alice"),
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = world.client.identity.clone().create_membership(world.alice(membership)).await;
        assert_eq!(
            told(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
            "parent: everybody belongs to `organizations/acme/groups/everyone`: nobody joins it or leaves it"
        );
        for allow_missing in [false, true] {
            let name = format!("{parent}/groups/everyone");
            let request = identity_pb::DeleteGroupRequest { name, allow_missing, ..Default::default() };
            let answer = world.client.identity.clone().delete_group(world.alice(request)).await;
            assert_problem(answer, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        }
        let content = "apiVersion: backstage.io/v1alpha1\nkind: Group\nmetadata:\n  name: Everyone\n\
                       spec:\n  type: team\n  children: []\n";
        let document =
            pb::import_entities_request::Document { origin: "test".to_owned(), content: content.to_owned() };
        let request = pb::ImportEntitiesRequest { parent, documents: vec![document], ..Default::default() };
        let answer = world.client.catalog.clone().import_entities(world.alice(request)).await;
        assert_eq!(
            told(&assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[])),
            "documents[0].content.metadata.name: `Everyone` is the group of everybody in the organization, which nobody makes"
        );
    })
    .await;
}

#[tokio::test]
async fn the_key_of_provisioning_does_not_write_people_teams_or_golden_paths() {
    let world = World::ready(pavior_testkit::db::sqlite()).await;
    let provisioning = || world.provisioning.clone();
    // Whomever it claims to act for.
    for itself in [true, false] {
        fn call<T>(world: &World, itself: bool, message: T) -> tonic::Request<T> {
            if itself { world.by_provisioning(message) } else { world.alice(message) }
        }
        let user = identity_pb::CreateUserRequest {
            parent: "organizations/acme".to_owned(),
            user_id: "mallory".to_owned(),
            ..Default::default()
        };
        let answer = provisioning().identity.create_user(call(&world, itself, user)).await;
        assert_problem(answer, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &[]);
        let answer = provisioning()
            .identity
            .update_group(call(&world, itself, identity_pb::UpdateGroupRequest::default()))
            .await;
        assert_problem(answer, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &[]);
        let version = pb::CreateTemplateVersionRequest::default();
        let answer = provisioning().templates.create_template_version(call(&world, itself, version)).await;
        assert_problem(answer, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &[]);
    }
}

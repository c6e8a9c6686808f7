//! Groups, users and the directory.

use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component, fields, mask, refused};

fn user(id: &str, groups: &[&str]) -> identity_pb::CreateUserRequest {
    identity_pb::CreateUserRequest {
        parent: "organizations/acme".into(),
        user_id: id.into(),
        user: Some(identity_pb::User {
            display_name: id.to_uppercase(),
            email: format!("{id}@example.com"),
            groups: groups.iter().map(|group| format!("organizations/acme/groups/{group}")).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn directory(world: &World, known: &str) -> directory_pb::Directory {
    let request = directory_pb::GetDirectoryRequest {
        organization: "organizations/acme".into(),
        known_revision: known.into(),
    };
    world
        .policy
        .directory
        .clone()
        .get_directory(world.by_service("policy", request))
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_counts_its_changes() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let empty = directory(&world, "").await;
        assert!(!empty.unchanged && empty.groups.is_empty());
        assert!(directory(&world, &empty.revision).await.unchanged);
        world.group("acme", "engineering", "").await;
        world.group("acme", "payments", "organizations/acme/groups/engineering").await;
        client
            .identity
            .create_user(world.alice(user("alice.b", &["payments", "engineering", "payments"])))
            .await
            .unwrap();
        client.identity.create_user(world.alice(user("bob", &[]))).await.unwrap();
        let full = directory(&world, &empty.revision).await;
        assert_ne!(full.revision, empty.revision);
        assert_eq!(full.groups.len(), 2);
        assert_eq!(full.groups[1].parent_group, "organizations/acme/groups/engineering");
        assert_eq!(full.memberships[0].user, "organizations/acme/users/alice.b");
        assert_eq!(
            full.memberships[0].groups,
            ["organizations/acme/groups/engineering", "organizations/acme/groups/payments"]
        );
        assert_eq!(full.memberships[1].groups, Vec::<String>::new());

        let update = identity_pb::UpdateUserRequest {
            user: Some(identity_pb::User {
                name: "organizations/acme/users/alice.b".into(),
                groups: vec!["organizations/acme/groups/payments".into()],
                ..Default::default()
            }),
            update_mask: mask(&["groups"]),
            ..Default::default()
        };
        let updated = client.identity.update_user(world.alice(update)).await.unwrap().into_inner();
        assert_eq!((updated.groups.len(), updated.display_name.as_str()), (1, "ALICE.B"));
        let now = directory(&world, &full.revision).await;
        assert_eq!(now.memberships[0].groups, ["organizations/acme/groups/payments"]);
        let delete = identity_pb::DeleteUserRequest {
            name: "organizations/acme/users/alice.b".into(),
            ..Default::default()
        };
        client.identity.delete_user(world.alice(delete)).await.unwrap();
        assert_eq!(directory(&world, &now.revision).await.memberships.len(), 1);
        // Entities are not the directory's.
        let before = directory(&world, "").await.revision;
        world.component("acme", "web", json!({})).await;
        assert!(directory(&world, &before).await.unchanged);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_of_groups_and_needed_groups_are_refused() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let a = world.group("acme", "a", "").await;
        let b = world.group("acme", "b", &a.name).await;
        let c = world.group("acme", "c", &b.name).await;
        let update = identity_pb::UpdateGroupRequest {
            group: Some(identity_pb::Group {
                name: a.name.clone(),
                parent_group: c.name.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let error = refused(
            client.identity.update_group(world.alice(update)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
        );
        assert_eq!(fields(&error), ["group.parent_group"]);
        assert!(error.violations[0].description.contains("a → c → b → a"), "{:?}", error.violations);
        let orphan = identity_pb::CreateGroupRequest {
            parent: "organizations/acme".into(),
            group: Some(identity_pb::Group {
                parent_group: "organizations/acme/groups/none".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let error = refused(
            client.identity.create_group(world.alice(orphan)).await,
            Code::FailedPrecondition,
            "REFERENCE_NOT_FOUND",
        );
        assert_eq!(error.preconditions[0].subject, "organizations/acme/groups/none");

        client.identity.create_user(world.alice(user("bob", &["c"]))).await.unwrap();
        let mut owned = create_component("acme", "web", json!({}));
        owned.entity.as_mut().unwrap().owner = c.name.clone();
        client.catalog.create_entity(world.alice(owned)).await.unwrap();
        let delete = |name: &str| identity_pb::DeleteGroupRequest { name: name.into(), ..Default::default() };
        let error = refused(
            client.identity.delete_group(world.alice(delete(&c.name))).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
        );
        let mut subjects: Vec<&str> = error.preconditions.iter().map(|p| p.subject.as_str()).collect();
        subjects.sort_unstable();
        assert_eq!(
            subjects,
            ["organizations/acme/kinds/component/entities/web", "organizations/acme/users/bob"]
        );
        let error = refused(
            client.identity.delete_group(world.alice(delete(&b.name))).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
        );
        assert_eq!(error.preconditions[0].subject, c.name);
    })
    .await;
}

#[tokio::test]
async fn bad_users_are_refused_with_every_violation() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let mut request = user("Bob", &[]);
    let error = refused(
        client.identity.create_user(world.alice(request.clone())).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    assert_eq!(fields(&error), ["user_id"]);
    request.user_id = "bob".into();
    request.user.as_mut().unwrap().email = "nowhere".into();
    request.user.as_mut().unwrap().display_name = "a\nb".into();
    let error = refused(
        client.identity.create_user(world.alice(request.clone())).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    assert_eq!(fields(&error), ["user.display_name", "user.email"]);
    request.user.as_mut().unwrap().groups = vec!["team".into(), "organizations/umbrella/groups/x".into()];
    let error = refused(
        client.identity.create_user(world.alice(request)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
    );
    assert_eq!(fields(&error), ["user.groups[0]", "user.groups[1]", "user.display_name", "user.email"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_filtered_and_ordered() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        world.group("acme", "payments", "").await;
        for (id, groups) in [("carol", vec!["payments"]), ("alice", vec![]), ("bob", vec!["payments"])] {
            world.later();
            client.identity.create_user(world.alice(user(id, &groups))).await.unwrap();
        }
        for (filter, order_by, wanted) in [
            ("", "", vec!["alice", "bob", "carol"]),
            ("", "name desc", vec!["carol", "bob", "alice"]),
            ("", "create_time desc", vec!["bob", "alice", "carol"]),
            ("email = \"bob@example.com\"", "", vec!["bob"]),
            ("groups:\"organizations/acme/groups/payments\"", "", vec!["bob", "carol"]),
            ("display_name = \"A*\" OR display_name = \"B*\"", "", vec!["alice", "bob"]),
            ("alice", "", vec!["alice"]),
        ] {
            let request = identity_pb::ListUsersRequest {
                parent: "organizations/acme".into(),
                filter: filter.into(),
                order_by: order_by.into(),
                ..Default::default()
            };
            let users = client.identity.list_users(world.alice(request)).await.unwrap().into_inner().users;
            let ids: Vec<&str> = users.iter().map(|user| user.name.rsplit('/').next().unwrap()).collect();
            assert_eq!(ids, wanted, "{filter} {order_by}");
        }
    })
    .await;
}

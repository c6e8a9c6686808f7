//! Groups, users and the directory.

use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, create_component};
use pavior_testkit::{assert_problem, fields};

fn user(id: &str) -> identity_pb::CreateUserRequest {
    identity_pb::CreateUserRequest {
        parent: "organizations/acme".into(),
        user_id: id.into(),
        user: Some(identity_pb::User {
            display_name: id.to_uppercase(),
            email: format!("{id}@example.com"),
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
        client.identity.create_user(world.alice(user("alice.b"))).await.unwrap();
        client.identity.create_user(world.alice(user("bob"))).await.unwrap();
        for group in ["payments", "engineering"] {
            world.member(group, "alice.b").await;
        }
        let full = directory(&world, &empty.revision).await;
        assert_ne!(full.revision, empty.revision);
        assert_eq!(full.groups.len(), 2);
        assert_eq!(full.groups[1].parent_group, "organizations/acme/groups/engineering");
        // Who belongs to no group is none of its business.
        assert_eq!(full.memberships.len(), 1);
        assert_eq!(full.memberships[0].member, "organizations/acme/users/alice.b");
        assert_eq!(
            full.memberships[0].groups,
            ["organizations/acme/groups/engineering", "organizations/acme/groups/payments"]
        );

        let delete = identity_pb::DeleteMembershipRequest {
            name: "organizations/acme/groups/engineering/memberships/alice.b".into(),
            ..Default::default()
        };
        client.identity.delete_membership(world.alice(delete)).await.unwrap();
        let now = directory(&world, &full.revision).await;
        assert_eq!(now.memberships[0].groups, ["organizations/acme/groups/payments"]);
        let delete = identity_pb::DeleteUserRequest {
            name: "organizations/acme/users/alice.b".into(),
            ..Default::default()
        };
        client.identity.delete_user(world.alice(delete)).await.unwrap();
        assert_eq!(directory(&world, &now.revision).await.memberships.len(), 0);
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
        let error = assert_problem(
            client.identity.update_group(world.alice(update)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
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
        let error = assert_problem(
            client.identity.create_group(world.alice(orphan)).await,
            Code::FailedPrecondition,
            "REFERENCE_NOT_FOUND",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, "organizations/acme/groups/none");

        client.identity.create_user(world.alice(user("bob"))).await.unwrap();
        world.member("c", "bob").await;
        let mut owned = create_component("acme", "web", json!({}));
        owned.entity.as_mut().unwrap().owner = c.name.clone();
        client.catalog.create_entity(world.alice(owned)).await.unwrap();
        let delete = |name: &str| identity_pb::DeleteGroupRequest { name: name.into(), ..Default::default() };
        let error = assert_problem(
            client.identity.delete_group(world.alice(delete(&c.name))).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        let subjects: Vec<&str> = error.preconditions.iter().map(|p| p.subject.as_str()).collect();
        // Members keep no group: what it owns does.
        assert_eq!(subjects, ["organizations/acme/kinds/component/entities/web"]);
        let error = assert_problem(
            client.identity.delete_group(world.alice(delete(&b.name))).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, c.name);
    })
    .await;
}

#[tokio::test]
async fn bad_users_are_refused_with_every_violation() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let mut request = user("Bob");
    let error = assert_problem(
        client.identity.create_user(world.alice(request.clone())).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(fields(&error), ["user_id"]);
    request.user_id = "bob".into();
    request.user.as_mut().unwrap().email = "nowhere".into();
    request.user.as_mut().unwrap().display_name = "a\nb".into();
    let error = assert_problem(
        client.identity.create_user(world.alice(request)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(fields(&error), ["user.display_name", "user.email"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_filtered_and_ordered() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        for id in ["carol", "alice", "bob"] {
            world.later();
            client.identity.create_user(world.alice(user(id))).await.unwrap();
        }
        for (filter, order_by, wanted) in [
            ("", "", vec!["alice", "bob", "carol"]),
            ("", "name desc", vec!["carol", "bob", "alice"]),
            ("", "create_time desc", vec!["bob", "alice", "carol"]),
            ("email = \"bob@example.com\"", "", vec!["bob"]),
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

//! Who belongs to which group: made, listed, ended, imported, and gone with its group or member.

use std::collections::BTreeSet;

use futures::future::join_all;
use pavior_core::audit::AuditEvent;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::identity::v1::membership::Source;
use pavior_store::StoreError;
use pavior_testkit::db;
use sea_orm::{ConnectionTrait as _, DbBackend};
use tonic::Code;

use crate::support::{World, create_membership};
use pavior_testkit::{assert_problem, fields};

const ACME: &str = "organizations/acme";

async fn user(world: &World, id: &str) -> identity_pb::User {
    let request = identity_pb::CreateUserRequest {
        parent: ACME.into(),
        user_id: id.into(),
        user: Some(identity_pb::User::default()),
        ..Default::default()
    };
    world.client.identity.clone().create_user(world.alice(request)).await.unwrap().into_inner()
}

/// The memberships that a list gives, as `group/member`.
async fn listed(world: &World, group: &str, filter: &str, order_by: &str) -> Vec<String> {
    let request = identity_pb::ListMembershipsRequest {
        parent: format!("{ACME}/groups/{group}"),
        filter: filter.into(),
        order_by: order_by.into(),
        ..Default::default()
    };
    let page = world.client.identity.clone().list_memberships(world.alice(request)).await.unwrap();
    let short = |one: &identity_pb::Membership| {
        let (group, id) = one.name.split_once("/memberships/").unwrap();
        assert_eq!(one.member, format!("{ACME}/users/{id}"));
        format!("{}/{id}", group.rsplit('/').next().unwrap())
    };
    page.into_inner().memberships.iter().map(short).collect()
}

fn delete(name: &str) -> identity_pb::DeleteMembershipRequest {
    identity_pb::DeleteMembershipRequest { name: name.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_is_made_listed_and_ended() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.identity.clone();
        for group in ["payments", "core"] {
            world.group("acme", group, "").await;
        }
        for id in ["bob", "amy@acme.example"] {
            user(&world, id).await;
        }
        let made = world.member("payments", "bob").await;
        assert_eq!(made.name, format!("{ACME}/groups/payments/memberships/bob"));
        assert_eq!((made.member.as_str(), made.source()), ("organizations/acme/users/bob", Source::Api));
        assert!(made.create_time.is_some() && !made.uid.is_empty() && !made.etag.is_empty());
        let get = identity_pb::GetMembershipRequest { name: made.name.clone() };
        assert_eq!(client.get_membership(world.alice(get.clone())).await.unwrap().into_inner(), made);
        world.later();
        world.member("core", "amy@acme.example").await;
        world.later();
        world.member("core", "bob").await;

        for (group, filter, order_by, wanted) in [
            ("core", "", "", vec!["core/amy@acme.example", "core/bob"]),
            ("payments", "", "", vec!["payments/bob"]),
            ("-", "", "", vec!["core/amy@acme.example", "core/bob", "payments/bob"]),
            ("-", "", "create_time", vec!["payments/bob", "core/amy@acme.example", "core/bob"]),
            ("-", "member = \"organizations/acme/users/bob\"", "", vec!["core/bob", "payments/bob"]),
            ("core", "member = \"organizations/acme/users/nobody\"", "", vec![]),
            ("core", "source = IMPORT", "", vec![]),
            ("core", "source = SOURCE_API", "name desc", vec!["core/bob", "core/amy@acme.example"]),
            ("nothing", "", "", vec![]),
        ] {
            assert_eq!(listed(&world, group, filter, order_by).await, wanted, "{group} {filter} {order_by}");
        }

        assert_problem(
            client.create_membership(world.alice(create_membership("payments", "bob"))).await,
            Code::AlreadyExists,
            "RESOURCE_ALREADY_EXISTS",
            &[],
        );
        let stale = identity_pb::DeleteMembershipRequest { etag: "\"x\"".into(), ..delete(&made.name) };
        assert_problem(
            client.delete_membership(world.alice(stale)).await,
            Code::Aborted,
            "ETAG_MISMATCH",
            &[],
        );
        let gone = client.delete_membership(world.alice(delete(&made.name))).await.unwrap().into_inner();
        let identity_pb::Membership { delete_time, purge_time, .. } = gone;
        assert!(delete_time.is_some() && purge_time.is_some(), "{gone:?}");
        assert_eq!(gone, identity_pb::Membership { delete_time, purge_time, ..made.clone() });
        assert_problem(
            client.get_membership(world.alice(get)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        assert_problem(
            client.delete_membership(world.alice(delete(&made.name))).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        assert_eq!(listed(&world, "-", "", "").await, ["core/amy@acme.example", "core/bob"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_has_no_membership() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.identity.clone();
        world.group("acme", "payments", "").await;
        user(&world, "bob").await;
        let answer = client.create_membership(world.alice(create_membership("none", "bob"))).await;
        let error = assert_problem(answer, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        assert_eq!(error.resource.unwrap().name, format!("{ACME}/groups/none"));
        let answer = client.create_membership(world.alice(create_membership("payments", "none"))).await;
        let error = assert_problem(answer, Code::FailedPrecondition, "REFERENCE_NOT_FOUND", &[]);
        assert_eq!(error.preconditions[0].subject, format!("{ACME}/users/none"));
        assert_eq!(error.metadata["field"], "membership.member");

        for (id, member, wanted) in [
            ("alice", "organizations/acme/users/bob", "membership.member"),
            ("", "organizations/umbrella/users/bob", "membership.member"),
            ("", "organizations/acme/groups/payments", "membership.member"),
            ("", "bob", "membership.member"),
            ("", "", "membership.member"),
            ("Bob", "organizations/acme/users/bob", "membership_id"),
        ] {
            let mut request = create_membership("payments", "bob");
            request.membership_id = id.into();
            request.membership.as_mut().unwrap().member = member.into();
            let answer = client.create_membership(world.alice(request)).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert!(fields(&error).contains(&wanted), "{id} {member}: {error:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_belongs_to_more_groups_than_one_may() {
    let world = World::ready(db::sqlite()).await;
    user(&world, "bob").await;
    for n in 0..=200 {
        world.group("acme", &format!("g{n}"), "").await;
    }
    for n in 0..200 {
        world.member(&format!("g{n}"), "bob").await;
    }
    let mut client = world.client.identity.clone();
    let answer = client.create_membership(world.alice(create_membership("g200", "bob"))).await;
    assert_problem(answer, Code::ResourceExhausted, "QUOTA_EXCEEDED", &[]);
    let document =
        "{apiVersion: backstage.io/v1alpha1, kind: User, metadata: {name: bob}, spec: {memberOf: [g200]}}";
    let answer = world.client.catalog.clone().import_entities(world.alice(import(&[document]))).await;
    let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
    assert_eq!(fields(&error), ["documents[0].content.spec.memberOf"]);
    assert_eq!(listed(&world, "g200", "", "").await, Vec::<String>::new());
}

/// Makes `user-1` and so on members of a group, all at once and without the users: only the memberships count.
async fn crowd(world: &World, group: &str, members: u32) {
    let uid = match world.store.backend() {
        DbBackend::Sqlite => "randomblob(16)",
        _ => "gen_random_uuid()",
    };
    let sql = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {members}) \
         INSERT INTO memberships (uid, organization, id, revision, create_time, update_time, group_id, member, \
         source, by_group, by_member) SELECT {uid}, 'acme', 'user-' || n, 1, 0, 0, '{group}', \
         '{ACME}/users/user-' || n, 'API', false, false FROM numbers"
    );
    world
        .store
        .upkeep::<(), StoreError, _>("a test", move |tx| {
            let sql = sql.clone();
            Box::pin(async move {
                tx.execute_unprepared(&sql).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_group_has_more_members_than_one_may_and_all_of_them_go_with_it() {
    db::both(|db| async {
        let world = World::ready(db).await;
        for group in ["crowd", "quiet"] {
            world.group("acme", group, "").await;
        }
        for id in ["bob", "amy"] {
            user(&world, id).await;
        }
        crowd(&world, "crowd", 9_999).await;
        world.member("crowd", "bob").await;
        let mut client = world.client.clone();
        let answer = client.identity.create_membership(world.alice(create_membership("crowd", "amy"))).await;
        let error = assert_problem(answer, Code::ResourceExhausted, "QUOTA_EXCEEDED", &[]);
        let crowd = format!("{ACME}/groups/crowd");
        assert_eq!(error.message, format!("`{crowd}` has as many members as a group may: 10000"));

        // Told where a document says so: in the group's, or in the user's.
        let group = group_document("crowd", "amy");
        // Another group, which has room, comes after it.
        let person = user_document("amy", "crowd, quiet");
        for (documents, wanted) in [
            (vec![group.as_str()], "documents[0].content.spec.members"),
            (vec![person.as_str()], "documents[0].content.spec.memberOf"),
            (vec![person.as_str(), group.as_str()], "documents[1].content.spec.members"),
        ] {
            let answer = client.catalog.import_entities(world.alice(import(&documents))).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
            assert_eq!(fields(&error), [wanted]);
            assert_eq!(error.violations[0].reason, "TOO_MANY");
            let message = &error.violations[0].description;
            assert_eq!(message, "the group `crowd` would have more than 10000 members");
        }

        let skipped = world.audited().await.len();
        let delete = identity_pb::DeleteGroupRequest { name: crowd, ..Default::default() };
        client.identity.delete_group(world.alice(delete)).await.unwrap();
        assert_eq!(listed(&world, "-", "", "").await, Vec::<String>::new());
        let events = world.audited().await.split_off(skipped);
        let told: BTreeSet<&str> = events.iter().skip(1).flat_map(targets).collect();
        // The group itself, and each membership once.
        assert_eq!((events.len(), told.len()), (1 + 100, 1 + 10_000));
    })
    .await;
}

fn targets(event: &AuditEvent) -> Vec<&str> {
    event.target.iter().chain(&event.affected).map(|one| one.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn memberships_go_with_their_group_and_with_their_member() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.identity.clone();
        for group in ["payments", "core"] {
            world.group("acme", group, "").await;
        }
        for id in ["amy", "bob"] {
            user(&world, id).await;
            world.member("payments", id).await;
            world.member("core", id).await;
        }
        let skipped = world.audited().await.len();
        let group =
            identity_pb::DeleteGroupRequest { name: format!("{ACME}/groups/payments"), ..Default::default() };
        client.delete_group(world.alice(group)).await.unwrap();
        let person =
            identity_pb::DeleteUserRequest { name: format!("{ACME}/users/bob"), ..Default::default() };
        client.delete_user(world.alice(person)).await.unwrap();
        assert_eq!(listed(&world, "-", "", "").await, ["core/amy"]);

        let events = world.audited().await.split_off(skipped);
        let told: Vec<(&str, Vec<&str>)> =
            events.iter().map(|event| (event.action.as_str(), targets(event))).collect();
        assert_eq!(
            told,
            [
                ("identity.groups.delete", vec!["organizations/acme/groups/payments"]),
                (
                    "identity.groups.delete",
                    vec![
                        "organizations/acme/groups/payments",
                        "organizations/acme/groups/payments/memberships/amy",
                        "organizations/acme/groups/payments/memberships/bob"
                    ]
                ),
                ("identity.users.delete", vec!["organizations/acme/users/bob"]),
                (
                    "identity.users.delete",
                    vec!["organizations/acme/users/bob", "organizations/acme/groups/core/memberships/bob"]
                ),
            ]
        );
        let change = events[1].change.as_ref().unwrap();
        assert!(change.after.is_none());
        let before = &change.before.as_ref().unwrap()["memberships"];
        assert_eq!(
            before["organizations/acme/groups/payments/memberships/amy"]["member"],
            "organizations/acme/users/amy"
        );
        // A group of the same name begins without members.
        world.group("acme", "payments", "").await;
        assert_eq!(listed(&world, "payments", "", "").await, Vec::<String>::new());
    })
    .await;
}

/// Whoever is made a member while the group goes is a member of nothing, whichever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_goes_leaves_no_membership() {
    db::both(|db| async {
        let world = World::ready(db).await;
        for id in 0..4 {
            user(&world, &format!("user-{id}")).await;
        }
        for round in 0..5 {
            let group = world.group("acme", "payments", "").await;
            let adding = (0..4).map(|id| {
                let (mut client, user) = (world.client.identity.clone(), format!("user-{id}"));
                let request = world.alice(create_membership("payments", &user));
                async move {
                    if let Err(status) = client.create_membership(request).await {
                        assert_eq!(status.code(), Code::NotFound, "{status:?}");
                    }
                }
            });
            let deleting = async {
                let request =
                    identity_pb::DeleteGroupRequest { name: group.name.clone(), ..Default::default() };
                world.client.identity.clone().delete_group(world.alice(request)).await.unwrap();
            };
            tokio::join!(join_all(adding), deleting);
            assert_eq!(listed(&world, "-", "", "").await, Vec::<String>::new(), "round {round}");
        }
    })
    .await;
}

fn import(contents: &[&str]) -> pb::ImportEntitiesRequest {
    let document = |content: &&str| pb::import_entities_request::Document {
        origin: "test".into(),
        content: (*content).to_owned(),
    };
    pb::ImportEntitiesRequest {
        parent: ACME.into(),
        documents: contents.iter().map(document).collect(),
        ..Default::default()
    }
}

/// Imports, and gives what was created, updated and left as it is.
async fn imported(world: &World, contents: &[&str]) -> (i32, i32, i32) {
    let request = world.alice(import(contents));
    let answer = world.client.catalog.clone().import_entities(request).await.unwrap().into_inner();
    (answer.created_count, answer.updated_count, answer.unchanged_count)
}

fn group_document(id: &str, members: &str) -> String {
    format!(
        "{{apiVersion: backstage.io/v1alpha1, kind: Group, metadata: {{name: {id}}}, \
         spec: {{type: team, members: [{members}]}}}}"
    )
}

fn user_document(id: &str, groups: &str) -> String {
    format!(
        "{{apiVersion: backstage.io/v1alpha1, kind: User, metadata: {{name: {id}}}, \
         spec: {{memberOf: [{groups}]}}}}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_replaces_what_an_import_made() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let [payments, core] = [group_document("payments", "amy, bob"), group_document("core", "")];
        let [amy, bob] = [user_document("amy", "core"), user_document("bob", "core, payments")];
        let all = [payments.as_str(), &core, &amy, &bob];
        assert_eq!(imported(&world, &all).await, (4, 0, 0));
        let everyone = ["core/amy", "core/bob", "payments/amy", "payments/bob"];
        assert_eq!(listed(&world, "-", "source = IMPORT", "").await, everyone);
        let events = world.audited().await.len();
        assert_eq!(imported(&world, &all).await, (0, 0, 4));
        assert_eq!(world.audited().await.len(), events, "what changes nothing is not recorded");

        // What the API made is not the import's, and an import that says the same changes nothing about it.
        for id in ["carol", "dave"] {
            user(&world, id).await;
            world.member("payments", id).await;
        }
        assert_eq!(imported(&world, &[&group_document("payments", "bob, carol")]).await, (0, 1, 0));
        let now = ["core/amy", "core/bob", "payments/bob", "payments/carol", "payments/dave"];
        assert_eq!(listed(&world, "-", "", "").await, now);
        assert_eq!(listed(&world, "-", "source = API", "").await, ["payments/carol", "payments/dave"]);

        // Both documents say that bob belongs to payments: he does until neither does.
        assert_eq!(imported(&world, &[&user_document("bob", "")]).await, (0, 1, 0));
        assert_eq!(
            listed(&world, "-", "member = \"organizations/acme/users/bob\"", "").await,
            ["payments/bob"]
        );
        assert_eq!(imported(&world, &[&group_document("payments", "")]).await, (0, 1, 0));
        assert_eq!(listed(&world, "payments", "", "").await, ["payments/carol", "payments/dave"]);

        let last = world.audited().await.pop().unwrap();
        assert_eq!(last.action, "catalog.entities.import");
        assert_eq!(
            targets(&last),
            ["organizations/acme", "organizations/acme/groups/payments/memberships/bob"]
        );
        // Groups and users that there are not are left out.
        let unknown = [user_document("erin", "core, nowhere"), group_document("ops", "amy, nobody")];
        assert_eq!(imported(&world, &[&unknown[0], &unknown[1]]).await, (2, 0, 0));
        assert_eq!(listed(&world, "ops", "", "").await, ["ops/amy"]);
        assert_eq!(listed(&world, "core", "", "").await, ["core/amy", "core/erin"]);
    })
    .await;
}

/// A group is one thing, whether documents or the API speak of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_has_one_identity() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let made = world.group("acme", "payments", "").await;
        let system = "{apiVersion: backstage.io/v1alpha1, kind: System, metadata: {name: shop}, \
                      spec: {owner: 'group:default/payments'}}";
        assert_eq!(imported(&world, &[&group_document("payments", ""), system]).await, (1, 0, 1));
        let mut client = world.client.clone();
        let get = identity_pb::GetGroupRequest { name: made.name.clone() };
        assert_eq!(client.identity.get_group(world.alice(get)).await.unwrap().into_inner(), made);
        let get = |kind: &str, id: &str| pb::GetEntityRequest {
            name: format!("{ACME}/kinds/{kind}/entities/{id}"),
            ..Default::default()
        };
        let shop = client.catalog.get_entity(world.alice(get("system", "shop"))).await.unwrap().into_inner();
        assert_eq!(shop.owner, made.name);
        assert_eq!(
            (shop.relations[0].target.as_str(), shop.relations[0].resolved),
            (made.name.as_str(), true)
        );
        assert_problem(
            client.catalog.get_entity(world.alice(get("group", "payments"))).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        // What relates to it needs it, in whichever way.
        let delete = identity_pb::DeleteGroupRequest { name: made.name.clone(), ..Default::default() };
        let answer = client.identity.delete_group(world.alice(delete)).await;
        let error = assert_problem(answer, Code::FailedPrecondition, "HAS_DEPENDENTS", &[]);
        assert_eq!(error.preconditions[0].subject, shop.name);
        for id in ["group", "user"] {
            let request = pb::CreateKindRequest {
                parent: ACME.into(),
                kind_id: id.into(),
                kind: Some(pb::Kind::default()),
                ..Default::default()
            };
            let answer = client.catalog.create_kind(world.alice(request)).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&error), ["kind_id"]);
        }
    })
    .await;
}

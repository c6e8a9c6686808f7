//! Who is let in at all.

use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::sqlite;
use tonic::{Code, Request};

use crate::fixture::{ACME, Fixture, new_role, question, user};

#[tokio::test]
async fn nothing_without_a_signed_token() {
    let f = Fixture::new(sqlite()).await;
    let get = pb::GetRoleRequest { name: format!("{ACME}/roles/dev") };
    assert_problem(
        f.access().get_role(Request::new(get)).await,
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        &[],
    );
    assert_problem(
        f.decisions().decide(Request::new(question("alice", "x.y.z"))).await,
        Code::Unauthenticated,
        "UNAUTHENTICATED",
        &[],
    );
}

#[tokio::test]
async fn each_role_may_call_its_own_methods_only() {
    let f = Fixture::new(sqlite()).await;
    let call = f.internal("root", new_role("dev", &["*"]));
    assert_problem(f.access().create_role(call).await, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &[]);
    let ask =
        f.call("alice", "", decision_pb::CreateApprovalRequest { parent: ACME.into(), ..Default::default() });
    assert_problem(
        f.operation_approvals().create_approval(ask).await,
        Code::PermissionDenied,
        "CALLER_NOT_ALLOWED",
        &[],
    );
}

#[tokio::test]
async fn a_permit_is_for_one_organization_and_one_action() {
    let f = Fixture::new(sqlite()).await;
    f.role("dev", &["*"]).await;
    let get = || pb::GetRoleRequest { name: format!("{ACME}/roles/dev") };
    let theirs = f.signed(&f.gateway, &user("other/eve"), "policy.roles.get", get());
    let error =
        assert_problem(f.access().get_role(theirs).await, Code::PermissionDenied, "ACCESS_DENIED", &[]);
    let absent = pb::GetRoleRequest { name: format!("{ACME}/roles/nope") };
    let theirs = f.signed(&f.gateway, &user("other/eve"), "policy.roles.get", absent);
    let other =
        assert_problem(f.access().get_role(theirs).await, Code::PermissionDenied, "ACCESS_DENIED", &[]);
    assert_eq!(error.message.replace("dev", "nope"), other.message, "the same whether or not it exists");
    let delete = pb::DeleteRoleRequest { name: format!("{ACME}/roles/dev"), ..Default::default() };
    for action in ["policy.roles.get", ""] {
        let call = f.call("root", action, delete.clone());
        assert_problem(f.access().delete_role(call).await, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &[]);
    }
    let own = f.signed(
        &f.gateway,
        &user("other/eve"),
        "policy.roles.list",
        pb::ListRolesRequest { parent: "organizations/other".into(), ..Default::default() },
    );
    assert!(f.access().list_roles(own).await.unwrap().into_inner().roles.is_empty());
}

#[tokio::test]
async fn two_services_do_not_see_each_other() {
    let (one, two) = (Fixture::new(sqlite()).await, Fixture::new(sqlite()).await);
    one.role("dev", &["*"]).await;
    let call = |f: &Fixture| {
        f.call(
            "root",
            "policy.roles.list",
            pb::ListRolesRequest { parent: ACME.into(), ..Default::default() },
        )
    };
    assert_eq!(one.access().list_roles(call(&one)).await.unwrap().into_inner().roles.len(), 1);
    assert!(two.access().list_roles(call(&two)).await.unwrap().into_inner().roles.is_empty());
    // The other's token is not accepted.
    assert_problem(two.access().list_roles(call(&one)).await, Code::Unauthenticated, "UNAUTHENTICATED", &[]);
}

/// The default limit of clients is 4 MiB, and policies may be long.
#[tokio::test]
async fn a_page_of_long_policies_stays_below_what_clients_take() {
    let f = Fixture::new(sqlite()).await;
    for n in 0..270 {
        let source = format!("// {}\nforbid (principal, action, resource);", "x".repeat(9_500));
        let policy = pb::Policy {
            policy_type: pb::PolicyType::Guardrail.into(),
            source,
            description: "d".repeat(4_000),
            ..Default::default()
        };
        let new = pb::CreatePolicyRequest {
            parent: ACME.into(),
            policy_id: format!("long-{n}"),
            policy: Some(policy),
            ..Default::default()
        };
        f.policies().create_policy(f.call("root", "policy.policies.create", new)).await.unwrap();
    }
    let (mut found, mut pages, mut page_token) = (0, 0, String::new());
    loop {
        let parent = ACME.into();
        let list = pb::ListPoliciesRequest { parent, page_size: 1_000, page_token, ..Default::default() };
        let call = f.call("root", "policy.policies.list", list);
        let page = f.policies().list_policies(call).await.unwrap().into_inner();
        assert!(prost::Message::encoded_len(&page) < 4 << 20);
        (found, pages, page_token) = (found + page.policies.len(), pages + 1, page.next_page_token);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, pages), (270, 2));
}

//! Roles, bindings and policies: the standard methods.

use pavior_core::audit::AuditClass;
use pavior_proto::pavior::governance::internal::v1::GetResourceFactsRequest;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::both;
use prost_types::FieldMask;
use tonic::Code;

use crate::fixture::{ACME, Fixture, GET, new_role};

const ID: &str = "0e3f1a52-5a3c-4d0e-9a52-5a3c4d0e9a52";

fn update(name: &str, etag: &str, display_name: &str, mask: &[&str]) -> pb::UpdateRoleRequest {
    let paths = mask.iter().map(|path| (*path).to_owned()).collect();
    pb::UpdateRoleRequest {
        role: Some(pb::Role {
            name: format!("{ACME}/roles/{name}"),
            etag: etag.into(),
            display_name: display_name.into(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask { paths }),
        ..Default::default()
    }
}

fn delete(name: &str) -> pb::DeleteRoleRequest {
    pb::DeleteRoleRequest { name: format!("{ACME}/roles/{name}"), ..Default::default() }
}

#[tokio::test]
async fn a_role_from_creation_to_deletion() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let made = f.role("dev", &["provisioning.*", GET]).await;
        assert_eq!(made.name, format!("{ACME}/roles/dev"));
        let get = || f.call("root", "policy.roles.get", pb::GetRoleRequest { name: made.name.clone() });
        assert_eq!(f.access().get_role(get()).await.unwrap().into_inner(), made);
        f.advance(1);
        let call =
            f.call("root", "policy.roles.update", update("dev", &made.etag, "Developers", &["display_name"]));
        let changed = f.access().update_role(call).await.unwrap().into_inner();
        assert_eq!((changed.display_name.as_str(), &changed.actions), ("Developers", &made.actions));
        assert_ne!(changed.etag, made.etag);
        assert!(changed.update_time != made.update_time && changed.create_time == made.create_time);
        let stale = f.call("root", "policy.roles.update", update("dev", &made.etag, "X", &["display_name"]));
        let error = assert_problem(f.access().update_role(stale).await, Code::Aborted, "ETAG_MISMATCH", &[]);
        assert_eq!(error.metadata["currentEtag"], changed.etag);
        // A change to what is there already is none.
        let same = f.call("root", "policy.roles.update", update("dev", "", "Developers", &["display_name"]));
        assert_eq!(f.access().update_role(same).await.unwrap().into_inner(), changed);
        f.access().delete_role(f.call("root", "policy.roles.delete", delete("dev"))).await.unwrap();
        assert_problem(f.access().get_role(get()).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let again = f.call("root", "policy.roles.delete", delete("dev"));
        assert_problem(f.access().delete_role(again).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let missing = pb::DeleteRoleRequest { allow_missing: true, ..delete("dev") };
        f.access().delete_role(f.call("root", "policy.roles.delete", missing)).await.unwrap();

        let events = f.audited().await;
        let told: Vec<_> = events.iter().map(|event| (event.action.as_str(), event.audit_class)).collect();
        let a = AuditClass::Required;
        assert_eq!(
            told,
            [("policy.roles.create", a), ("policy.roles.update", a), ("policy.roles.delete", a)]
        );
        assert_eq!(events[0].principal.name, "organizations/acme/users/root");
        assert_eq!(events[0].decision.as_ref().unwrap().decision, "decision-1");
        assert_eq!(events[0].cause.call_id, "request-1");
        let change = events[1].change.clone().unwrap();
        assert_eq!(change.before.unwrap()["displayName"], "DEV");
        assert_eq!(change.after.unwrap()["displayName"], "Developers");
    })
    .await;
}

#[tokio::test]
async fn a_request_id_gives_the_first_answer() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let request = pb::CreateRoleRequest { request_id: ID.into(), ..new_role("dev", &["*"]) };
        let call = |request: &pb::CreateRoleRequest| f.call("root", "policy.roles.create", request.clone());
        let first = f.access().create_role(call(&request)).await.unwrap().into_inner();
        f.advance(5);
        assert_eq!(f.access().create_role(call(&request)).await.unwrap().into_inner(), first);
        let other = pb::CreateRoleRequest { request_id: ID.into(), ..new_role("dev2", &["*"]) };
        assert_problem(
            f.access().create_role(call(&other)).await,
            Code::InvalidArgument,
            "REQUEST_ID_REUSED",
            &[],
        );
        // Somebody else's id is another one.
        let theirs = f.call("bob", "policy.roles.create", other);
        f.access().create_role(theirs).await.unwrap();
        assert_eq!(f.audited().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn validate_only_checks_and_keeps_nothing() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let request =
            pb::CreateRoleRequest { validate_only: true, request_id: ID.into(), ..new_role("dev", &["*"]) };
        let call = || f.call("root", "policy.roles.create", request.clone());
        assert_eq!(
            f.access().create_role(call()).await.unwrap().into_inner().name,
            format!("{ACME}/roles/dev")
        );
        f.access().create_role(call()).await.unwrap();
        assert!(f.audited().await.is_empty());
        f.role("dev", &["*"]).await;
        assert_problem(
            f.access().create_role(call()).await,
            Code::AlreadyExists,
            "RESOURCE_ALREADY_EXISTS",
            &[],
        );
    })
    .await;
}

#[tokio::test]
async fn every_malformed_field_is_named() {
    let f = Fixture::new(pavior_testkit::db::sqlite()).await;
    let mut request =
        new_role("Not-An-Id", &["provisioning.*", "nothing.*", "catalog.entities.explode", "*."]);
    request.request_id = "x".into();
    request.role.as_mut().unwrap().display_name = "x".repeat(300);
    let call = f.call("root", "policy.roles.create", request);
    let error =
        assert_problem(f.access().create_role(call).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
    let mut fields: Vec<_> = error.violations.iter().map(|violation| violation.field.as_str()).collect();
    fields.sort_unstable();
    let want = [
        "request_id",
        "role.actions[1]",
        "role.actions[2]",
        "role.actions[3]",
        "role.display_name",
        "role_id",
    ];
    assert_eq!(fields, want);
    let binding = pb::RoleBinding {
        role: "organizations/other/roles/dev".into(),
        members: vec![
            "organizations/other/users/eve".into(),
            format!("{ACME}/groups/everyone"),
            format!("{ACME}/projects/x"),
            "everyone".to_owned(),
        ],
        scope: format!("{ACME}/groups/x"),
        ..Default::default()
    };
    let request = pb::CreateRoleBindingRequest {
        parent: ACME.into(),
        role_binding: Some(binding),
        ..Default::default()
    };
    let call = f.call("root", "policy.roleBindings.create", request);
    let error = assert_problem(
        f.access().create_role_binding(call).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    let fields: Vec<_> = error.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "role_binding.role",
            "role_binding.members[0]",
            "role_binding.members[2]",
            "role_binding.members[3]",
            "role_binding.scope"
        ]
    );
    assert_eq!(
        error.violations[3].description,
        "member `everyone` must be a user, group, service account or agent of `organizations/acme`, for example \
         `organizations/acme/groups/payments`; all of them are `organizations/acme/groups/everyone`"
    );
    let nothing = pb::CreatePolicyBindingRequest { parent: "acme".into(), ..Default::default() };
    let call = f.call("root", "policy.policyBindings.create", nothing);
    let error = assert_problem(
        f.policies().create_policy_binding(call).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(error.violations.len(), 2, "{error:?}");
}

#[tokio::test]
async fn a_scope_is_the_organization_or_a_project_of_it() {
    let f = Fixture::new(pavior_testkit::db::sqlite()).await;
    f.role("dev", &["*"]).await;
    let bind = async |scope: &str| {
        let role_binding = Some(pb::RoleBinding {
            role: format!("{ACME}/roles/dev"),
            members: vec![format!("{ACME}/groups/everyone")],
            scope: scope.into(),
            ..Default::default()
        });
        let request =
            pb::CreateRoleBindingRequest { parent: ACME.into(), role_binding, ..Default::default() };
        let call = f.call("root", "policy.roleBindings.create", request);
        f.access().create_role_binding(call).await.map(|answer| answer.into_inner())
    };
    for bad in [
        "organizations/other",
        "organizations/other/projects/shop",
        "organizations/acme/projects",
        "organizations/acme/projects/",
        "organizations/acme/projects/-",
        "organizations/acme/projects/Shop",
        "organizations/acme/projects/shop/environments/qa",
        "organizations/acme/groups/payments",
        "/organizations/acme/projects/shop",
        "projects/shop",
        "shop",
    ] {
        let error = assert_problem(bind(bad).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
        let told: Vec<_> =
            error.violations.iter().map(|v| (v.field.as_str(), v.description.as_str())).collect();
        let want = format!(
            "scope `{bad}` must be `organizations/acme` or a project of it, for example \
             `organizations/acme/projects/shop`"
        );
        assert_eq!(told, [("role_binding.scope", want.as_str())]);
    }
    for (scope, want) in
        [("", ACME), (ACME, ACME), ("organizations/acme/projects/shop", "organizations/acme/projects/shop")]
    {
        assert_eq!(bind(scope).await.unwrap().scope, want);
    }
}

#[tokio::test]
async fn references_must_exist_and_what_is_used_stays() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let binding = pb::RoleBinding {
            role: format!("{ACME}/roles/dev"),
            members: vec![format!("{ACME}/groups/everyone")],
            ..Default::default()
        };
        let request = pb::CreateRoleBindingRequest {
            parent: ACME.into(),
            role_binding: Some(binding),
            ..Default::default()
        };
        let call = || f.call("root", "policy.roleBindings.create", request.clone());
        let error = assert_problem(
            f.access().create_role_binding(call()).await,
            Code::FailedPrecondition,
            "REFERENCE_NOT_FOUND",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, format!("{ACME}/roles/dev"));
        f.role("dev", &["*"]).await;
        let bound = f.access().create_role_binding(call()).await.unwrap().into_inner();
        assert_eq!(bound.scope, ACME);
        let error = assert_problem(
            f.access().delete_role(f.call("root", "policy.roles.delete", delete("dev"))).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, bound.name);
        let remove =
            pb::DeleteRoleBindingRequest { name: bound.name, etag: bound.etag, ..Default::default() };
        f.access().delete_role_binding(f.call("root", "policy.roleBindings.delete", remove)).await.unwrap();
        f.access().delete_role(f.call("root", "policy.roles.delete", delete("dev"))).await.unwrap();

        f.policy("p", pb::PolicyType::Access, "forbid (principal, action, resource);").await.unwrap();
        f.enforce("b", "p").await;
        let remove = pb::DeletePolicyRequest { name: format!("{ACME}/policies/p"), ..Default::default() };
        let error = assert_problem(
            f.policies().delete_policy(f.call("root", "policy.policies.delete", remove)).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        assert_eq!(error.preconditions[0].subject.as_str(), "organizations/acme/policyBindings/b");
    })
    .await;
}

#[tokio::test]
async fn lists_are_paged_filtered_and_ordered() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        for id in ["a", "c", "b"] {
            f.advance(1);
            f.role(id, &["*"]).await;
        }
        let list = async |size: i32, token: &str, filter: &str, order: &str| {
            let request = pb::ListRolesRequest {
                parent: ACME.into(),
                page_size: size,
                page_token: token.into(),
                filter: filter.into(),
                order_by: order.into(),
                ..Default::default()
            };
            f.access()
                .list_roles(f.call("root", "policy.roles.list", request))
                .await
                .map(|answer| answer.into_inner())
        };
        let ids = |page: &pb::ListRolesResponse| {
            page.roles.iter().map(|role| role.display_name.to_lowercase()).collect::<String>()
        };
        let first = list(2, "", "", "").await.unwrap();
        assert_eq!(ids(&first), "ab");
        let second = list(2, &first.next_page_token, "", "").await.unwrap();
        assert_eq!((ids(&second).as_str(), second.next_page_token.as_str()), ("c", ""));
        assert_eq!(ids(&list(0, "", "", "create_time desc").await.unwrap()), "bca");
        assert_eq!(
            ids(&list(0, "", "display_name = \"B\" OR display_name = \"C\"", "").await.unwrap()),
            "bc"
        );
        for (token, filter, order, field, want) in [
            (first.next_page_token.as_str(), "display_name = \"B\"", "", "page_token", "INVALID_PAGE_TOKEN"),
            ("x", "", "", "page_token", "INVALID_PAGE_TOKEN"),
            ("", "secret = 1", "", "filter", "INVALID_FILTER"),
            ("", "((", "", "filter", "INVALID_FILTER"),
            ("", "", "secret", "order_by", "INVALID_FILTER"),
        ] {
            let error = assert_problem(list(2, token, filter, order).await, Code::InvalidArgument, want, &[]);
            assert_eq!(error.violations[0].field, field);
        }
        assert_problem(list(-1, "", "", "").await, Code::InvalidArgument, "INVALID_FIELD", &[]);
        f.policy("p", pb::PolicyType::Access, "forbid (principal, action, resource);").await.unwrap();
        for (filter, count) in [("policy_type = ACCESS", 1), ("policy_type = POLICY_TYPE_GUARDRAIL", 0)] {
            let (parent, filter) = (ACME.to_owned(), filter.to_owned());
            let request = pb::ListPoliciesRequest { parent, filter, ..Default::default() };
            let call = f.call("root", "policy.policies.list", request);
            assert_eq!(f.policies().list_policies(call).await.unwrap().into_inner().policies.len(), count);
        }
        assert_problem(
            list(0, "", &"x".repeat(100_000), "").await,
            Code::InvalidArgument,
            "INVALID_FILTER",
            &[],
        );
    })
    .await;
}

#[tokio::test]
async fn an_organization_has_a_limit_of_each_kind() {
    let f = Fixture::new(pavior_testkit::db::sqlite()).await;
    for at in 0..6 {
        f.role(&format!("r{at}"), &["*"]).await;
    }
    let error = assert_problem(
        f.access().create_role(f.call("root", "policy.roles.create", new_role("one-more", &["*"]))).await,
        Code::ResourceExhausted,
        "QUOTA_EXCEEDED",
        &[],
    );
    assert_eq!(error.quota.len(), 1);
}

#[tokio::test]
async fn facts_tell_what_exists() {
    let f = Fixture::new(pavior_testkit::db::sqlite()).await;
    f.role("dev", &["*"]).await;
    let facts = async |name: &str| {
        let call = f.call("root", "", GetResourceFactsRequest { name: name.into(), ..Default::default() });
        f.facts().get_resource_facts(call).await.map(|answer| answer.into_inner())
    };
    let known = facts("organizations/acme/roles/dev").await.unwrap();
    assert!(known.exists && known.r#type == "policy.pavior.dev/Role" && known.name.ends_with("/roles/dev"));
    for name in ["organizations/acme/roles/nope", "organizations/acme/policies/dev", "organizations/acme"] {
        let unknown = facts(name).await.unwrap();
        assert_eq!((unknown.exists, unknown.name.as_str()), (false, "organizations/acme"));
    }
    for name in ["", "x", "organizations/acme/projects/x", "organizations/acme/roles/dev/x/y"] {
        assert_problem(facts(name).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
    }
}

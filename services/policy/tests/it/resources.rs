//! Roles, bindings and policies: the standard methods.

use pavior_core::audit::AuditClass;
use pavior_core::digest::sha256_digest;
use pavior_proto::pavior::governance::internal::v1::GetResourceFactsRequest;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::both;
use prost_types::FieldMask;
use tonic::Code;

use crate::fixture::{ACME, CREATE, Fixture, GET, new_role, question};

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
async fn a_policy_is_checked_before_it_is_kept() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let guardrail = pb::PolicyType::Guardrail;
        let nested = format!(
            "forbid (principal, action, resource) when {{ {}true{} }};",
            "(".repeat(300),
            ")".repeat(300)
        );
        for (source, part) in [
            (nested.as_str(), "nested deeper than 32"),
            ("forbid (principal, action, resource", "syntax"),
            ("@nope(\"x\") forbid (principal, action, resource);", "unknown annotation `@nope`"),
            ("permit (principal, action, resource);", "`forbid` rules only"),
            ("forbid (principal, action, resource) when { context.size == 1 };", "size"),
        ] {
            let error = assert_problem(
                f.policy("p", guardrail, source).await,
                Code::InvalidArgument,
                "INVALID_DOCUMENT",
                &[],
            );
            assert_eq!(error.violations[0].field, "policy.source");
            assert!(error.violations.iter().any(|v| v.description.contains(part)), "{part} in {error:?}");
        }
        let former = r#"@message("{context.environment_class}") forbid (principal, action, resource)
            when { context has environment_class && context.environment_class == "production" };"#;
        let policy = f.policy("p", guardrail, former).await;
        let error = assert_problem(policy, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        let told: Vec<_> = error.violations.iter().map(|violation| violation.description.as_str()).collect();
        assert!(
            told.contains(&"`environment_class` is not known: the field is `environment_class_id`"),
            "{told:?}"
        );
        assert!(f.audited().await.is_empty());
        let made = f.policy("p", guardrail, "forbid (principal, action, resource);").await.unwrap();
        assert_eq!(made.digest, sha256_digest(made.source.as_bytes()));
        let update = |patch: pb::Policy, mask: &[&str]| {
            let paths = mask.iter().map(|path| (*path).to_owned()).collect();
            let policy = Some(pb::Policy { name: made.name.clone(), ..patch });
            let request = pb::UpdatePolicyRequest {
                policy,
                update_mask: Some(FieldMask { paths }),
                ..Default::default()
            };
            f.call("root", "policy.policies.update", request)
        };
        let broken = pb::Policy { source: nested.clone(), ..Default::default() };
        assert_problem(
            f.policies().update_policy(update(broken, &["source"])).await,
            Code::InvalidArgument,
            "INVALID_DOCUMENT",
            &[],
        );
        let moved = pb::Policy { policy_type: pb::PolicyType::Access.into(), ..Default::default() };
        let error = assert_problem(
            f.policies().update_policy(update(moved, &["policy_type"])).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(error.violations[0].field.as_str(), "policy_type", "{error:?}");
        let better = pb::Policy {
            source: "@id(\"x\") forbid (principal, action, resource);".into(),
            ..Default::default()
        };
        let changed = f.policies().update_policy(update(better, &["source"])).await.unwrap().into_inner();
        assert_ne!(changed.digest, made.digest);
    })
    .await;
}

const FORBID: &str = "forbid (principal, action, resource);";

impl Fixture {
    async fn rewrite(&self, policy: &str, source: &str) -> pb::Policy {
        let policy = pb::Policy {
            name: format!("{ACME}/policies/{policy}"),
            source: source.into(),
            ..Default::default()
        };
        let request = pb::UpdatePolicyRequest { policy: Some(policy), ..Default::default() };
        let call = self.call("root", "policy.policies.update", request);
        self.policies().update_policy(call).await.unwrap().into_inner()
    }

    async fn revisions(&self, policy: &str) -> Vec<pb::PolicyRevision> {
        let parent = format!("{ACME}/policies/{policy}");
        let request = pb::ListPolicyRevisionsRequest { parent, ..Default::default() };
        let call = self.call("root", "policy.policyRevisions.list", request);
        self.policies().list_policy_revisions(call).await.unwrap().into_inner().policy_revisions
    }

    async fn roll_back(&self, policy: &str, revision_id: &str) -> Result<pb::Policy, tonic::Status> {
        let request = pb::RollbackPolicyRequest {
            name: format!("{ACME}/policies/{policy}"),
            revision_id: revision_id.into(),
            ..Default::default()
        };
        let call = self.call("root", "policy.policies.rollback", request);
        Ok(self.policies().rollback_policy(call).await?.into_inner())
    }
}

#[tokio::test]
async fn each_text_of_a_policy_is_a_revision_and_can_be_put_back() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let made = f.policy("p", pb::PolicyType::Guardrail, FORBID).await.unwrap();
        assert_eq!(made.revision, format!("{ACME}/policies/p/revisions/1"));
        let other = format!("@id(\"other\") {FORBID}");
        f.advance(1);
        assert_eq!(f.rewrite("p", &other).await.revision, format!("{ACME}/policies/p/revisions/2"));
        // The same text, or another name to show, is no revision.
        assert!(f.rewrite("p", &other).await.revision.ends_with("/2"));
        f.advance(1);
        let back = f.roll_back("p", "1").await.unwrap();
        assert_eq!((back.source.as_str(), back.digest.as_str()), (FORBID, made.digest.as_str()));
        let kept = f.revisions("p").await;
        let told: Vec<(&str, &str)> =
            kept.iter().map(|one| (one.name.rsplit('/').next().unwrap(), one.source.as_str())).collect();
        assert_eq!(told, [("3", FORBID), ("2", other.as_str()), ("1", FORBID)]);
        assert!(kept.iter().all(|one| one.author == format!("{ACME}/users/root")), "{kept:?}");
        let get = pb::GetPolicyRevisionRequest { name: kept[1].name.clone(), ..Default::default() };
        let call = f.call("root", "policy.policyRevisions.get", get);
        assert_eq!(f.policies().get_policy_revision(call).await.unwrap().into_inner(), kept[1]);
        let error = assert_problem(f.roll_back("p", "9").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let resource = error.resource.unwrap();
        assert_eq!(
            (resource.r#type.as_str(), resource.name),
            ("policy.pavior.dev/PolicyRevision", format!("{ACME}/policies/p/revisions/9"))
        );
        assert_eq!(
            assert_problem(f.roll_back("nope", "1").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[])
                .resource
                .unwrap()
                .r#type,
            "policy.pavior.dev/Policy"
        );
        let last = f.audited().await.pop().unwrap();
        assert_eq!(last.action, "policy.policies.rollback");

        // A policy of the same name begins anew.
        let delete = pb::DeletePolicyRequest { name: made.name.clone(), ..Default::default() };
        f.policies().delete_policy(f.call("root", "policy.policies.delete", delete)).await.unwrap();
        f.policy("p", pb::PolicyType::Guardrail, &other).await.unwrap();
        assert_eq!(f.revisions("p").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_binding_stays_with_its_revision_or_follows_the_latest() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("dev", "dev", &["users/alice"], pb::role_binding::Reach::All).await;
        f.policy("p", pb::PolicyType::Guardrail, &format!("@id(\"first\") {FORBID}")).await.unwrap();
        let binding = f.enforce("holds", "p").await;
        let denied = async || {
            let decision = f.decide(question("alice", CREATE)).await.unwrap();
            decision.reasons.iter().map(|r| (r.rule_id.clone(), r.revision.clone())).collect::<Vec<_>>()
        };
        let said = |id: &str, revision: u32| {
            vec![(id.to_owned(), format!("{ACME}/policies/p/revisions/{revision}"))]
        };
        assert_eq!(denied().await, said("first", 1));
        let pin = async |revision_id: &str| {
            let policy_binding = Some(pb::PolicyBinding {
                name: binding.name.clone(),
                revision_id: revision_id.into(),
                ..Default::default()
            });
            let update_mask = Some(FieldMask { paths: vec!["revision_id".into()] });
            let request =
                pb::UpdatePolicyBindingRequest { policy_binding, update_mask, ..Default::default() };
            let call = f.call("root", "policy.policyBindings.update", request);
            f.policies().update_policy_binding(call).await.map(|answer| answer.into_inner())
        };
        assert_eq!(pin("1").await.unwrap().revision_id, "1");
        f.advance(1);
        f.rewrite("p", &format!("@id(\"second\") {FORBID}")).await;
        f.advance(1);
        assert_eq!(denied().await, said("first", 1));
        // The limit of the fixture keeps three, and the one that is named.
        for at in 0..3 {
            f.rewrite("p", &format!("@id(\"more-{at}\") {FORBID}")).await;
            f.advance(1);
        }
        let kept = f.revisions("p").await;
        let ids: Vec<&str> = kept.iter().map(|one| one.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(ids, ["5", "4", "3", "1"]);
        assert_eq!(denied().await, said("first", 1));
        assert_eq!(pin("").await.unwrap().revision_id, "");
        assert_eq!(denied().await, said("more-2", 5));
        let error = assert_problem(pin("2").await, Code::FailedPrecondition, "REFERENCE_NOT_FOUND", &[]);
        assert_eq!(error.metadata["field"], "policy_binding.revision_id");
        let error = assert_problem(pin("latest").await, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(error.violations[0].field.as_str(), "policy_binding.revision_id");
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

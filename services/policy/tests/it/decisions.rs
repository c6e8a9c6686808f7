//! Decisions from end to end.

use std::collections::BTreeSet;

use pavior_core::digest::SHA256_PREFIX;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::{both, sqlite};
use pb::Effect;
use pb::PolicyType::{Access, Guardrail};
use pb::role_binding::Reach;
use prost_types::FieldMask;
use tonic::Code;

use crate::fixture::{ACME, CREATE, Fixture, GET, question, user, wire};

const APPROVAL: &str = r#"@id("production") @effect("approve") @approve("1 of group:platform") @message("{context.environment_class_id} needs an approval")
forbid (principal, action in Pavior::Action::"provisioning.environments.*", resource)
when { context has environment_class_id && context.environment_class_id == "production" };"#;

fn ids(reasons: &[pb::Reason]) -> Vec<&str> {
    reasons.iter().map(|reason| reason.rule_id.as_str()).collect()
}

#[tokio::test]
async fn roles_grant_through_groups_and_guardrails_ask() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let denied = f.decide(question("alice", CREATE)).await.unwrap();
        assert_eq!((denied.effect(), ids(&denied.reasons)), (Effect::Deny, vec!["builtin.default-deny"]));
        f.role("dev", &["provisioning.*"]).await;
        let denied = f.decide(question("alice", CREATE)).await.unwrap();
        assert_eq!(denied.granting_roles, [format!("{ACME}/roles/dev")]);
        f.bind("everyone-owned", "dev", &["groups/everyone"], Reach::Owned).await;
        // Alice is in core, which is below payments, which owns the project.
        let allowed = f.decide(question("alice", CREATE)).await.unwrap();
        assert_eq!((allowed.effect(), ids(&allowed.reasons)), (Effect::Allow, vec!["everyone-owned"]));
        assert_eq!(allowed.directory_version, "1");
        assert_ne!(allowed.policies_digest, denied.policies_digest);
        for digest in [&allowed.policies_digest, &allowed.input_digest] {
            assert!(digest.strip_prefix(SHA256_PREFIX).is_some_and(|hex| hex.len() == 64), "{digest}");
        }
        assert_eq!(f.decide(question("bob", CREATE)).await.unwrap().effect(), Effect::Deny);
        let mut claims = question("bob", CREATE);
        claims.principal.as_mut().unwrap().group_ids = vec!["payments".into()];
        assert_eq!(f.decide(claims).await.unwrap().effect(), Effect::Allow, "a group that the token claims");
        let mut stranger = question("alice", CREATE);
        stranger.principal = Some(wire(&user("other/alice")));
        stranger.principal.as_mut().unwrap().group_ids = vec!["payments".into()];
        assert_eq!(f.decide(stranger).await.unwrap().effect(), Effect::Deny);

        f.policy("production", Guardrail, APPROVAL).await.unwrap();
        f.enforce("production", "production").await;
        let mut production = question("alice", CREATE);
        production.context.as_mut().unwrap().environment_class = "production".into();
        let asked = f.decide(production.clone()).await.unwrap();
        assert_eq!((asked.effect(), ids(&asked.reasons)), (Effect::RequireApproval, vec!["production"]));
        assert_eq!(asked.reasons[0].message, "production needs an approval");
        assert_eq!(
            (asked.requirements[0].quorum, asked.requirements[0].group.as_str()),
            (1, "organizations/acme/groups/platform")
        );
        assert_eq!(asked.plan_digest, "d1");
        production.stage = decision_pb::DecisionStage::Admission.into();
        production.plan_follows = true;
        assert_eq!(f.decide(production).await.unwrap().effect(), Effect::Allow);
    })
    .await;
}

#[tokio::test]
async fn changes_and_denials_are_recorded_and_reads_are_not() {
    both(|db| async move {
        let mut f = Fixture::new(db).await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("dev", "dev", &["users/alice"], Reach::All).await;
        let change = f.decide(question("alice", CREATE)).await.unwrap();
        let read = f.decide(question("alice", GET)).await.unwrap();
        let denied = f.decide(question("bob", GET)).await.unwrap();
        let dry =
            f.decide(decision_pb::DecideRequest { dry_run: true, ..question("bob", CREATE) }).await.unwrap();
        f.write_decisions().await;
        let list = |filter: &str| {
            let request =
                pb::ListDecisionsRequest { parent: ACME.into(), filter: filter.into(), ..Default::default() };
            f.call("root", "policy.decisions.list", request)
        };
        let names = async |filter: &str| {
            let page = f.access().list_decisions(list(filter)).await.unwrap().into_inner();
            page.decisions.into_iter().map(|decision| decision.name).collect::<BTreeSet<_>>()
        };
        let all = BTreeSet::from([change.name.clone(), denied.name.clone()]);
        assert_eq!(names("").await, all, "not {} {}", read.name, dry.name);
        let alice = format!("principal = \"{ACME}/users/alice\"");
        assert_eq!(names(&alice).await, BTreeSet::from([change.name.clone()]));
        for filter in ["effect = DENY", "effect = EFFECT_DENY", &format!("action = \"{GET}\"")] {
            assert_eq!(names(filter).await, BTreeSet::from([denied.name.clone()]), "{filter}");
        }
        assert_eq!(names(&format!("resource = \"{}\" stage = PLAN", denied.resource)).await, all);
        assert_eq!(names("create_time > \"2100-01-01T00:00:00Z\"").await, BTreeSet::new());
        assert_problem(
            f.access().list_decisions(list("stage = LATER")).await,
            Code::InvalidArgument,
            "INVALID_FILTER",
            &[],
        );
    })
    .await;
}

#[tokio::test]
async fn a_decision_that_was_kept_is_found_by_its_name() {
    both(|db| async move {
        let mut f = Fixture::new(db).await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("dev", "dev", &["users/alice"], Reach::All).await;
        let text = "@id(\"no\") @level(\"advisory\") forbid (principal, action, resource);";
        f.policy("p", Guardrail, text).await.unwrap();
        f.enforce("warns", "p").await;
        let asked = f.decide(question("alice", CREATE)).await.unwrap();
        f.write_decisions().await;
        let get = |person: &str, name: &str| {
            f.call(person, "policy.decisions.get", pb::GetDecisionRequest { name: name.into() })
        };
        let kept = f.access().get_decision(get("root", &asked.name)).await.unwrap().into_inner();
        let retention = 90 * 24 * 3_600;
        let made = asked.create_time.unwrap().seconds;
        assert_eq!(kept.expire_time.as_ref().map(|time| time.seconds - made), Some(retention));
        assert_eq!(pb::Decision { expire_time: None, ..kept }, asked);
        assert_eq!(asked.warnings[0].level(), pb::reason::Level::Advisory);
        assert_eq!(asked.warnings[0].policy_type(), Guardrail);
        assert_eq!(asked.warnings[0].revision, format!("{ACME}/policies/p/revisions/1"));
        let missing = format!("{ACME}/decisions/{}", uuid::Uuid::nil());
        let error = assert_problem(
            f.access().get_decision(get("root", &missing)).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        let resource = error.resource.unwrap();
        assert_eq!(resource.r#type.as_str(), "policy.pavior.dev/Decision");
        assert_eq!(resource.name, missing);
    })
    .await;
}

#[tokio::test]
async fn decisions_about_the_installation_stand_below_it() {
    let mut f = Fixture::new(pavior_testkit::db::sqlite()).await;
    let mut asked = question("root", "identity.organizations.create");
    asked.organization = "organizations/pavior".into();
    asked.resource = Some(ResourceFacts { name: "organizations/pavior".into(), ..Default::default() });
    let made = f.decide(asked).await.unwrap();
    f.write_decisions().await;
    assert!(made.name.starts_with("organizations/pavior/decisions/"), "{}", made.name);
    let request = pb::GetDecisionRequest { name: made.name.clone() };
    let found = f
        .access()
        .get_decision(f.on_platform("root", "policy.decisions.get", request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(found.name, made.name);
    let request = pb::ListDecisionsRequest { parent: "organizations/pavior".into(), ..Default::default() };
    let page = f
        .access()
        .list_decisions(f.on_platform("root", "policy.decisions.list", request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.decisions, [found]);
    let request = pb::GetDecisionRequest { name: made.name };
    let call = f.call("root", "policy.decisions.get", request);
    assert_problem(f.access().get_decision(call).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
}

#[tokio::test]
async fn a_change_holds_at_once_here_and_soon_elsewhere() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let other = f.replica().await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("dev", "dev", &["users/alice"], Reach::All).await;
        let effect = async |f: &Fixture| f.decide(question("alice", CREATE)).await.unwrap().effect();
        assert_eq!((effect(&f).await, effect(&other).await), (Effect::Allow, Effect::Allow));
        f.policy("no", Access, "forbid (principal, action, resource);").await.unwrap();
        let binding = f.enforce("no", "no").await;
        assert_eq!((effect(&f).await, effect(&other).await), (Effect::Deny, Effect::Allow));
        f.advance(1);
        assert_eq!(effect(&other).await, Effect::Deny);
        let off = pb::PolicyBinding { mode: pb::policy_binding::Mode::Off.into(), ..binding };
        let update_mask = Some(FieldMask { paths: vec!["mode".into()] });
        let request =
            pb::UpdatePolicyBindingRequest { policy_binding: Some(off), update_mask, ..Default::default() };
        let call = f.call("root", "policy.policyBindings.update", request);
        f.policies().update_policy_binding(call).await.unwrap();
        assert_eq!(effect(&f).await, Effect::Allow);
    })
    .await;
}

#[tokio::test]
async fn the_directory_is_asked_again_and_its_loss_is_not_a_yes() {
    let f = Fixture::new(sqlite()).await;
    f.role("dev", &["provisioning.*"]).await;
    f.bind("dev", "dev", &["groups/payments"], Reach::All).await;
    let effect = async || f.decide(question("alice", CREATE)).await.map(|decision| decision.effect());
    assert_eq!(effect().await.unwrap(), Effect::Allow);
    f.advance(10);
    assert_eq!(effect().await.unwrap(), Effect::Allow);
    assert_eq!(f.catalog.state.lock().unwrap().full_answers, 1, "the second answer was `unchanged`");
    f.catalog.set("2", &[("alice", &[])], &[]);
    assert_eq!(effect().await.unwrap(), Effect::Allow, "within the limit");
    f.advance(1);
    assert_eq!(effect().await.unwrap(), Effect::Deny);
    f.catalog.fake.set_down(true);
    assert_eq!(effect().await.unwrap(), Effect::Deny, "still fresh");
    f.advance(1);
    let error = assert_problem(effect().await, Code::Unavailable, "DEPENDENCY_UNAVAILABLE", &[]);
    assert!(error.retry_after.is_some());
    f.catalog.fake.set_down(false);
    assert_eq!(effect().await.unwrap(), Effect::Deny);
}

#[tokio::test]
async fn the_platform_belongs_to_its_administrators() {
    let f = Fixture::new(sqlite()).await;
    let mut asked = question("alice", "identity.organizations.create");
    asked.organization = "organizations/pavior".into();
    asked.resource = Some(ResourceFacts { name: "organizations/pavior".into(), ..Default::default() });
    asked.resource.as_mut().unwrap().owner.clear();
    assert_eq!(f.decide(asked.clone()).await.unwrap().effect(), Effect::Deny);
    asked.principal.as_mut().unwrap().installation_operator = true;
    let allowed = f.decide(asked).await.unwrap();
    assert_eq!(
        (allowed.effect(), ids(&allowed.reasons)),
        (Effect::Allow, vec!["builtin.installation-operator"])
    );
}

#[tokio::test]
async fn batches_and_allowed_actions() {
    let f = Fixture::new(sqlite()).await;
    f.role("viewer", &[GET]).await;
    f.bind("viewer", "viewer", &["groups/everyone"], Reach::All).await;
    let requests = vec![question("alice", GET), question("alice", CREATE)];
    let call = f.own(decision_pb::BatchDecideRequest { requests });
    let answer = f.decisions().batch_decide(call).await.unwrap().into_inner();
    let effects: Vec<_> = answer.decisions.iter().map(|decision| decision.effect()).collect();
    assert_eq!(effects, [Effect::Allow, Effect::Deny]);
    let decision_pb::DecideRequest { organization, principal, resource, .. } = question("alice", GET);
    let actions = vec![GET.to_owned(), CREATE.to_owned(), "no.such.action".to_owned()];
    let request = decision_pb::ListAllowedActionsRequest {
        organization,
        principal,
        resource,
        planned_actions: actions.clone(),
        actions,
    };
    let list = async || {
        let answer = f.decisions().list_allowed_actions(f.call("alice", "", request.clone())).await;
        let answer = answer.unwrap().into_inner();
        (answer.actions, answer.planned_actions)
    };
    assert_eq!(list().await, (vec![GET.to_owned()], vec![GET.to_owned()]));
    // A guardrail is asked now, where the call itself would ask it, and left to the plan where there will be one.
    f.role("maker", &[CREATE]).await;
    f.bind("maker", "maker", &["groups/everyone"], Reach::All).await;
    let made = (vec![GET.to_owned(), CREATE.to_owned()], vec![GET.to_owned(), CREATE.to_owned()]);
    assert_eq!(list().await, made);
    let source = format!("forbid (principal, action == Pavior::Action::\"{CREATE}\", resource);");
    f.policy("frozen", Guardrail, &source).await.unwrap();
    f.enforce("frozen", "frozen").await;
    assert_eq!(list().await, (vec![GET.to_owned()], made.1));
    assert_eq!(f.decide(question("alice", CREATE)).await.unwrap().effect(), Effect::Deny);
    let many = decision_pb::BatchDecideRequest { requests: vec![question("alice", GET); 101] };
    assert_problem(
        f.decisions().batch_decide(f.own(many)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
}

#[tokio::test]
async fn a_question_with_holes_is_refused_with_all_of_them() {
    let f = Fixture::new(sqlite()).await;
    let mut asked = question("alice", CREATE);
    asked.principal.as_mut().unwrap().name = "organizations/other/users/alice".into();
    asked.resource.as_mut().unwrap().owner = "organizations/other/groups/payments".into();
    asked.resource.as_mut().unwrap().name = "organizations/acme-2/projects/x".into();
    asked.context.as_mut().unwrap().create_count = -1;
    asked.approval = "x".into();
    let error = assert_problem(f.decide(asked).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
    let mut fields: Vec<_> = error.violations.iter().map(|violation| violation.field.as_str()).collect();
    fields.sort_unstable();
    let want = ["approval", "context.create_count", "principal.name", "resource.name", "resource.owner"];
    assert_eq!(fields, want);
    let error = assert_problem(
        f.decide(decision_pb::DecideRequest::default()).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert!(error.violations.len() >= 4, "{error:?}");
}

/// An older copy may lack what forbids a change, and have rights that were taken away: it allows reads only.
#[tokio::test]
async fn an_older_copy_allows_no_change() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("everyone-owned", "dev", &["groups/everyone"], Reach::Owned).await;
        let effect = |action| {
            let f = &f;
            async move { f.decide(question("alice", action)).await.map(|decision| decision.effect()) }
        };
        assert_eq!(effect(CREATE).await.unwrap(), Effect::Allow);
        let behind = pavior_store::outbox::Difference::Behind { epoch: 5, last: 3, recorded: 9 }.of("policy");
        let allowed = async || {
            let decision_pb::DecideRequest { organization, principal, resource, .. } = question("alice", GET);
            let (actions, planned_actions) = (vec![GET.to_owned()], vec![CREATE.to_owned()]);
            let request = decision_pb::ListAllowedActionsRequest {
                organization,
                principal,
                resource,
                actions,
                planned_actions,
            };
            let answer = f.decisions().list_allowed_actions(f.call("alice", "", request)).await.unwrap();
            let answer = answer.into_inner();
            (answer.actions.len(), answer.planned_actions.len(), answer.changes_refused)
        };
        assert_eq!(allowed().await, (1, 1, String::new()));
        f.store.history().set(Some(behind.clone()));
        let refused = assert_problem(effect(CREATE).await, Code::Unavailable, "RESTORE_NEEDED", &[]);
        assert!(refused.message.contains("the database of policy knows of 3"), "{refused:?}");
        assert_eq!(allowed().await, (1, 0, refused.message));
        assert_eq!(effect(GET).await.unwrap(), Effect::Allow);
        let denied = f.decide(question("bob", CREATE)).await.unwrap();
        assert_eq!(denied.effect(), Effect::Deny, "what an older copy denies stays denied");
        f.store.history().set(None);
        assert_eq!(effect(CREATE).await.unwrap(), Effect::Allow);

        // The catalog says so of its own, with a directory that has not changed, too.
        for (why, reason) in [(behind.to_string().as_str(), "RESTORE_NEEDED"), ("", "DEPENDENCY_UNAVAILABLE")]
        {
            f.catalog.copy(false, why);
            f.advance(3600);
            assert_problem(effect(CREATE).await, Code::Unavailable, reason, &[]);
            assert_eq!(effect(GET).await.unwrap(), Effect::Allow);
        }
        f.catalog.copy(true, "");
        f.advance(3600);
        assert_eq!(effect(CREATE).await.unwrap(), Effect::Allow);
    })
    .await;
}

/// Whether it is an older copy is not known before the audit log has been compared with.
#[tokio::test]
async fn what_has_not_been_compared_allows_no_change() {
    both(|db| async move {
        let store = db.connect().await;
        let catalog = crate::catalog::Catalog::default();
        catalog.set("1", &[("alice", &["core"])], &[("core", "payments")]);
        let f = Fixture::with(store, catalog, std::sync::Arc::default(), 1).await;
        let mut operator = question("alice", CREATE);
        operator.principal.as_mut().unwrap().installation_operator = true;
        let asked = || f.decide(operator.clone());
        assert_problem(asked().await, Code::Unavailable, "DEPENDENCY_UNAVAILABLE", &[]);
        f.store.history().set(None);
        assert_eq!(asked().await.unwrap().effect(), Effect::Allow);
    })
    .await;
}

/// Of an organization that the catalog, being sure, does not know nothing is out of date: what is allowed there is, and
/// whoever made none hears so from the service that is asked.
#[tokio::test]
async fn an_organization_that_does_not_exist_is_no_older_copy() {
    let f = Fixture::new(sqlite()).await;
    let mut operator = question("alice", CREATE);
    operator.organization = "organizations/nowhere".into();
    let project = operator.resource.as_mut().unwrap();
    project.name = "organizations/nowhere/projects/hello".into();
    project.owner = String::new();
    operator.principal.as_mut().unwrap().installation_operator = true;
    assert_eq!(f.decide(operator).await.unwrap().effect(), Effect::Allow);
}

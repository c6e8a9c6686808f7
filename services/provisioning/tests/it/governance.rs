//! A plan is asked about as a whole: what may not be done by itself is not done as a part of something else.

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db::{both, sqlite};
use pavior_testkit::wait_for;
use serde_json::{Value, json};
use tonic::Code;

use crate::fixture::*;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

fn delete() -> pb::DeleteProjectRequest {
    pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() }
}

fn guardrail(id: &str) -> Value {
    let reason = json!({"ruleId": id, "policyType": "POLICY_TYPE_GUARDRAIL", "message": format!("{id} says no"), "fix": "ask"});
    json!({ "effect": "EFFECT_DENY", "reasons": [reason] })
}

fn approval(groups: &[(&str, i32)]) -> Value {
    let approvals: Vec<Value> = groups
        .iter()
        .map(|(group, quorum)| json!({"quorum": quorum, "group": format!("{ACME}/groups/{group}"), "ruleIds": [format!("{group}-{quorum}")]}))
        .collect();
    json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals })
}

/// The questions of a stage, as `action resource class`.
fn asked(f: &Fixture, stage: decision_pb::DecisionStage) -> Vec<String> {
    let state = f.peers.state();
    let questions = state.questions.iter().filter(|question| question.stage() == stage);
    questions
        .map(|question| {
            let resource = question.resource.clone().unwrap_or_default().name;
            let class = question.context.clone().unwrap_or_default().environment_class;
            let resource = resource.trim_start_matches(ACME);
            format!("{} {resource} {class}", question.action.trim_start_matches("provisioning."))
                .trim()
                .to_owned()
        })
        .collect()
}

fn forget(f: &Fixture) {
    f.peers.state().questions.clear();
}

#[tokio::test]
async fn what_may_not_be_deleted_by_itself_is_not_deleted_with_its_project() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let effects = f.driver.effects();

        f.decide("provisioning.environments.delete", guardrail("production-is-kept"));
        let decoded = refused(f.projects().delete_project(f.call(delete())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "GUARDRAIL_DENIED"));
        assert_eq!(decoded.preconditions[0].subject, "production-is-kept");
        assert_eq!(decoded.metadata["action"], "provisioning.environments.delete");

        f.decide("provisioning.environments.delete", json!({ "effect": "EFFECT_DENY" }));
        let decoded = refused(f.projects().delete_project(f.call(delete())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
        assert_eq!(decoded.metadata["action"], "provisioning.environments.delete");
        assert!(
            decoded.message.contains(&format!("{HELLO}/environments/development")),
            "{}",
            decoded.message
        );

        let name = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
        let project = f.projects().get_project(f.call(name)).await.unwrap().into_inner();
        assert_eq!((project.state(), project.active_operation.as_str()), (pb::project::State::Active, ""));
        assert_eq!(f.driver.effects(), effects, "nothing was touched");
    })
    .await;
}

#[tokio::test]
async fn what_needs_an_approval_by_itself_needs_it_with_its_project() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.decide("provisioning.environments.create", approval(&[("platform", 1), ("security", 2)]));
        f.decide("provisioning.deployments.create", approval(&[("platform", 3)]));
        let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
        let waiting = metadata(&operation);
        assert_eq!(waiting.state(), pb::operation_metadata::State::AwaitingApproval);
        assert_eq!(f.driver.effects(), 0);
        let plan = {
            let state = f.peers.state();
            let request = &state.approvals[&waiting.approval];
            let needed: Vec<(&str, i32)> = request
                .requirements
                .iter()
                .map(|needed| (needed.group.trim_start_matches("organizations/acme/groups/"), needed.quorum))
                .collect();
            assert_eq!(needed, [("platform", 3), ("security", 2)]);
            assert_eq!(request.requirements[0].rule_ids, ["platform-1", "platform-3"]);
            request.plan.clone()
        };
        // The plan tells those who approve it every decision, not only the one that asks for them.
        let plan = f
            .plans()
            .get_plan(f.call(pb::GetPlanRequest { name: plan, ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        let told: Vec<String> = plan.policy_checks.into_iter().map(|check| check.decision).collect();
        assert_eq!(told, (0..5).map(|at| format!("decision-{at}")).collect::<Vec<_>>());
        f.peers.state().approvals.get_mut(&waiting.approval).unwrap().state = 2;
        assert_eq!(problem(&f.wait(operation).await), None);
        let wanted = [
            "projects.create",
            "environments.create /projects/hello development",
            "catalog.entities.create /kinds/component",
            "pipelines.run /projects/hello/pipelines/pipeline",
            "deployments.create /projects/hello/environments/development development",
        ];
        assert_eq!(asked(&f, decision_pb::DecisionStage::Plan), wanted);
        assert_eq!(asked(&f, decision_pb::DecisionStage::Execution), wanted, "all of it is asked once more");
        wait_for("the record of the operation", LIMIT, async || {
            let records = f.peers.state().records.join("\n");
            // What changed is told as bytes.
            let bytes = |at: i32| format!("{:?}", format!("decision-{at}").as_bytes());
            let told = (0..5).all(|at| records.contains(bytes(at).trim_matches(['[', ']'])));
            if told { Ok(()) } else { Err(records) }
        })
        .await;
        let state = f.peers.state();
        let others = ["provisioning.projects.create", "catalog.entities.create"];
        let questions = state.questions.iter().filter(|question| !others.contains(&question.action.as_str()));
        for question in questions {
            let facts = question.resource.clone().unwrap();
            assert_eq!(
                (facts.owner.as_str(), facts.project.as_str()),
                ("organizations/acme/groups/payments", HELLO)
            );
            assert_eq!(facts.labels.len(), 2, "{question:?}");
            assert!(!question.context.clone().unwrap().plan_digest.is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_longer_allowed_when_the_approval_comes_does_not_begin() {
    let f = Fixture::new(sqlite()).await;
    f.decide("provisioning.environments.create", approval(&[("platform", 1)]));
    let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
    f.decide("provisioning.pipelines.run", guardrail("no-runs"));
    f.peers.state().approvals.get_mut(&metadata(&operation).approval).unwrap().state = 2;
    let done = f.wait(operation).await;
    let problem = problem(&done).unwrap();
    assert!(problem.starts_with("GUARDRAIL_DENIED") && problem.contains("no-runs says no"), "{problem}");
    assert_eq!(f.driver.effects(), 0);
}

#[tokio::test]
async fn every_kind_of_plan_asks_for_all_that_it_does() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let plan = decision_pb::DecisionStage::Plan;
    forget(&f);
    let staging = f.begin_environment("staging").await;
    assert_eq!(problem(&f.wait(staging).await), None);
    let staging = "/projects/hello/environments/staging staging";
    let deploy = format!("deployments.create {staging}");
    assert_eq!(asked(&f, plan), ["environments.create /projects/hello staging", deploy.as_str()]);

    forget(&f);
    let request = pb::CreateDeploymentRequest {
        parent: format!("{HELLO}/environments/staging"),
        deployment: Some(pb::Deployment::default()),
        ..Default::default()
    };
    f.wait(f.deployments().create_deployment(f.call(request)).await.unwrap().into_inner()).await;
    assert_eq!(asked(&f, plan), [deploy.as_str()]);

    forget(&f);
    let request = pb::PromoteDeploymentRequest {
        name: f.environment("development").await.active_deployments.remove(0),
        environment: format!("{HELLO}/environments/staging"),
        ..Default::default()
    };
    f.wait(f.deployments().promote_deployment(f.call(request)).await.unwrap().into_inner()).await;
    assert_eq!(asked(&f, plan), [format!("deployments.promote {staging}")]);

    forget(&f);
    let request = pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment {
            name: format!("{HELLO}/environments/development"),
            parameters: pavior_rpc::convert::to_struct(&json!({"size": "large"})).ok(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let operation = f.projects().update_environment(f.call(request)).await.unwrap().into_inner();
    let name = metadata(&operation).plan;
    let development = "/projects/hello/environments/development development";
    f.wait(operation).await;
    let shown = f
        .plans()
        .get_plan(f.call(pb::GetPlanRequest { name, ..Default::default() }))
        .await
        .unwrap()
        .into_inner();
    let deploys = |change: &pb::plan::Change| {
        change.step_id == "development.workload" && change.action() != pb::plan::Action::Noop
    };
    let mut wanted = vec![format!("environments.update {development}")];
    wanted.extend(shown.changes.iter().any(deploys).then(|| format!("deployments.create {development}")));
    assert_eq!(asked(&f, plan), wanted, "{:?}", shown.changes);

    forget(&f);
    f.wait(f.projects().delete_project(f.call(delete())).await.unwrap().into_inner()).await;
    let wanted = ["development", "staging"]
        .map(|id| format!("environments.delete /projects/hello/environments/{id} {id}"));
    let entity = "catalog.entities.delete /kinds/component/entities/hello";
    assert_eq!(asked(&f, plan), ["projects.delete /projects/hello", &wanted[0], &wanted[1], entity]);
}

#[tokio::test]
async fn what_may_not_be_done_to_the_catalog_is_not_done_with_a_project() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.decide("catalog.entities.create", guardrail("catalog-is-curated"));
        let decoded = refused(f.projects().create_project(f.call(hello())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "GUARDRAIL_DENIED"));
        assert_eq!(decoded.metadata["action"], "catalog.entities.create");
        assert_eq!(f.driver.effects(), 0);
        f.decide("catalog.entities.create", json!({ "effect": "EFFECT_ALLOW" }));
        let asked_alone = {
            let state = f.peers.state();
            state.questions.iter().find(|one| one.action == "catalog.entities.create").cloned().unwrap()
        };
        let (facts, context) = (asked_alone.resource.unwrap(), asked_alone.context.unwrap());
        assert_eq!(
            (facts.name, facts.r#type.as_str()),
            (format!("{ACME}/kinds/component"), "catalog.pavior.dev/Kind")
        );
        assert_eq!(context.new_owner, format!("{ACME}/groups/payments"));
        let of_the_plan =
            (context.parameters, context.create_count, context.labels.len(), facts.labels.len());
        assert_eq!(of_the_plan, (None, 0, 0, 0), "who makes an entity is not asked about a plan");
        f.project().await;

        // Somebody has moved it and labelled it since: what is asked about is how it is now.
        let entity = format!("{ACME}/kinds/component/entities/hello");
        {
            let mut state = f.peers.state();
            let entity = state.entities.get_mut(&entity).unwrap();
            entity.owner = format!("{ACME}/groups/search");
            entity.labels.insert("tier".to_owned(), "gold".to_owned());
        }
        forget(&f);
        f.decide("catalog.entities.delete", guardrail("gold-is-kept"));
        let decoded = refused(f.projects().delete_project(f.call(delete())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "GUARDRAIL_DENIED"));
        assert_eq!(decoded.preconditions[0].subject, "gold-is-kept");
        let facts = {
            let state = f.peers.state();
            let question =
                state.questions.iter().find(|one| one.action == "catalog.entities.delete").cloned();
            question.unwrap().resource.unwrap()
        };
        assert_eq!(
            (facts.name.as_str(), facts.r#type.as_str()),
            (entity.as_str(), "catalog.pavior.dev/Entity")
        );
        assert_eq!((facts.owner, facts.labels.len()), (format!("{ACME}/groups/search"), 1));

        // What is gone from the catalog already is not removed from it.
        f.peers.state().entities.clear();
        let done = f.wait(f.projects().delete_project(f.call(delete())).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
    })
    .await;
}

#[tokio::test]
async fn a_retry_is_asked_about_like_the_plan_that_it_takes_up() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let stays = Behaviour::Fail { retryable: false, message: "will not go".into() };
        f.driver.script(CallKind::Destroy, "repository", [stays]);
        let operation = f.projects().delete_project(f.call(delete())).await.unwrap().into_inner();
        let operation = f.wait(operation).await;
        assert_eq!(metadata(&operation).state(), pb::operation_metadata::State::Stuck);
        f.decide("provisioning.environments.delete", guardrail("production-is-kept"));
        let retry = pb::RetryOperationRequest { name: operation.name.clone(), ..Default::default() };
        let decoded = refused(f.operation_service().retry_operation(f.call(retry.clone())).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "GUARDRAIL_DENIED"));
        assert_eq!(decoded.metadata["action"], "provisioning.environments.delete");

        f.decide("provisioning.environments.delete", json!({ "effect": "EFFECT_ALLOW" }));
        let operation = f.operation_service().retry_operation(f.call(retry)).await.unwrap().into_inner();
        assert_eq!(problem(&f.wait(operation).await), None);
        assert_eq!(f.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_plan_shows_what_was_asked_about_it_and_what_was_answered() {
    let f = Fixture::new(sqlite()).await;
    f.decide("provisioning.environments.create", approval(&[("platform", 1)]));
    let request = pb::CreateProjectRequest { validate_only: true, ..hello() };
    let done = f.projects().create_project(f.call(request)).await.unwrap().into_inner();
    let plan = metadata(&done).validated_plan.unwrap();
    let shown: Vec<_> = plan
        .policy_checks
        .iter()
        .map(|question| (question.action.as_str(), question.decision.as_str(), question.effect()))
        .collect();
    use policy::Effect::{Allow, RequireApproval};
    assert_eq!(
        shown,
        [
            ("provisioning.projects.create", "decision-0", Allow),
            ("provisioning.environments.create", "decision-1", RequireApproval),
            ("catalog.entities.create", "decision-2", Allow),
            ("provisioning.pipelines.run", "decision-3", Allow),
            ("provisioning.deployments.create", "decision-4", Allow),
        ]
    );
    assert_eq!(plan.decision.unwrap().effect(), RequireApproval);
}

#[tokio::test]
async fn nobody_is_asked_to_approve_a_run_of_what_is_not_known() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.pins.store(false, std::sync::atomic::Ordering::SeqCst);
        let run = |revision: &str, validate_only: bool| pb::RunPipelineRequest {
            name: format!("{HELLO}/pipelines/pipeline"),
            revision: revision.to_owned(),
            validate_only,
            ..Default::default()
        };
        // What needs no approval runs as before.
        assert_eq!(
            problem(
                &f.wait(f.pipelines().run_pipeline(f.call(run("", false))).await.unwrap().into_inner()).await
            ),
            None
        );
        f.decide("provisioning.pipelines.run", approval(&[("platform", 1)]));
        for validate_only in [true, false] {
            let decoded = refused(f.pipelines().run_pipeline(f.call(run("main", validate_only))).await);
            assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "NOT_CONFIGURED"));
            assert_eq!(decoded.metadata["driver"], "fake");
            assert_eq!(decoded.preconditions[0].subject, "fake");
            assert!(decoded.message.contains("driver `fake`"), "{}", decoded.message);
        }
        assert_eq!(f.peers.state().approvals.len(), 0);
        // A commit is what it is, whatever the driver says.
        let request = run("0123456789abcdef0123456789abcdef01234567", false);
        let waiting = f.pipelines().run_pipeline(f.call(request)).await.unwrap().into_inner();
        assert_eq!(metadata(&waiting).state(), pb::operation_metadata::State::AwaitingApproval);
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_waits_for_people_can_be_cancelled() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let (effects, live) = (f.driver.effects(), f.driver.live());
        f.decide("provisioning.environments.delete", approval(&[("platform", 1)]));
        let request = pb::DeleteEnvironmentRequest {
            name: format!("{HELLO}/environments/development"),
            ..Default::default()
        };
        let operation = f.projects().delete_environment(f.call(request)).await.unwrap().into_inner();
        assert_eq!(metadata(&operation).state(), pb::operation_metadata::State::AwaitingApproval);
        let cancel = lro::CancelOperationRequest { name: operation.name.clone() };
        f.operations().cancel_operation(f.call(cancel)).await.unwrap();
        let done = f.wait(operation).await;
        assert!(problem(&done).unwrap().starts_with("CANCELLED"), "{done:?}");
        assert_eq!((f.driver.effects(), f.driver.live()), (effects, live));
        let kept = f.environment("development").await;
        assert_eq!((kept.state(), kept.active_operation.as_str()), (pb::environment::State::Active, ""));
    })
    .await;
}

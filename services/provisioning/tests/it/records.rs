//! Verbs on operations leave a record of who did it, deleted operations are kept as long as they are to be, and their
//! owner goes on seeing what came of an ask whose target is gone.

use std::sync::Arc;

use pavior_core::principal::Principal;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_provisioning::domain::deployment::DeploymentState;
use pavior_provisioning::domain::plan::{Action, Kind};
use pavior_provisioning::domain::run::{RunCause, RunState};
use pavior_provisioning::store::Retention;
use pavior_testkit::db::{both, sqlite};
use pavior_testkit::wait_for;
use serde_json::json;
use time::Duration;
use tonic::Code;

use crate::fixture::*;
use crate::harness::{
    PROJECT, TakeUp, World, alice, by_alice, change, graph, plan, resource, shown, teardown_plan,
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn carol() -> Principal {
    Principal { name: format!("{ACME}/users/carol"), subject: "carol".into(), ..alice() }
}

/// How many records of an action by somebody have come to the audit service.
fn records(f: &Fixture, action: &str, who: &str) -> usize {
    let state = f.peers.state();
    state.records.iter().filter(|record| record.contains(action) && record.contains(who)).count()
}

async fn recorded(f: &Fixture, action: &str, who: &str) {
    let what = format!("the record of `{action}` by `{who}`");
    wait_for(&what, PATIENCE, async || match records(f, action, who) {
        0 => Err("none"),
        _ => Ok(()),
    })
    .await;
}

async fn facts_of(f: &Fixture, name: &str) -> ResourceFacts {
    let request = GetResourceFactsRequest { name: name.into(), ..Default::default() };
    f.facts().get_resource_facts(f.call(request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn cancel_and_delete_are_recorded_once_with_who_did_it_and_may_be_repeated() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.driver.script(CallKind::Apply, "development.database", [Behaviour::UntilCancelled]);
        let begun = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
        wait_for("the step to be taken", PATIENCE, async || {
            let calls = f.driver.calls();
            if calls.iter().any(|call| call.step == "development.database") { Ok(()) } else { Err(calls) }
        })
        .await;
        let cancel = lro::CancelOperationRequest { name: begun.name.clone() };
        f.operations().cancel_operation(f.by(&carol(), cancel.clone())).await.unwrap();
        f.operations().cancel_operation(f.by(&carol(), cancel.clone())).await.unwrap();
        let done = f.wait(begun.clone()).await;
        assert!(problem(&done).unwrap().starts_with("CANCELLED"), "{:?}", problem(&done));
        recorded(&f, "provisioning.operations.cancel", "users/carol").await;

        // What was cancelled is gone, and its owner still is its owner.
        let facts = facts_of(&f, &begun.name).await;
        assert_eq!(
            (facts.owner.as_str(), facts.project.as_str()),
            ("organizations/acme/groups/payments", HELLO)
        );
        assert_eq!((facts.exists, facts.labels["team"].as_str()), (true, "payments"));
        let plan = metadata(&done).plan;
        assert_eq!(facts_of(&f, &plan).await.owner, "organizations/acme/groups/payments");

        let delete = lro::DeleteOperationRequest { name: begun.name.clone() };
        f.operations().delete_operation(f.by(&carol(), delete.clone())).await.unwrap();
        recorded(&f, "provisioning.operations.delete", "users/carol").await;
        let get = lro::GetOperationRequest { name: begun.name.clone() };
        assert_eq!(refused(f.operations().get_operation(f.call(get)).await).code, Code::NotFound);
        let list = lro::ListOperationsRequest { name: ACME.into(), ..Default::default() };
        let listed = f.operations().list_operations(f.call(list)).await.unwrap().into_inner().operations;
        assert!(listed.is_empty(), "{listed:?}");
        // The same again is the same answer, to those who asked for it first.
        f.operations().delete_operation(f.by(&carol(), delete.clone())).await.unwrap();
        f.operations().cancel_operation(f.by(&carol(), cancel.clone())).await.unwrap();
        for refusal in [
            refused(f.operations().delete_operation(f.call(delete)).await),
            refused(f.operations().cancel_operation(f.call(cancel)).await),
        ] {
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "RESOURCE_NOT_FOUND"));
        }
        assert_eq!(facts_of(&f, &begun.name).await.owner, "organizations/acme/groups/payments");
        f.project().await;
        recorded(&f, "provisioning.projects.create", "users/alice").await;
        assert_eq!(records(&f, "provisioning.operations.cancel", "users/carol"), 1);
        assert_eq!(records(&f, "provisioning.operations.delete", "users/carol"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_retry_is_recorded_and_answered_once() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let refuse = Behaviour::Fail { retryable: false, message: "will not go".into() };
        f.driver.script(CallKind::Destroy, "development.database", [refuse]);
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let stuck = f.wait(f.projects().delete_project(f.call(delete)).await.unwrap().into_inner()).await;
        assert!(problem(&stuck).unwrap().starts_with("OPERATION_STUCK"), "{:?}", problem(&stuck));
        let id = "9B2D1F44-5f10-4a3a-9d7a-0a5a4e3c2b1d";
        let retry = |id: String| pb::RetryOperationRequest { name: stuck.name.clone(), request_id: id };
        let clients: Vec<_> = (0..4).map(|_| (f.operation_service(), f.call(retry(id.into())))).collect();
        let answers = futures::future::join_all(
            clients.into_iter().map(|(mut client, call)| async move { client.retry_operation(call).await }),
        );
        for answer in answers.await {
            assert_eq!(answer.unwrap().into_inner().name, stuck.name);
        }
        let done = f
            .wait(f.operation_service().retry_operation(f.call(retry(id.into()))).await.unwrap().into_inner())
            .await;
        assert_eq!(problem(&done), None);
        // Its project is gone, and it is done.
        let again =
            f.operation_service().retry_operation(f.call(retry(id.to_ascii_lowercase()))).await.unwrap();
        assert_eq!(again.into_inner().name, stuck.name);
        let other = refused(f.operation_service().retry_operation(f.call(retry(String::new()))).await);
        assert_eq!((other.code, other.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
        recorded(&f, "provisioning.operations.retry", "users/alice").await;
        f.project().await;
        recorded(&f, "provisioning.projects.create", "users/alice").await;
        assert_eq!(records(&f, "provisioning.operations.retry", "users/alice"), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_over_is_forgotten_and_what_is_needed_stays() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.script(CallKind::Apply, "a", [Behaviour::Log(vec!["a line".into()])]);
        let made = world.start(graph(&[("a", &[])])).await;
        world.ended(made).await;
        let refuse = Behaviour::Fail { retryable: false, message: "will not go".into() };
        world.driver.script(CallKind::Destroy, "a", [refuse]);
        let stuck = world.start(teardown_plan(&world).await).await;
        assert_eq!(world.ended(stuck).await.op.state.as_str(), "STUCK");
        let keep = Retention {
            operations: Duration::days(90),
            max_operations: 100,
            logs: Duration::days(30),
            max_runs: 10,
            max_deployments: 10,
            ..keep_all()
        };
        assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap(), Default::default());
        age(&world, "operation", "end_time", 40).await;
        let swept = world.db.sweep_unscoped(&keep).await.unwrap();
        assert_eq!((swept.logs, swept.operations), (1, 0));
        assert!(world.db.log_chunks_unscoped(made, 0, 10).await.unwrap().is_empty());
        assert!(!world.db.events_unscoped(made, 0, 10).await.unwrap().is_empty());
        let ended = world.view(made).await;
        assert!(!ended.steps.is_empty());
        age(&world, "operation", "end_time", 100).await;
        let swept = world.db.sweep_unscoped(&keep).await.unwrap();
        assert_eq!(swept.operations, 1);
        assert!(world.db.operation_by_id_unscoped(made).await.unwrap().is_none());
        assert!(world.db.events_unscoped(made, 0, 10).await.unwrap().is_empty());
        assert!(world.db.view_unscoped(ended.op).await.unwrap().steps.is_empty());
        // It waits for an operator, who still finds everything.
        let view = world.view(stuck).await;
        assert_eq!(view.steps.len(), 1, "{:?}", shown(&view));
        world
            .db
            .retry_unscoped(
                stuck,
                &by_alice("provisioning.operations.retry"),
                Some(TakeUp::Rest),
                60_000_000,
                None,
            )
            .await
            .unwrap();
        world.engine.wake();
        assert_eq!(world.ended(stuck).await.op.state.as_str(), "SUCCEEDED");
        assert_eq!(world.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn the_oldest_go_first_when_there_are_too_many() {
    let world = World::new(sqlite()).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        let plan = crate::harness::elsewhere(graph(&[]), "acme", number);
        ids.push(world.start(plan).await);
        world.ended(ids[number]).await;
    }
    age(&world, "operation", "end_time", 5).await;
    let keep = Retention {
        operations: Duration::days(90),
        max_operations: 3,
        logs: Duration::days(30),
        max_runs: 10,
        max_deployments: 10,
        ..keep_all()
    };
    assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap().operations, 1);
    assert!(world.db.operation_by_id_unscoped(ids[0]).await.unwrap().is_none());
    assert!(world.db.operation_by_id_unscoped(ids[1]).await.unwrap().is_some());
    assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap().operations, 0);
}

fn keep_all() -> Retention {
    Retention {
        operations: Duration::days(9_000),
        max_operations: 9_000,
        logs: Duration::days(9_000),
        max_runs: 9_000,
        max_deployments: 9_000,
        secrets: Duration::days(9_000),
        max_secrets: 9_000,
    }
}

#[tokio::test]
async fn secrets_are_forgotten_once_later_ones_have_taken_their_place() {
    both(|db| async {
        let world = World::new(db).await;
        let mut first = change("a", Action::Create, &[], json!({ "secret": true }));
        first.spec.secret_outputs = vec!["password".into()];
        let given = |size: i32| json!({ "given": "${{ resources.a.password }}", "size": size });
        let second = change("b", Action::Create, &["a"], given(0));
        let id = world.start(plan(Kind::CreateProject, vec![first, second])).await;
        assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
        let update = async |size: i32| {
            let update = change("b", Action::Update, &[], given(size));
            world.start(plan(Kind::Run, vec![update])).await
        };
        for size in 1..=3 {
            assert_eq!(world.ended(update(size).await).await.op.state.as_str(), "SUCCEEDED");
        }
        let sweep = async |keep: &Retention| world.db.sweep_unscoped(keep).await.unwrap().secrets;
        assert_eq!(sweep(&keep_all()).await, 0);
        // Whatever an operation that is not over may go back to stays.
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        world.driver.script(CallKind::Apply, "b", [Behaviour::Gate(gate.clone())]);
        let open = update(4).await;
        let few = Retention { max_secrets: 1, ..keep_all() };
        assert_eq!(sweep(&few).await, 0);
        gate.add_permits(1);
        assert_eq!(world.ended(open).await.op.state.as_str(), "SUCCEEDED");
        // Four were before the one that counts.
        assert_eq!((sweep(&few).await, sweep(&few).await), (3, 0));
        let short = Retention { secrets: Duration::days(30), ..keep_all() };
        assert_eq!(sweep(&short).await, 0);
        age(&world, "secret", "create_time", 40).await;
        assert_eq!((sweep(&short).await, sweep(&short).await), (1, 0));
        // What counts is still there: it is put back after a failure.
        let former = world.driver.inputs_of(&resource("b")).unwrap();
        let half = Behaviour::FailPartially { message: "half".into() };
        world.driver.script(CallKind::Apply, "b", [half]);
        let failed = world.ended(update(5).await).await;
        assert_eq!(failed.op.state.as_str(), "COMPENSATED", "{:?} {:?}", shown(&failed), failed.op.error);
        assert_eq!(world.driver.inputs_of(&resource("b")).unwrap(), former);
        assert_eq!(former["given"], "s3cret-of-fake-1");
    })
    .await;
}

/// Lets rows be so many days older.
async fn age(world: &World, table: &str, column: &str, days: i64) {
    use sea_orm::{ConnectionTrait, DbBackend};
    let store = world.db.store();
    let set = match store.backend() {
        DbBackend::Postgres => format!("{column} - interval '{days} days'"),
        _ => format!("strftime('%Y-%m-%d %H:%M:%f+00:00', {column}, '-{days} days')"),
    };
    let sql = format!("UPDATE {table} SET {column} = {set} WHERE {column} IS NOT NULL");
    store
        .upkeep::<(), pavior_store::StoreError, _>("a test", move |tx| {
            let sql = sql.clone();
            Box::pin(async move {
                tx.execute_unprepared(&sql).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

/// Runs of one pipeline, by number; `deployed` is where each is deployed.
async fn run_row(world: &World, number: i32, deployed: bool) {
    use pavior_provisioning::store::entity::{deployment, run};
    use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};
    let now = time::OffsetDateTime::now_utc() - Duration::days(10) + Duration::minutes(number.into());
    let run = run::Model {
        uid: uuid::Uuid::now_v7(),
        organization: "acme".into(),
        project: PROJECT.into(),
        pipeline: format!("{PROJECT}/pipelines/p"),
        name: format!("{PROJECT}/pipelines/p/runs/run-{number}"),
        state: RunState::Succeeded,
        revision: String::new(),
        commit_id: String::new(),
        cause: RunCause::Call,
        steps: serde_json::json!([]),
        artifacts: serde_json::json!([]),
        error: None,
        operation: String::new(),
        creator: String::new(),
        create_time: now,
        end_time: Some(now),
    };
    let deployment = deployment::Model {
        uid: uuid::Uuid::now_v7(),
        organization: "acme".into(),
        project: PROJECT.into(),
        environment: format!("{PROJECT}/environments/e"),
        name: format!("{PROJECT}/environments/e/deployments/d{number}"),
        state: DeploymentState::Active,
        run: run.name.clone(),
        commit_id: String::new(),
        artifact: serde_json::json!({}),
        url: String::new(),
        resource: format!("{PROJECT}/environments/e/resources/workload"),
        source_deployment: String::new(),
        operation: String::new(),
        creator: String::new(),
        create_time: now,
        update_time: now,
    };
    world
        .db
        .store()
        .upkeep::<(), pavior_store::StoreError, _>("a test", move |tx| {
            let (run, deployment) = (run.clone(), deployment.clone());
            Box::pin(async move {
                run::Entity::insert(run.into_active_model().reset_all()).exec_without_returning(tx).await?;
                if deployed {
                    let row = deployment.into_active_model().reset_all();
                    deployment::Entity::insert(row).exec_without_returning(tx).await?;
                }
                Ok(())
            })
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn runs_that_must_stay_do_not_keep_the_others() {
    both(|db| async {
        use pavior_provisioning::store::entity::run;
        use sea_orm::{EntityTrait, QueryOrder};
        let world = World::new(db).await;
        for (number, deployed) in [(1, true), (2, true), (3, false), (4, false)] {
            run_row(&world, number, deployed).await;
        }
        let keep = Retention {
            operations: Duration::days(90),
            max_operations: 100,
            logs: Duration::days(30),
            max_runs: 2,
            max_deployments: 10,
            secrets: Duration::days(1),
            max_secrets: 10,
        };
        assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap().runs, 1);
        assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap(), Default::default());
        let left = run::Entity::find().order_by_asc(run::Column::Name).all(world.db.store().read()).await;
        let left: Vec<String> = left.unwrap().into_iter().map(|run| run.name).collect();
        // Two are deployed, and one is what a deployment would take.
        assert_eq!(left, [1, 2, 4].map(|n| format!("{PROJECT}/pipelines/p/runs/run-{n}")));
    })
    .await;
}

#[tokio::test]
async fn what_policy_denies_is_recorded_also_when_only_its_plan_was_asked_for() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.decide("provisioning.projects.create", json!({ "effect": "EFFECT_DENY" }));
        for validate_only in [true, false] {
            let request = pb::CreateProjectRequest { validate_only, ..hello() };
            let denied = refused(f.projects().create_project(f.call(request)).await);
            assert_eq!((denied.code, denied.reason.as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
            let expected = if validate_only { 1 } else { 2 };
            wait_for("the records", PATIENCE, async || {
                match records(&f, "provisioning.projects.create", "users/alice") {
                    found if found == expected => Ok(()),
                    found => Err(found),
                }
            })
            .await;
        }
    })
    .await;
}

//! Verbs on operations leave a record of who did it, deleted operations are kept as long as they are to be, and their
//! owner goes on seeing what came of an ask whose target is gone.

use pavior_core::principal::Principal;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::governance::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_provisioning::store::Retention;
use pavior_testkit::db::{both, sqlite};
use time::Duration;
use tonic::Code;

use crate::fixture::*;
use crate::harness::{PROJECT, World, alice, by_alice, graph, shown, teardown_plan};

fn carol() -> Principal {
    Principal { name: format!("{ACME}/users/carol"), subject: "carol".into(), ..alice() }
}

/// How many records of an action by somebody have come to the audit service.
fn records(f: &Fixture, action: &str, who: &str) -> usize {
    let state = f.peers.0.lock().unwrap();
    state.records.iter().filter(|record| record.contains(action) && record.contains(who)).count()
}

async fn recorded(f: &Fixture, action: &str, who: &str) {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while records(f, action, who) == 0 {
        assert!(tokio::time::Instant::now() < until, "`{action}` by `{who}` was not recorded");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
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
        let begun = f.client().create_project(f.call(hello())).await.unwrap().into_inner();
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while !f.driver.calls().iter().any(|call| call.step == "development.database") {
            assert!(tokio::time::Instant::now() < until, "the step was not taken");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
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
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), ..Default::default() };
        let stuck = f.wait(f.client().delete_project(f.call(delete)).await.unwrap().into_inner()).await;
        assert!(problem(&stuck).unwrap().starts_with("OPERATION_STUCK"), "{:?}", problem(&stuck));
        let id = "9B2D1F44-5f10-4a3a-9d7a-0a5a4e3c2b1d";
        let retry = |id: String| pb::RetryOperationRequest { name: stuck.name.clone(), request_id: id };
        let clients: Vec<_> = (0..4).map(|_| (f.client(), f.call(retry(id.into())))).collect();
        let answers = futures::future::join_all(
            clients.into_iter().map(|(mut client, call)| async move { client.retry_operation(call).await }),
        );
        for answer in answers.await {
            assert_eq!(answer.unwrap().into_inner().name, stuck.name);
        }
        let done =
            f.wait(f.client().retry_operation(f.call(retry(id.into()))).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
        // Its project is gone, and it has ended.
        let again = f.client().retry_operation(f.call(retry(id.to_ascii_lowercase()))).await.unwrap();
        assert_eq!(again.into_inner().name, stuck.name);
        let other = refused(f.client().retry_operation(f.call(retry(String::new()))).await);
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
        assert_eq!(world.ended(stuck).await.op.state, "STUCK");
        let keep = Retention {
            operations: Duration::days(90),
            max_operations: 100,
            logs: Duration::days(30),
            max_runs: 10,
            max_deployments: 10,
        };
        assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap(), Default::default());
        age(&world, "operation", "end_time", 40).await;
        let swept = world.db.sweep_unscoped(&keep).await.unwrap();
        assert_eq!((swept.logs, swept.operations), (1, 0));
        assert!(world.db.log_chunks_unscoped(made, 0, 10).await.unwrap().is_empty());
        assert!(!world.db.events_unscoped(made, 0, 10).await.unwrap().is_empty());
        age(&world, "operation", "end_time", 100).await;
        let swept = world.db.sweep_unscoped(&keep).await.unwrap();
        assert_eq!(swept.operations, 1);
        assert!(world.db.operation_by_id_unscoped(made).await.unwrap().is_none());
        assert!(world.db.events_unscoped(made, 0, 10).await.unwrap().is_empty());
        assert!(world.db.steps_unscoped(made).await.unwrap().is_empty());
        // It waits for an operator, who still finds everything.
        let view = world.view(stuck).await;
        assert_eq!(view.steps.len(), 1, "{:?}", shown(&view));
        world
            .db
            .retry_unscoped(stuck, &by_alice("provisioning.operations.retry"), true, 60_000_000, None)
            .await
            .unwrap();
        world.engine.wake();
        assert_eq!(world.ended(stuck).await.op.state, "SUCCEEDED");
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
    };
    assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap().operations, 1);
    assert!(world.db.operation_by_id_unscoped(ids[0]).await.unwrap().is_none());
    assert!(world.db.operation_by_id_unscoped(ids[1]).await.unwrap().is_some());
    assert_eq!(world.db.sweep_unscoped(&keep).await.unwrap().operations, 0);
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
        state: "SUCCEEDED".into(),
        commit_id: String::new(),
        steps: serde_json::json!([]),
        artifacts: serde_json::json!([]),
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
        state: "ACTIVE".into(),
        run: run.name.clone(),
        commit_id: String::new(),
        artifact: serde_json::json!({}),
        url: String::new(),
        promoted_from: String::new(),
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

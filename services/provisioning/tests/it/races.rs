//! Two who come at the same moment, and calls that are not heard of again.

use std::sync::Arc;
use std::time::Duration;

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::governance::internal::v1::GetResourceFactsRequest;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_provisioning::domain::plan::{Action, Kind};
use pavior_provisioning::domain::question::{Fate, Subject, Touched, Verb, WorksOn};
use pavior_provisioning::domain::questions;
use pavior_provisioning::error::Error;
use pavior_provisioning::store::entity::{environment, project};
use pavior_provisioning::store::{Admission, NewEnvironment, NewOperation};
use pavior_store::{Store, StoreError};
use pavior_testkit::db::{both, postgres, sqlite};
use sea_orm::{ConnectionTrait, EntityTrait, Statement};
use serde_json::json;
use tokio::sync::Notify;
use tonic::Code;

use crate::fixture::*;
use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(60);

/// How many sessions wait for a lock.
async fn waiting(store: &Store) -> i64 {
    let sql = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let db = store.read();
    let row =
        db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}

async fn until_waiting(store: &Store, wanted: i64) {
    pavior_testkit::wait_for("sessions to wait", LIMIT, async || match waiting(store).await {
        waiting if waiting >= wanted => Ok(()),
        waiting => Err(waiting),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_is_not_taken_down_under_a_deployment_that_is_being_accepted() {
    let Some(db) = postgres().await else { return };
    let f = Fixture::new(db).await;
    f.project().await;
    // The first is held up when it has written everything but its record.
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hold = tokio::spawn({
        let (store, begun, release) = (f.store.clone(), begun.clone(), release.clone());
        async move {
            let held = store.upkeep::<(), StoreError, _>("a test", move |tx| {
                let (begun, release) = (begun.clone(), release.clone());
                Box::pin(async move {
                    tx.execute_unprepared("UPDATE outbox_epoch SET last_seq = last_seq").await?;
                    begun.notify_one();
                    release.notified().await;
                    Ok(())
                })
            });
            held.await.unwrap();
        }
    });
    begun.notified().await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    f.driver.script(CallKind::Apply, "development.workload", [Behaviour::Gate(gate.clone())]);
    let mut client = f.deployments();
    let deploy = pb::CreateDeploymentRequest {
        parent: format!("{HELLO}/environments/development"),
        deployment: Some(pb::Deployment::default()),
        ..Default::default()
    };
    let deploy = f.call(deploy);
    let deploy = tokio::spawn(async move { client.create_deployment(deploy).await });
    until_waiting(&f.store, 1).await;
    let mut client = f.projects();
    let delete = f.call(pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() });
    let delete = tokio::spawn(async move { client.delete_project(delete).await });
    until_waiting(&f.store, 2).await;
    release.notify_one();
    hold.await.unwrap();
    let accepted = deploy.await.unwrap().unwrap().into_inner();
    let decoded = refused(delete.await.unwrap());
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::Aborted, "RESOURCE_BUSY"));
    gate.add_permits(1);
    assert_eq!(problem(&f.wait(accepted).await), None);
    assert_eq!(f.environment("development").await.active_operation, "");
}

/// A project with one environment, without resources.
async fn project_with_environment(world: &World) -> environment::Model {
    let name = format!("{PROJECT}/environments/e");
    let mut new = new_operation(graph(&[]));
    new.makes.environments = vec![NewEnvironment {
        name: name.clone(),
        display_name: String::new(),
        class: "development".into(),
        parameters: json!({}),
        ttl_seconds: None,
        expire_time: None,
    }];
    world.db.accept_unscoped(new).await.unwrap();
    let rows = environment::Entity::find().all(world.db.store().read()).await.unwrap();
    rows.into_iter().find(|row| row.name == name).unwrap()
}

fn removal(environment: &environment::Model) -> NewOperation {
    let mut plan = plan(Kind::DestroyProject, vec![]);
    let project = Subject::project(PROJECT, "organizations/acme/groups/g");
    let touched = Touched {
        name: environment.name.clone(),
        class: environment.class.clone(),
        template_version: String::new(),
        fate: Fate::Removed,
    };
    let ground = WorksOn::new(project.clone(), vec![touched]);
    plan.questions = questions::questions(&plan, &Verb::on(project), &ground).unwrap();
    let mut new = new_operation(plan);
    new.seen.insert(environment.name.clone(), (environment.uid, environment.revision));
    new
}

#[tokio::test]
async fn a_project_is_taken_down_only_with_the_environments_that_were_planned_with() {
    both(|db| async {
        let world = World::new(db).await;
        let row = project_with_environment(&world).await;
        // Meanwhile something is put into it.
        let mut deploy = new_operation(plan(Kind::Deploy, vec![]));
        deploy.plan.target.clone_from(&row.name);
        deploy.seen.insert(row.name.clone(), (row.uid, row.revision));
        let deployed = world.db.accept_unscoped(deploy.clone()).await;
        deployed.unwrap();
        let refused = world.db.accept_unscoped(removal(&row)).await.unwrap_err();
        assert!(matches!(&refused, Error::Stale { name } if name == PROJECT), "{refused}");
        // Nor is anything done twice with what was seen once, or with one that was made anew under the same name.
        deploy.id = uuid::Uuid::now_v7();
        deploy.plan.id = uuid::Uuid::now_v7();
        let refused = world.db.accept_unscoped(deploy.clone()).await.unwrap_err();
        assert!(matches!(&refused, Error::Stale { name } if *name == row.name), "{refused}");
        let rows = environment::Entity::find().all(world.db.store().read()).await.unwrap();
        deploy.seen.insert(row.name.clone(), (uuid::Uuid::now_v7(), rows[0].revision));
        let refused = world.db.accept_unscoped(deploy).await.unwrap_err();
        assert!(matches!(&refused, Error::Stale { name } if *name == row.name), "{refused}");
        world.db.accept_unscoped(removal(&rows[0])).await.unwrap();
        let left = environment::Entity::find().all(world.db.store().read()).await.unwrap();
        assert_eq!(left, []);
    })
    .await;
}

/// An operation of the project that waits for people, by its kind.
async fn asked_about(world: &World, kind: Kind) -> uuid::Uuid {
    let rows = project::Entity::find().all(world.db.store().read()).await.unwrap();
    let mut new = new_operation(plan(kind, vec![change("r", Action::Update, &[], json!({}))]));
    new.plan.settings = json!({ "uid": rows[0].uid, "revision": rows[0].revision });
    new.admission = Admission::AskPeople;
    let id = new.id;
    world.db.accept_unscoped(new).await.unwrap();
    id
}

/// What is stuck is taken up in the project that it was accepted in, never in a later one of the same name.
#[tokio::test]
async fn a_project_is_not_taken_down_while_something_of_it_is_stuck() {
    both(|db| async {
        let world = World::new(db).await;
        let row = project_with_environment(&world).await;
        for kind in [Kind::Run, Kind::RepairProject] {
            let id = asked_about(&world, kind).await;
            let name = world.view(id).await.op.name;
            let busy = |refused: Error| {
                assert!(matches!(&refused, Error::Busy { operation, .. } if *operation == name), "{refused}");
            };
            busy(world.db.accept_unscoped(removal(&row)).await.unwrap_err());
            world.db.park_unscoped(id, &restorer()).await.unwrap();
            assert_eq!(world.view(id).await.op.state.as_str(), "STUCK");
            busy(world.db.accept_unscoped(removal(&row)).await.unwrap_err());
            // Taken up, it can be cancelled, and nothing is in the way any more.
            let waits = Some(TakeUp::Anew(Checked::Waits(None)));
            world.db.retry_unscoped(id, &by_alice(RETRY), waits, 60_000_000, None).await.unwrap();
            world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
            assert_eq!(world.view(id).await.op.state.as_str(), "COMPENSATED");
        }
        world.db.accept_unscoped(removal(&row)).await.unwrap();
    })
    .await;
}

/// A database that was set back behind the first step of a repair, and a policy that wants people since.
#[tokio::test]
async fn a_repair_that_was_let_begin_does_not_wait_with_the_project() {
    both(|db| async {
        let mut world = World::new(db).await;
        project_with_environment(&world).await;
        world.stop().await.unwrap();
        let id = asked_about(&world, Kind::RepairProject).await;
        let approval = "organizations/acme/approvals/a".to_owned();
        world.db.await_approval_unscoped(id, &approval).await.unwrap();
        world.db.admit_unscoped(id, &[approval], 60_000_000).await.unwrap();
        let holder =
            async || project::Entity::find().all(world.db.store().read()).await.unwrap().remove(0).operation;
        assert_eq!(holder().await, world.view(id).await.op.name);
        world.db.park_unscoped(id, &restorer()).await.unwrap();
        let waits = Some(TakeUp::Anew(Checked::Waits(None)));
        world.db.retry_unscoped(id, &by_alice(RETRY), waits, 60_000_000, None).await.unwrap();
        let ended = world.view(id).await.op;
        assert_eq!((ended.state.as_str(), ended.error.unwrap().reason.as_str()), ("DENIED", "PLAN_STALE"));
        assert_eq!(holder().await, "");
        // The approval may be pending again in a policy database that was set back as well: it is withdrawn.
        assert_eq!(world.db.withdrawn_unscoped(10).await.unwrap().len(), 1);
    })
    .await;
}

/// Another operation has the project when it is asked for, and not any more when it is asked which one: it is in nobody's
/// way then, and nothing has changed for what people have agreed to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_let_begin_while_another_lets_go_is_not_stale() {
    let Some(db) = postgres().await else { return };
    let world = World::new(db).await;
    project_with_environment(&world).await;
    let id = asked_about(&world, Kind::Run).await;
    let store = world.db.store().clone();
    let run = async |sql: &'static str| {
        let done = store.upkeep::<(), StoreError, _>("a test", move |tx| {
            Box::pin(async move {
                tx.execute_unprepared(sql).await?;
                Ok(())
            })
        });
        done.await.unwrap();
    };
    // Whoever has tried to take a project waits, with or without success, until the test lets go of a lock.
    run("CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END'")
    .await;
    run("UPDATE project SET operation = 'organizations/acme/operations/other'").await;
    run("CREATE TRIGGER wait_for_test AFTER UPDATE ON project FOR EACH STATEMENT EXECUTE FUNCTION wait_for_test()")
        .await;
    let (held, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let other = tokio::spawn({
        let (store, held, release) = (store.clone(), held.clone(), release.clone());
        async move {
            let lets_go = store.upkeep::<(), StoreError, _>("a test", move |tx| {
                let (held, release) = (held.clone(), release.clone());
                Box::pin(async move {
                    tx.execute_unprepared("SELECT pg_advisory_xact_lock(42)").await?;
                    held.notify_one();
                    release.notified().await;
                    tx.execute_unprepared("UPDATE project SET operation = ''").await?;
                    Ok(())
                })
            });
            lets_go.await.unwrap();
        }
    });
    held.notified().await;
    let admitted = tokio::spawn({
        let db = world.db.clone();
        async move { db.admit_unscoped(id, &[], 60_000_000).await }
    });
    until_waiting(&store, 1).await;
    release.notify_one();
    other.await.unwrap();
    admitted.await.unwrap().unwrap();
    assert_ne!(world.view(id).await.op.state.as_str(), "CHECKING");
}

#[tokio::test]
async fn what_got_stuck_after_it_was_looked_at_is_not_taken_up_unasked() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.fail("b");
        let stays = Behaviour::Fail { retryable: false, message: "will not go".into() };
        world.driver.script(CallKind::Destroy, "a", [stays]);
        let id = world.start(graph(&DIAMOND[..2])).await;
        assert_eq!(world.ended(id).await.op.state.as_str(), "STUCK");
        let caller = by_alice(RETRY);
        let refused = world.db.retry_unscoped(id, &caller, None, 60_000_000, None).await.unwrap_err();
        let name = world.view(id).await.op.name;
        assert!(matches!(&refused, Error::Busy { operation, .. } if *operation == name), "{refused}");
        assert_eq!(world.view(id).await.op.state.as_str(), "STUCK");
        world.db.retry_unscoped(id, &caller, Some(TakeUp::Rest), 60_000_000, None).await.unwrap();
        world.engine.wake();
        assert_eq!(world.ended(id).await.op.state.as_str(), "COMPENSATED");
    })
    .await;
}

fn needs_approval() -> serde_json::Value {
    let approvals = json!([{"quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["p"]}]);
    json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals })
}

#[tokio::test]
async fn an_approval_that_is_gone_stops_only_its_own_operation() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.decide("provisioning.environments.create", needs_approval());
        let mut asked = Vec::new();
        for id in ["first", "second", "third"] {
            let mut request = environment_request(id);
            request.environment.as_mut().unwrap().environment_class_id = "preview".into();
            asked.push(f.projects().create_environment(f.call(request)).await.unwrap().into_inner());
        }
        {
            let mut state = f.peers.state();
            state.approvals.remove(&metadata(&asked[1]).approval).unwrap();
            for operation in [&asked[0], &asked[2]] {
                state.approvals.get_mut(&metadata(operation).approval).unwrap().state = 2;
            }
        }
        let mut problems = Vec::new();
        for operation in asked {
            problems.push(problem(&f.wait(operation).await));
        }
        assert_eq!((&problems[0], &problems[2]), (&None, &None));
        let gone = problems[1].clone().unwrap_or_default();
        assert!(gone.starts_with("NOT_APPROVED") && gone.contains("is gone"), "{gone}");
    })
    .await;
}

#[tokio::test]
async fn nobody_is_asked_about_an_operation_that_was_cancelled_while_policy_was_away() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.decide("provisioning.environments.create", needs_approval());
        let asked = f.begin_environment("staging").await;
        let approval = metadata(&asked).approval;
        f.peers.policy.set_down(true);
        let cancel = lro::CancelOperationRequest { name: asked.name.clone() };
        f.operations().cancel_operation(f.call(cancel)).await.unwrap();
        let done = f.wait(asked).await;
        assert!(problem(&done).unwrap().starts_with("CANCELLED"));
        assert_eq!(f.peers.state().approvals[&approval].state, 1);
        f.peers.policy.set_down(false);
        pavior_testkit::wait_for("the request to be withdrawn", LIMIT, async || {
            match f.peers.state().approvals[&approval].state {
                5 => Ok(()),
                state => Err(state),
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_facts_of_one_resource_are_not_told_of_another() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let staging = f.begin_environment("staging").await;
    assert_eq!(problem(&f.wait(staging).await), None);
    let id = "1f0e9d8c-7b6a-4f5e-8d4c-3b2a19087f6e".to_owned();
    let name = format!("{HELLO}/environments/staging");
    let delete =
        pb::DeleteEnvironmentRequest { name: name.clone(), request_id: id.clone(), ..Default::default() };
    let done = f.wait(f.projects().delete_environment(f.call(delete)).await.unwrap().into_inner()).await;
    assert_eq!(problem(&done), None);
    let facts = async |name: &str| {
        let request = GetResourceFactsRequest {
            name: name.to_owned(),
            request_id: id.clone(),
            method: "/pavior.provisioning.v1.ProjectService/DeleteEnvironment".into(),
            principal: alice().name,
            ..Default::default()
        };
        f.facts().get_resource_facts(f.call(request)).await.unwrap().into_inner()
    };
    let first = facts(&name).await;
    assert_eq!((first.name.as_str(), first.environment_class.as_str()), (name.as_str(), "staging"));
    let other = facts(&format!("{HELLO}/environments/development")).await;
    assert_eq!(other.environment_class, "development");
    assert_eq!(facts(&format!("{ACME}/projects/other")).await.name, ACME);
}

#[tokio::test]
async fn operations_wait_until_the_audit_log_was_compared_with() {
    both(|db| async {
        let f = Fixture::with(db, |peers| peers.audit.set_down(true)).await;
        let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
        let name = operation.name.clone();
        for _ in 0..20 {
            let get = lro::GetOperationRequest { name: name.clone() };
            let seen = f.operations().get_operation(f.call(get)).await.unwrap().into_inner();
            assert_eq!(metadata(&seen).state(), pb::operation_metadata::State::Queued);
        }
        assert_eq!(f.driver.effects(), 0);
        f.peers.audit.set_down(false);
        assert_eq!(problem(&f.wait(operation).await), None);
        assert!(f.driver.effects() > 0);
    })
    .await;
}

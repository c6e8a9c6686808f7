//! Orphans whose names are those of something that there is, and several who remove one at the same time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_driver::{ApplyRequest, CallContext, Driver as _, NullSink, Outcome, Prior};
use pavior_proto::google::longrunning::{CancelOperationRequest, GetOperationRequest, Operation};
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_provisioning::store::entity::resource as row;
use pavior_store::StoreError;
use pavior_testkit::assert_problem;
use pavior_testkit::db::both;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::fixture::*;
use crate::orphans::{delete, findings, lost_database, request};

/// A thing that the driver has for a resource, beside what is recorded of it, or in its place. Returns the driver's name
/// of it.
async fn left(f: &Fixture, resource: &str, prior: Option<&str>) -> String {
    let context = CallContext::new("acme", resource, &format!("left/{resource}"), i64::MAX / 2);
    let request = ApplyRequest {
        resource_type: "sql-database".into(),
        prior: prior.map(|identity| Prior { identity: identity.to_owned(), ..Prior::default() }),
        inputs: json!({}),
        sensitive: Vec::new(),
        declaration_digest: "left".to_owned(),
    };
    let made = f.driver.apply(&context, request, &NullSink).await;
    f.driver.set_fence(resource, 0);
    match made {
        Outcome::Succeeded(made) => made.identity,
        other => panic!("not made: {other:?}"),
    }
}

fn needs_approval(f: &Fixture) {
    let approvals =
        json!([{ "quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["orphans"] }]);
    let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
    f.decide("provisioning.resources.deleteOrphan", answer);
}

fn approve(f: &Fixture, operation: &Operation) {
    f.peers.state().approvals.get_mut(&metadata(operation).approval).unwrap().state = 2;
}

/// No operation has the project, or its environment.
async fn assert_free(f: &Fixture) {
    let get = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
    let project = f.projects().get_project(f.call(get)).await.unwrap().into_inner();
    assert_eq!((project.state(), project.active_operation.as_str()), (pb::project::State::Active, ""));
    let environment = f.environment("development").await;
    assert_eq!(
        (environment.state(), environment.active_operation.as_str()),
        (pb::environment::State::Active, "")
    );
}

async fn cancelled(f: &Fixture, operation: Operation) {
    let cancel = CancelOperationRequest { name: operation.name.clone() };
    f.operations().cancel_operation(f.call(cancel)).await.unwrap();
    f.wait(operation).await;
}

async fn resource(f: &Fixture, name: &str) -> pb::Resource {
    let get = pb::GetResourceRequest { name: name.to_owned(), ..Default::default() };
    f.projects().get_resource(f.call(get)).await.unwrap().into_inner()
}

/// Nothing works on what has its name while it is removed, and that is as it was afterwards.
#[tokio::test]
async fn an_orphan_is_removed_beside_what_has_its_name() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let live = f.driver.live().len();
        for name in [
            format!("{HELLO}/environments/development/resources/database"),
            format!("{HELLO}/resources/repository"),
        ] {
            let (before, environment) = (resource(&f, &name).await, f.environment("development").await);
            let orphan = left(&f, &name, None).await;
            assert_ne!(orphan, before.external_id);
            needs_approval(&f);
            let waits = delete(&f, request("fake", &orphan)).await;
            // Nobody waits for people who are asked about it, but those who ask for the same.
            let told = [("operation", waits.name.as_str())];
            let again = f.projects().delete_orphan(f.call(request("fake", &orphan))).await;
            let again = assert_problem(again, Code::Aborted, "RESOURCE_BUSY", &told);
            assert!(again.message.contains("waits for approval `"), "{}", again.message);
            assert_eq!(again.retry_after, Some(Duration::from_secs(60)));
            assert_free(&f).await;
            cancelled(&f, waits).await;
            assert_eq!(findings(&f).await.len(), 1);

            f.peers.state().decisions.clear();
            let done = f.wait(delete(&f, request("fake", &orphan)).await).await;
            assert_eq!(problem(&done), None);
            let call =
                f.driver.calls().into_iter().rev().find(|call| call.kind == CallKind::Destroy).unwrap();
            assert_eq!(call.resource, name, "its driver knows it by the name that it was made under");
            assert_eq!((findings(&f).await, f.driver.live().len()), (vec![], live));
            let after = f.environment("development").await;
            assert_eq!((after.state(), after.active_operation.as_str()), (environment.state(), ""));
            assert_eq!(after.expiration, environment.expiration);
            assert_eq!(resource(&f, &name).await, before);
        }
        assert_free(&f).await;
        // It can still be taken down, and nothing of the removals is left in the way.
        let remove = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let gone = f.wait(f.projects().delete_project(f.call(remove)).await.unwrap().into_inner()).await;
        assert_eq!((problem(&gone), f.driver.live().len()), (None, 0));
    })
    .await;
}

/// What an orphan has the name of is taken when people have agreed, and when nobody else has it.
#[tokio::test]
async fn what_has_an_orphans_name_is_held_while_that_is_removed() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let environment = format!("{HELLO}/environments/development");
        for name in [format!("{environment}/resources/database"), format!("{HELLO}/resources/repository")] {
            let orphan = left(&f, &name, None).await;
            needs_approval(&f);
            let waits = delete(&f, request("fake", &orphan)).await;
            let (first, second) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
            let step = if name.contains("/environments/") { "development.database" } else { "repository" };
            f.driver.script(CallKind::Apply, "development.workload", [Behaviour::Gate(first.clone())]);
            f.driver.script(CallKind::Destroy, step, [Behaviour::Gate(second.clone())]);
            f.driver.break_down(&format!("{environment}/resources/workload"));
            let deploy = || {
                f.call(pb::CreateDeploymentRequest {
                    parent: environment.clone(),
                    deployment: Some(pb::Deployment::default()),
                    ..Default::default()
                })
            };
            let goes_on = f.deployments().create_deployment(deploy()).await.unwrap().into_inner();
            approve(&f, &waits);
            first.add_permits(1);
            let goes_on = f.wait(goes_on).await;
            assert_eq!(problem(&goes_on), None);
            pavior_testkit::wait_for("the removal", Duration::from_secs(60), async || {
                let shown = begun(&f, &waits.name).await;
                if metadata(&shown).start_time.is_some() { Ok(()) } else { Err(metadata(&shown)) }
            })
            .await;
            let told = [("operation", waits.name.as_str())];
            let busy = f.deployments().create_deployment(deploy()).await;
            assert_problem(busy, Code::Aborted, "RESOURCE_BUSY", &told);
            second.add_permits(1);
            let done = f.wait(waits).await;
            assert_eq!(problem(&done), None);
            let (ended, started) =
                (metadata(&goes_on).end_time.unwrap(), metadata(&done).start_time.unwrap());
            assert!((ended.seconds, ended.nanos) <= (started.seconds, started.nanos));
            assert_free(&f).await;
            f.peers.state().decisions.clear();
        }
    })
    .await;
}

/// What people agreed to was planned beside the thing that had the name: without it another could take the name.
#[tokio::test]
async fn a_removal_that_waited_is_refused_when_the_name_is_nobodys_any_more() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let environment = format!("{HELLO}/environments/development");
        let orphan = left(&f, &format!("{environment}/resources/database"), None).await;
        needs_approval(&f);
        let waits = delete(&f, request("fake", &orphan)).await;
        let remove = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let gone = f.wait(f.projects().delete_project(f.call(remove)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&gone), None);
        approve(&f, &waits);
        let ended = f.wait(waits).await;
        let said = problem(&ended).unwrap();
        assert!(said.starts_with("PLAN_STALE: ") && said.ends_with(": ask anew"), "{said}");
        assert_eq!(metadata(&ended).state(), pb::operation_metadata::State::Denied);
        assert_eq!((findings(&f).await.len(), f.driver.live().len()), (1, 1));
        f.peers.state().decisions.clear();
        assert_eq!(problem(&f.wait(delete(&f, request("fake", &orphan)).await).await), None);
        assert_eq!(f.driver.live(), Vec::<String>::new());
    })
    .await;
}

/// Somebody may declare the thing while people are asked about its removal: then it is no orphan any more.
#[tokio::test]
async fn what_was_declared_while_its_removal_waited_is_not_removed() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let identity = lost_database(&f, "acme").await;
        needs_approval(&f);
        let waits = delete(&f, request("fake", &identity)).await;
        let name = format!("{HELLO}/environments/development/resources/database");
        let rows = row::Entity::update_many()
            .col_expr(row::Column::Identity, Expr::value(identity.clone()))
            .filter(row::Column::Name.eq(name.clone()));
        let held = f.store.upkeep::<(), StoreError, _>("a test", move |tx| {
            let rows = rows.clone();
            Box::pin(async move {
                rows.exec(tx).await?;
                Ok(())
            })
        });
        held.await.unwrap();
        approve(&f, &waits);
        let ended = f.wait(waits).await;
        let told = format!("PLAN_STALE: `{identity}` is no orphan: `{name}` declares it: ask anew");
        assert_eq!(problem(&ended), Some(told));
        assert!(f.driver.live().iter().any(|one| one.contains("projects/lost")), "{:?}", f.driver.live());
    })
    .await;
}

#[tokio::test]
async fn what_is_declared_under_another_name_is_no_orphan() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let name = format!("{HELLO}/environments/development/resources/database");
        let identity = resource(&f, &name).await.external_id;
        let elsewhere = format!("{ACME}/projects/lost/resources/database");
        assert_eq!(left(&f, &elsewhere, Some(&identity)).await, identity);
        let answer = f.projects().delete_orphan(f.call(request("fake", &identity))).await;
        let refused = assert_problem(answer, Code::FailedPrecondition, "INVALID_STATE", &[]);
        assert_eq!(refused.preconditions[0].subject, name);
        assert_eq!(refused.retry_after, None);
    })
    .await;
}

/// A driver may have things for a project or an environment itself: they are orphans once that is gone.
#[tokio::test]
async fn what_a_project_or_an_environment_has_itself_is_no_orphan_while_there_is_one() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        for (name, fix) in [
            (HELLO.to_owned(), "repair the project"),
            (format!("{HELLO}/pipelines/pipeline"), "repair the project"),
            (format!("{HELLO}/environments/development"), "update the environment"),
        ] {
            let identity = left(&f, &name, None).await;
            let answer = f.projects().delete_orphan(f.call(request("fake", &identity))).await;
            let refused = assert_problem(answer, Code::FailedPrecondition, "INVALID_STATE", &[]);
            let condition = &refused.preconditions[0];
            assert!(name.starts_with(&condition.subject), "{}", condition.subject);
            assert!(condition.description.starts_with(fix), "{}", condition.description);
            assert!(f.driver.live().iter().any(|one| one.contains(&name)), "{:?}", f.driver.live());
        }
        for name in ["projects/lost", "projects/lost/environments/x", "projects/hello/environments/x"] {
            let identity = left(&f, &format!("{ACME}/{name}"), None).await;
            assert_eq!(problem(&f.wait(delete(&f, request("fake", &identity)).await).await), None, "{name}");
        }
    })
    .await;
}

/// Of those who remove one at the same time, one does, and the others are told which operation it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphan_is_removed_once() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let database = format!("{HELLO}/environments/development/resources/database");
        for identity in [lost_database(&f, "acme").await, left(&f, &database, None).await] {
            needs_approval(&f);
            let calls = (0..8).map(|_| {
                let (mut projects, call) = (f.projects(), f.call(request("fake", &identity)));
                async move { projects.delete_orphan(call).await }
            });
            let (accepted, busy): (Vec<_>, Vec<_>) =
                join_all(calls).await.into_iter().partition(Result::is_ok);
            assert_eq!(accepted.len(), 1);
            let first = accepted.into_iter().flatten().next().unwrap().into_inner();
            for one in busy {
                let told = [("operation", first.name.as_str())];
                assert_problem(one, Code::Aborted, "RESOURCE_BUSY", &told);
            }
            cancelled(&f, first).await;

            let asked = pb::DeleteOrphanRequest {
                request_id: uuid::Uuid::new_v4().to_string(),
                ..request("fake", &identity)
            };
            let calls = (0..8).map(|_| {
                let (mut projects, call) = (f.projects(), f.call(asked.clone()));
                async move { projects.delete_orphan(call).await.unwrap().into_inner() }
            });
            let names: Vec<String> = join_all(calls).await.into_iter().map(|one| one.name).collect();
            assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
            cancelled(&f, begun(&f, &names[0]).await).await;
        }
    })
    .await;
}

async fn begun(f: &Fixture, name: &str) -> Operation {
    let get = GetOperationRequest { name: name.to_owned() };
    f.operations().get_operation(f.call(get)).await.unwrap().into_inner()
}

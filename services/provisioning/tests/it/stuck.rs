//! An operation that is stuck is not done: it waits for an operator, and nobody waits for it.

use std::time::Duration;

use futures::StreamExt;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning as lro;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::watch_operation_response::Event;
use pavior_rpc::problem::from_rpc_status;
use pavior_testkit::db::both;
use tonic::Code;

use crate::fixture::*;

/// A deletion that does not get further than its first half.
async fn stuck(f: &Fixture) -> Operation {
    f.project().await;
    let refuse = Behaviour::Fail { retryable: false, message: "somebody is in it".to_owned() };
    f.driver.script(CallKind::Destroy, "development.database", [refuse]);
    let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
    let operation = f.projects().delete_project(f.call(delete)).await.unwrap().into_inner();
    f.wait(operation).await
}

async fn listed(f: &Fixture, filter: &str) -> Vec<String> {
    let list = lro::ListOperationsRequest { name: ACME.into(), filter: filter.into(), ..Default::default() };
    let page = f.operations().list_operations(f.call(list)).await.unwrap().into_inner();
    page.operations.into_iter().map(|operation| operation.name).collect()
}

#[tokio::test]
async fn what_is_stuck_is_not_done_and_says_what_went_wrong() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let operation = stuck(&f).await;
        let about = metadata(&operation);
        assert_eq!((operation.done, operation.result.clone(), about.end_time), (false, None, None));
        assert_eq!(about.state(), pb::operation_metadata::State::Stuck);
        assert!(about.progress_percent < 100, "{about:?}");
        let error = from_rpc_status(&about.error.unwrap());
        assert_eq!((error.code, error.reason.as_str()), (Code::FailedPrecondition, "OPERATION_STUCK"));
        assert_eq!(error.metadata["step"], "development.database");
        assert!(error.message.contains("somebody is in it"), "{}", error.message);
        let states: Vec<_> = about.steps.iter().map(|step| (step.step_id.as_str(), step.state())).collect();
        assert!(states.contains(&("development.database", pb::operation_step::State::Failed)), "{states:?}");

        // Nobody waits for what only an operator can change.
        let wait = lro::WaitOperationRequest { name: operation.name.clone(), timeout: None };
        let mut operations = f.operations();
        let waited = operations.wait_operation(f.call(wait));
        let waited = tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap().unwrap();
        let waited = waited.into_inner();
        assert_eq!((waited.done, problem(&waited)), (false, problem(&operation)));
        let watch = pb::WatchOperationRequest { name: operation.name.clone(), start: None };
        let stream = f.operation_service().watch_operation(f.call(watch)).await.unwrap().into_inner();
        let told =
            tokio::time::timeout(Duration::from_secs(10), stream.map(Result::unwrap).collect::<Vec<_>>());
        let told = told.await.unwrap();
        let last = told.into_iter().rev().find_map(|response| match response.event {
            Some(Event::Operation(operation)) => Some(operation),
            _ => None,
        });
        let last = last.unwrap();
        assert_eq!((&last.name, last.done, problem(&last)), (&operation.name, false, problem(&operation)));

        let made = listed(&f, "done = true").await;
        assert_eq!((listed(&f, "done = false").await, made.len()), (vec![operation.name.clone()], 1));
        assert!(!made.contains(&operation.name));
        assert_eq!(listed(&f, "NOT done = true AND state = STUCK").await, [operation.name.as_str()]);
    })
    .await;
}

#[tokio::test]
async fn what_is_stuck_is_neither_cancelled_nor_deleted_but_taken_up() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let operation = stuck(&f).await;
        let name = || operation.name.clone();
        let delete = || lro::DeleteOperationRequest { name: name() };
        let cancel = lro::CancelOperationRequest { name: name() };
        for (refusal, fix) in [
            (
                refused(f.operations().delete_operation(f.call(delete())).await),
                "take it up with RetryOperation",
            ),
            (
                refused(f.operations().cancel_operation(f.call(cancel)).await),
                "only an operation that goes on by itself can be cancelled",
            ),
        ] {
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
            let condition = &refusal.preconditions[0];
            assert_eq!((condition.r#type.as_str(), &condition.subject), ("STATE", &operation.name));
            assert!(condition.description.contains(fix), "{}", condition.description);
        }
        let project = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
        let project = f.projects().get_project(f.call(project)).await.unwrap().into_inner();
        assert_eq!(
            (project.state(), project.active_operation),
            (pb::project::State::Stuck, operation.name.clone())
        );

        let retry = pb::RetryOperationRequest { name: name(), ..Default::default() };
        let taken_up = f.operation_service().retry_operation(f.call(retry)).await.unwrap().into_inner();
        let done = f.wait(taken_up).await;
        assert_eq!((done.done, problem(&done), metadata(&done).error), (true, None, None));
        assert!(metadata(&done).end_time.is_some());
        assert_eq!(response::<pb::Project>(&done).name, HELLO);
        assert_eq!(listed(&f, "done = false").await, Vec::<String>::new());
        f.operations().delete_operation(f.call(delete())).await.unwrap();
    })
    .await;
}

/// What went wrong is told while what was made is still being undone, and how each step stands with that.
#[tokio::test]
async fn an_error_is_told_as_soon_as_it_is_known() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.driver.fail("development.workload");
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        f.driver.script(CallKind::Destroy, "development.database", [Behaviour::Gate(gate.clone())]);
        let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
        let undoing = |operation: &Operation| {
            metadata(operation).steps.iter().any(|step| {
                step.step_id == "development.database" && step.state() == pb::operation_step::State::Undoing
            })
        };
        let name = operation.name.clone();
        let seen = pavior_testkit::wait_for("the undo", Duration::from_secs(20), async || {
            let get = lro::GetOperationRequest { name: name.clone() };
            let seen = f.operations().get_operation(f.call(get)).await.unwrap().into_inner();
            if undoing(&seen) { Ok(seen) } else { Err(metadata(&seen)) }
        })
        .await;
        let about = metadata(&seen);
        assert_eq!((seen.done, about.state()), (false, pb::operation_metadata::State::Compensating));
        let error = from_rpc_status(&about.error.unwrap());
        assert_eq!(
            (error.reason.as_str(), error.metadata["step"].as_str()),
            ("STEP_FAILED", "development.workload")
        );
        assert!(error.message.contains("is being undone"), "{}", error.message);
        gate.add_permits(1);
        let done = f.wait(operation).await;
        assert_eq!(said(metadata(&done).error), said(status(&done)));
        assert!(problem(&done).unwrap().contains("what was made is undone"), "{:?}", problem(&done));
    })
    .await;
}

//! What others need is not taken down, and nothing is taken down before it is known that all of it can be.

use pavior_driver::FailureCode;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_runtime::Severity;
use pavior_testkit::db::both;
use tonic::Code;

use crate::fixture::*;

const CART: &str = "organizations/acme/kinds/component/entities/cart";

fn delete() -> pb::DeleteProjectRequest {
    pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() }
}

/// Somebody's component depends on that of the project.
fn depend(f: &Fixture) {
    f.peers.state().dependents = vec![CART.to_owned()];
}

async fn deleted(f: &Fixture) -> Operation {
    f.wait(f.projects().delete_project(f.call(delete())).await.unwrap().into_inner()).await
}

async fn stuck(f: &Fixture) -> Option<String> {
    let check = f.checks.iter().find(|check| check.name == "provisioning stuck").unwrap();
    assert_eq!(check.severity, Severity::Degrades);
    check.ask().await.err()
}

#[tokio::test]
async fn what_others_depend_on_is_not_taken_down() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        depend(&f);
        let live = f.driver.live();
        for validate_only in [true, false] {
            let request = pb::DeleteProjectRequest { validate_only, ..delete() };
            let refused = refused(f.projects().delete_project(f.call(request)).await);
            assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "HAS_DEPENDENTS"));
            assert_eq!(refused.metadata["resource"], format!("{HELLO}/resources/entry"));
            assert_eq!(refused.preconditions[0].subject, CART);
        }
        assert_eq!(f.driver.live(), live);
        // What is not known is not taken for a yes.
        f.peers.catalog.set_down(true);
        let refused = refused(f.projects().delete_project(f.call(delete())).await);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"));
        f.peers.catalog.set_down(false);

        f.peers.state().dependents.clear();
        assert_eq!(problem(&deleted(&f).await), None);
        assert_eq!(f.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn one_that_comes_to_depend_in_between_leaves_everything_as_it_was() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let live = f.driver.live();
        f.peers.state().entities_needed = true;
        let operation = deleted(&f).await;
        assert_eq!(metadata(&operation).state(), pb::operation_metadata::State::Compensated);
        let said = problem(&operation).unwrap();
        assert!(said.starts_with("STEP_FAILED") && said.contains("step `entry`"), "{said}");
        assert_eq!((f.driver.live(), stuck(&f).await), (live, None));
        let name = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
        let project = f.projects().get_project(f.call(name)).await.unwrap().into_inner();
        assert_eq!((project.state(), project.active_operation.as_str()), (pb::project::State::Active, ""));
        assert_eq!(f.environment("development").await.state(), pb::environment::State::Active);

        f.peers.state().entities_needed = false;
        assert_eq!(problem(&deleted(&f).await), None);
        assert_eq!(f.driver.live(), Vec::<String>::new());
    })
    .await;
}

/// What refuses has touched nothing, or says what it left. The workload goes first: nothing else has happened.
#[tokio::test]
async fn a_refusal_that_leaves_parts_is_none() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let refused = async |behaviour: Behaviour| {
            f.driver.script(CallKind::Destroy, "development.workload", [behaviour]);
            let name = format!("{HELLO}/environments/development");
            let request = pb::DeleteEnvironmentRequest { name, ..Default::default() };
            let operation = f.projects().delete_environment(f.call(request)).await.unwrap().into_inner();
            let operation = f.wait(operation).await;
            (metadata(&operation).state(), f.environment("development").await.state(), operation)
        };
        let (state, environment, operation) = refused(Behaviour::Refuse(FailureCode::Conflict)).await;
        assert_eq!(state, pb::operation_metadata::State::Compensated);
        assert_eq!(environment, pb::environment::State::Active);
        let said = problem(&operation).unwrap();
        assert!(said.starts_with("STEP_FAILED") && said.ends_with("told to refuse"), "{said}");

        let (state, environment, operation) = refused(Behaviour::LeaveParts(FailureCode::Conflict)).await;
        assert_eq!(state, pb::operation_metadata::State::Stuck);
        assert_eq!(environment, pb::environment::State::Stuck);
        let said = problem(&operation).unwrap();
        assert!(said.starts_with("OPERATION_STUCK") && said.ends_with("told to leave parts"), "{said}");

        let retry = pb::RetryOperationRequest { name: operation.name, ..Default::default() };
        let operation = f.operation_service().retry_operation(f.call(retry)).await.unwrap().into_inner();
        assert_eq!(problem(&f.wait(operation).await), None);
    })
    .await;
}

#[tokio::test]
async fn one_that_fails_halfway_waits_for_an_operator_who_is_told() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        assert_eq!(stuck(&f).await, None);
        let refuse = Behaviour::Fail { retryable: false, message: "somebody is in it".to_owned() };
        f.driver.script(CallKind::Destroy, "development.database", [refuse]);
        let operation = deleted(&f).await;
        assert_eq!(metadata(&operation).state(), pb::operation_metadata::State::Stuck);
        let said = stuck(&f).await.unwrap();
        assert!(said.starts_with("1 operation is stuck") && said.contains(&operation.name), "{said}");

        let retry = pb::RetryOperationRequest { name: operation.name, ..Default::default() };
        let operation = f.operation_service().retry_operation(f.call(retry)).await.unwrap().into_inner();
        assert_eq!(problem(&f.wait(operation).await), None);
        assert_eq!(f.driver.live(), Vec::<String>::new());
        assert_eq!(stuck(&f).await, None);
    })
    .await;
}

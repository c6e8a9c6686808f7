//! Plans look at what is there: what is asked for again is mended when it is not there as it is recorded.

use pavior_driver::testing::{Behaviour, CallKind, FakeDriver, Presence};
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::{assert_problem, db::both};

use serde_json::json;
use tonic::Code;

use crate::diagnosis::change_behind;
use crate::fixture::*;

const DEVELOPMENT: &str = "organizations/acme/projects/hello/environments/development";

fn resource(id: &str) -> String {
    format!("{DEVELOPMENT}/resources/{id}")
}

/// Asks for what is recorded.
fn update() -> pb::UpdateEnvironmentRequest {
    let environment = pb::Environment {
        name: DEVELOPMENT.to_owned(),
        parameters: pavior_rpc::convert::to_struct(&json!({"size": "small"})).ok(),
        ..Default::default()
    };
    pb::UpdateEnvironmentRequest { environment: Some(environment), ..Default::default() }
}

async fn updated(f: &Fixture) -> Operation {
    let done = f.wait(f.projects().update_environment(f.call(update())).await.unwrap().into_inner()).await;
    assert_eq!(problem(&done), None);
    done
}

/// What a plan does, and why.
async fn planned(f: &Fixture) -> Vec<(String, String, String)> {
    let request = pb::UpdateEnvironmentRequest { validate_only: true, ..update() };
    let operation = f.projects().update_environment(f.call(request)).await.unwrap().into_inner();
    let plan = metadata(&operation).validated_plan.unwrap();
    let step = |change: pb::plan::Change| {
        let action = change.action().as_str_name().trim_start_matches("ACTION_").to_owned();
        (change.step_id, action, change.drift_message)
    };
    plan.changes.into_iter().map(step).filter(|(_, action, _)| action != "NOOP").collect()
}

fn steps(operation: &Operation) -> Vec<String> {
    metadata(operation).steps.into_iter().map(|step| step.step_id).collect()
}

fn change(step: &str, reason: &str) -> (String, String, String) {
    (format!("development.{step}"), "UPDATE".to_owned(), reason.to_owned())
}

#[tokio::test]
async fn what_is_there_as_recorded_is_left_alone() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let effects = f.driver.effects();
        assert_eq!(planned(&f).await, []);
        assert_eq!(steps(&updated(&f).await), Vec::<String>::new());
        assert_eq!(f.driver.effects(), effects);
    })
    .await;
}

#[tokio::test]
async fn what_does_not_run_is_applied_again() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.driver.break_down(&resource("workload"));
        let wanted = [change("workload", "is not running, or only a part of it is left")];
        assert_eq!(planned(&f).await, wanted);
        assert_eq!(steps(&updated(&f).await), ["development.workload"]);
        assert_eq!(planned(&f).await, []);

        // A deployment of the same, too.
        f.driver.break_down(&resource("workload"));
        let request = pb::CreateDeploymentRequest {
            parent: DEVELOPMENT.to_owned(),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        let deploy = async || {
            let begun =
                f.deployments().create_deployment(f.call(request.clone())).await.unwrap().into_inner();
            let done = f.wait(begun).await;
            assert_eq!(problem(&done), None);
            steps(&done)
        };
        assert_eq!(deploy().await, ["development.workload"]);
        assert_eq!(deploy().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn what_is_gone_is_made_anew_and_what_needs_it_is_told() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.driver.vanish(&resource("database"));
        assert_eq!(planned(&f).await, [change("database", "is gone"), change("workload", "")]);
        updated(&f).await;
        assert!(f.driver.live().contains(&resource("database")), "{:?}", f.driver.live());
        assert_eq!(planned(&f).await, []);
    })
    .await;
}

/// The database was set back behind a change: what is recorded is asked for, and what is there is something else.
#[tokio::test]
async fn what_differs_from_its_record_becomes_what_is_recorded() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let recorded = f.driver.inputs_of(&resource("database")).unwrap();
        let mut other = recorded.clone();
        other["size"] = json!("large");
        change_behind(&f, &resource("database"), other).await;
        let wanted = [change("database", "differs from what is recorded"), change("workload", "")];
        assert_eq!(planned(&f).await, wanted);
        updated(&f).await;
        assert_eq!(f.driver.inputs_of(&resource("database")).unwrap(), recorded);
        assert_eq!(planned(&f).await, []);
    })
    .await;
}

/// That there is nothing to do is not said without having looked.
#[tokio::test]
async fn a_driver_that_does_not_say_is_no_reason_to_do_nothing() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        f.driver.set_presence(Presence::Refuses);
        let refused = refused(f.projects().update_environment(f.call(update())).await);
        assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "DEPENDENCY_UNAVAILABLE"));
        assert_eq!(refused.metadata.get("dependency").map(String::as_str), Some("fake"));
        assert!(
            refused.message.contains("`development.database`") && refused.message.contains("driver `fake`"),
            "{}",
            refused.message
        );
        f.driver.set_presence(Presence::There);
        assert_eq!(steps(&updated(&f).await), Vec::<String>::new());
    })
    .await;
}

/// Nothing is put into an environment of which something is gone: it is made anew first.
#[tokio::test]
async fn a_deployment_mends_what_is_gone_in_its_environment() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        for gone in [FakeDriver::vanish, FakeDriver::hollow_out] {
            gone(&f.driver, &resource("database"));
            let request = pb::CreateDeploymentRequest {
                parent: DEVELOPMENT.to_owned(),
                deployment: Some(pb::Deployment::default()),
                ..Default::default()
            };
            let only = pb::CreateDeploymentRequest { validate_only: true, ..request.clone() };
            let seen = f.deployments().create_deployment(f.call(only)).await.unwrap().into_inner();
            let plan = metadata(&seen).validated_plan.unwrap();
            let why: Vec<_> =
                plan.changes.iter().map(|change| (&*change.step_id, &*change.drift_message)).collect();
            assert_eq!(why, [("development.database", "is gone"), ("development.workload", "")]);
            let drifts: Vec<_> = plan.changes.iter().map(pb::plan::Change::drift).collect();
            assert_eq!(drifts, [pb::plan::Drift::Missing, pb::plan::Drift::Unspecified]);
            let begun = f.deployments().create_deployment(f.call(request)).await.unwrap().into_inner();
            let done = f.wait(begun).await;
            assert_eq!(problem(&done), None);
            assert_eq!(steps(&done), ["development.database", "development.workload"]);
            assert_eq!(planned(&f).await, []);
        }
        // Whoever may not change the environment does not do so by a deployment.
        f.driver.vanish(&resource("database"));
        f.decide("provisioning.environments.update", json!({ "effect": "EFFECT_DENY" }));
        let request = pb::CreateDeploymentRequest {
            parent: DEVELOPMENT.to_owned(),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        let refused = refused(f.deployments().create_deployment(f.call(request)).await);
        assert_eq!(
            (refused.code, refused.metadata["action"].as_str()),
            (Code::PermissionDenied, "provisioning.environments.update")
        );
    })
    .await;
}

/// An update that is undone starts the former workload anew, somewhere else.
#[tokio::test]
async fn an_environment_shows_where_its_workload_answers_after_an_undo() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let before = f.environment("development").await.endpoints.remove(0).url;
        assert_eq!(before, *f.answers_at.lock().unwrap());
        let fails = Behaviour::FailPartially { message: "it broke off".to_owned() };
        f.driver.script(CallKind::Apply, "development.workload", [fails]);
        let mut large = update();
        large.environment.as_mut().unwrap().parameters =
            pavior_rpc::convert::to_struct(&json!({"size": "large"})).ok();
        let begun = f.projects().update_environment(f.call(large)).await.unwrap().into_inner();
        let done = f.wait(begun).await;
        assert_eq!(metadata(&done).state(), pb::operation_metadata::State::Compensated);
        let (shown, answers) = (f.environment("development").await, f.answers_at.lock().unwrap().clone());
        assert_ne!(answers, before, "the former one was started anew");
        assert_eq!(shown.endpoints[0].url, answers);
        let request =
            pb::GetDeploymentRequest { name: shown.active_deployments[0].clone(), ..Default::default() };
        assert_eq!(f.deployments().get_deployment(f.call(request)).await.unwrap().into_inner().url, answers);
    })
    .await;
}

/// An older copy answers no change by what it knows, not even that there is nothing to delete.
#[tokio::test]
async fn an_older_copy_answers_no_change() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let created = f.begin_environment("staging").await;
        assert_eq!(problem(&f.wait(created).await), None);
        let older = pavior_store::outbox::Difference::OlderEpoch { epoch: None, recorded: 7 };
        f.store.history().set(Some(older.of("provisioning")));
        let refused = |status: Result<(), tonic::Status>| {
            let problem = assert_problem(status, Code::Unavailable, "RESTORE_NEEDED", &[]);
            assert_eq!(problem.retry_after, None);
        };
        for (id, allow_missing) in [("gone", true), ("gone", false), ("staging", false)] {
            let name = format!("{HELLO}/environments/{id}");
            let delete = pb::DeleteEnvironmentRequest { name, allow_missing, ..Default::default() };
            refused(f.projects().delete_environment(f.call(delete)).await.map(drop));
        }
        let name = "organizations/acme/projects/gone".to_owned();
        let delete = pb::DeleteProjectRequest { name, allow_missing: true, ..Default::default() };
        refused(f.projects().delete_project(f.call(delete)).await.map(drop));
        let again = f.call(environment_request("staging"));
        refused(f.projects().create_environment(again).await.map(drop));
        let deploy = pb::CreateDeploymentRequest {
            parent: format!("{HELLO}/environments/staging"),
            deployment: Some(pb::Deployment::default()),
            ..Default::default()
        };
        // Its driver has nothing to say about what it does not start before the restore.
        f.driver.set_presence(Presence::Silent);
        refused(f.deployments().create_deployment(f.call(deploy)).await.map(drop));
        assert_eq!(f.environment("staging").await.state(), pb::environment::State::Active);
    })
    .await;
}

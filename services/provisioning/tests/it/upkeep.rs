//! The service: deletions, expiry, tenancy, facts, lists, and what is never shown.

use pavior_core::principal::Principal;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::governance::internal::v1::GetResourceFactsRequest;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db::{both, sqlite};
use pavior_testkit::wait_for;
use serde_json::json;
use tonic::Code;

use crate::fixture::*;
use crate::harness::alice;

#[tokio::test]
async fn deletions_follow_what_is_recorded() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let done = f.wait(f.begin_environment("staging").await).await;
        assert_eq!(problem(&done), None);
        // The template is gone; what was made from it can still be taken down.
        f.peers.state().content = json!({});
        let name = format!("{HELLO}/environments/staging");
        let delete = pb::DeleteEnvironmentRequest { name: name.clone(), ..Default::default() };
        let done =
            f.wait(f.projects().delete_environment(f.call(delete.clone())).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
        let went: pb::Environment = response(&done);
        assert_eq!((went.name.as_str(), went.state()), (name.as_str(), pb::environment::State::Deleting));
        assert!(!went.uid.is_empty() && !went.environment_class_id.is_empty(), "{went:?}");
        assert!(f.driver.live().iter().all(|resource| !resource.starts_with(&name)), "{:?}", f.driver.live());
        assert_eq!(
            refused(f.projects().delete_environment(f.call(delete.clone())).await).code,
            Code::NotFound
        );
        let request_id = uuid::Uuid::new_v4().to_string();
        let missing = pb::DeleteEnvironmentRequest { allow_missing: true, request_id, ..delete };
        let answer = f.projects().delete_environment(f.call(missing.clone())).await.unwrap().into_inner();
        assert!(answer.done);
        assert_eq!(response::<pb::Environment>(&answer), pb::Environment::default());
        // Whoever hears the same answer again has not taken down what was made since.
        f.peers.state().content = content();
        let made = f.projects().create_environment(f.call(environment_request("staging"))).await.unwrap();
        assert_eq!(problem(&f.wait(made.into_inner()).await), None);
        let again = f.projects().delete_environment(f.call(missing.clone())).await.unwrap().into_inner();
        assert_eq!(again, answer);
        let standing = f
            .projects()
            .get_environment(f.call(pb::GetEnvironmentRequest { name, ..Default::default() }))
            .await
            .unwrap();
        assert_eq!(standing.into_inner().state(), pb::environment::State::Active);
        let other = pb::DeleteEnvironmentRequest { etag: "other".into(), ..missing };
        let decoded = refused(f.projects().delete_environment(f.call(other)).await);
        assert_eq!(decoded.reason, "REQUEST_ID_REUSED");
        let delete = pb::DeleteProjectRequest { name: HELLO.into(), force: true, ..Default::default() };
        let done = f.wait(f.projects().delete_project(f.call(delete)).await.unwrap().into_inner()).await;
        assert_eq!(problem(&done), None);
        let went: pb::Project = response(&done);
        assert_eq!((went.name.as_str(), went.state()), (HELLO, pb::project::State::Deleting));
        assert_eq!(went.owner, "organizations/acme/groups/payments");
        assert_eq!(f.driver.live(), Vec::<String>::new());
        assert!(f.peers.state().entities.is_empty());
        let list = pb::ListProjectsRequest { parent: ACME.into(), ..Default::default() };
        assert!(f.projects().list_projects(f.call(list)).await.unwrap().into_inner().projects.is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_is_busy_says_with_what() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    f.driver.script(CallKind::Destroy, "development.workload", [Behaviour::Gate(gate.clone())]);
    let name = format!("{HELLO}/environments/development");
    let delete = pb::DeleteEnvironmentRequest { name: name.clone(), ..Default::default() };
    let first = f.projects().delete_environment(f.call(delete.clone())).await.unwrap().into_inner();
    for decoded in [
        refused(f.projects().delete_environment(f.call(delete)).await),
        refused(
            f.projects()
                .delete_project(f.call(pb::DeleteProjectRequest {
                    name: HELLO.into(),
                    force: true,
                    ..Default::default()
                }))
                .await,
        ),
    ] {
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::Aborted, "RESOURCE_BUSY"));
        assert_eq!(decoded.metadata["operation"], first.name);
    }
    let busy = lro::DeleteOperationRequest { name: first.name.clone() };
    assert_eq!(
        refused(f.operations().delete_operation(f.call(busy.clone())).await).code,
        Code::FailedPrecondition
    );
    gate.add_permits(1);
    f.wait(first).await;
    f.operations().delete_operation(f.call(busy.clone())).await.unwrap();
    let gone = lro::GetOperationRequest { name: busy.name };
    assert_eq!(refused(f.operations().get_operation(f.call(gone)).await).code, Code::NotFound);
}

#[tokio::test]
async fn an_environment_whose_time_is_over_is_taken_down() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let done = f.wait(f.begin_environment("preview").await).await;
    assert_eq!(problem(&done), None);
    let preview = f.environment("preview").await;
    assert!(matches!(preview.expiration, Some(pb::environment::Expiration::ExpireTime(_))), "{preview:?}");
    // The minute passes.
    f.store
        .upkeep::<(), pavior_store::StoreError, _>("a test", |tx| {
            Box::pin(async move {
                use sea_orm::ConnectionTrait;
                tx.execute_unprepared("UPDATE timer SET due = 1").await?;
                Ok(())
            })
        })
        .await
        .unwrap();
    let name = format!("{HELLO}/environments/preview");
    wait_for("the environment to go", std::time::Duration::from_secs(20), async || {
        let request = pb::GetEnvironmentRequest { name: name.clone(), ..Default::default() };
        match f.projects().get_environment(f.call(request)).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let question = f.peers.state().questions.last().cloned().unwrap();
    assert_eq!(question.principal.unwrap().name, "organizations/pavior/services/provisioning");
    assert_eq!(question.action, "provisioning.environments.delete");
}

#[tokio::test]
async fn another_organization_sees_nothing() {
    let f = Fixture::new(sqlite()).await;
    let done = f.project().await;
    let mallory = Principal {
        name: "organizations/evil/users/mallory".into(),
        organization: "evil".into(),
        subject: "mallory".into(),
        ..alice()
    };
    let get = pb::GetProjectRequest { name: HELLO.into(), ..Default::default() };
    assert_eq!(refused(f.projects().get_project(f.by(&mallory, get)).await).code, Code::PermissionDenied);
    let own =
        pb::GetProjectRequest { name: "organizations/evil/projects/hello".into(), ..Default::default() };
    assert_eq!(refused(f.projects().get_project(f.by(&mallory, own)).await).code, Code::NotFound);
    let operation = lro::GetOperationRequest { name: done.name.clone() };
    assert_eq!(
        refused(f.operations().get_operation(f.by(&mallory, operation)).await).code,
        Code::PermissionDenied
    );
    let id = done.name.rsplit('/').next().unwrap();
    let stolen =
        pb::WatchOperationRequest { name: format!("organizations/evil/operations/{id}"), start: None };
    assert_eq!(
        refused(f.operation_service().watch_operation(f.by(&mallory, stolen)).await).code,
        Code::NotFound
    );
    let list = pb::ListProjectsRequest { parent: "organizations/evil".into(), ..Default::default() };
    assert!(f.projects().list_projects(f.by(&mallory, list)).await.unwrap().into_inner().projects.is_empty());
    let facts = GetResourceFactsRequest { name: HELLO.into(), ..Default::default() };
    assert_eq!(
        refused(f.facts().get_resource_facts(f.by(&mallory, facts)).await).code,
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn facts_are_those_of_the_nearest_thing_that_exists() {
    let f = Fixture::new(sqlite()).await;
    let done = f.project().await;
    let owner = format!("{ACME}/groups/payments");
    for (name, expected, exists, class) in [
        (HELLO.to_owned(), HELLO.to_owned(), true, ""),
        (
            format!("{HELLO}/environments/development"),
            format!("{HELLO}/environments/development"),
            true,
            "development",
        ),
        (format!("{HELLO}/environments/nope"), HELLO.to_owned(), false, ""),
        (
            format!("{HELLO}/environments/development/resources/database"),
            format!("{HELLO}/environments/development/resources/database"),
            true,
            "development",
        ),
        (format!("{HELLO}/pipelines/pipeline"), format!("{HELLO}/pipelines/pipeline"), true, ""),
        (done.name.clone(), done.name.clone(), true, ""),
    ] {
        let facts = f
            .facts()
            .get_resource_facts(f.call(GetResourceFactsRequest { name: name.clone(), ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (facts.name, facts.exists, facts.environment_class.as_str()),
            (expected, exists, class),
            "{name}"
        );
        assert_eq!((facts.owner.as_str(), facts.project.as_str()), (owner.as_str(), HELLO));
        assert_eq!(facts.labels["team"], "payments");
    }
    let none = f
        .facts()
        .get_resource_facts(
            f.call(GetResourceFactsRequest { name: format!("{ACME}/projects/none"), ..Default::default() }),
        )
        .await
        .unwrap()
        .into_inner();
    assert_eq!((none.name.as_str(), none.exists), (ACME, false));
}

#[tokio::test]
async fn lists_are_paged_filtered_and_ordered() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let parent = format!("{HELLO}/environments/development");
        let list = |page_token: String, filter: &str| pb::ListResourcesRequest {
            parent: parent.clone(),
            page_size: 1,
            page_token,
            filter: filter.into(),
            order_by: "name desc".into(),
            ..Default::default()
        };
        let first = f.projects().list_resources(f.call(list(String::new(), ""))).await.unwrap().into_inner();
        assert!(first.resources[0].name.ends_with("/workload"));
        let second = f
            .projects()
            .list_resources(f.call(list(first.next_page_token.clone(), "")))
            .await
            .unwrap()
            .into_inner();
        assert!(second.resources[0].name.ends_with("/database") && second.next_page_token.is_empty());
        let decoded =
            refused(f.projects().list_resources(f.call(list(first.next_page_token, "driver = x"))).await);
        assert_eq!(decoded.reason, "INVALID_PAGE_TOKEN");
        let decoded = refused(f.projects().list_resources(f.call(list(String::new(), "nope = 1"))).await);
        assert_eq!(
            (decoded.reason.as_str(), decoded.violations[0].field.as_str()),
            ("INVALID_FILTER", "filter")
        );
        let all = lro::ListOperationsRequest {
            name: ACME.into(),
            filter: "state = SUCCEEDED".into(),
            ..Default::default()
        };
        assert_eq!(
            f.operations().list_operations(f.call(all)).await.unwrap().into_inner().operations.len(),
            1
        );
        let projects = pb::ListProjectsRequest {
            parent: ACME.into(),
            filter: "labels.team = payments AND state = ACTIVE".into(),
            ..Default::default()
        };
        assert_eq!(
            f.projects().list_projects(f.call(projects)).await.unwrap().into_inner().projects.len(),
            1
        );
        let every = lro::ListOperationsRequest { name: ACME.into(), ..Default::default() };
        let listed = f.operations().list_operations(f.call(every)).await.unwrap().into_inner().operations;
        for shown in listed {
            let get = lro::GetOperationRequest { name: shown.name.clone() };
            let got = f.operations().get_operation(f.call(get)).await.unwrap().into_inner();
            // A list shows what the thing itself shows.
            assert_eq!((shown.done, metadata(&shown)), (got.done, metadata(&got)));
            assert_eq!(response::<pb::Project>(&shown), response::<pb::Project>(&got));
        }
        let pipelines = pb::ListPipelinesRequest { parent: HELLO.into(), ..Default::default() };
        let pipelines = f.pipelines().list_pipelines(f.call(pipelines)).await.unwrap().into_inner().pipelines;
        assert_eq!(pipelines[0].latest_run, format!("{}/runs/run-1", pipelines[0].name));
        let plans = pb::ListPlansRequest { parent: ACME.into(), ..Default::default() };
        let plans = f.plans().list_plans(f.call(plans)).await.unwrap().into_inner().plans;
        let got = f
            .plans()
            .get_plan(f.call(pb::GetPlanRequest { name: plans[0].name.clone(), ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(got, plans[0]);
    })
    .await;
}

#[tokio::test]
async fn classes_and_definitions_that_are_not_there_are_refused() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let decoded = refused(f.projects().create_environment(f.call(environment_request("moon"))).await);
    assert_eq!(decoded.violations[0].field, "environment.environment_class_id");
    assert!(decoded.message.contains("`development`"), "{}", decoded.message);
    let decoded = refused(f.projects().create_environment(f.call(environment_request("impossible"))).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "NO_MATCHING_DEFINITION"));
    // More than one is not none.
    let decoded = refused(f.projects().create_environment(f.call(environment_request("undecided"))).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "AMBIGUOUS_DEFINITION"));
    assert_eq!(decoded.preconditions[0].subject, format!("{ACME}/resourceDefinitions/one"));
    let mut short = environment_request("staging");
    let ttl = prost_types::Duration { seconds: 5, nanos: 0 };
    short.environment.as_mut().unwrap().expiration = Some(pb::environment::Expiration::Ttl(ttl));
    let decoded = refused(f.projects().create_environment(f.call(short)).await);
    assert_eq!(decoded.violations[0].field, "environment.ttl");
}

#[tokio::test]
async fn no_secret_is_in_the_database_or_the_audit_trail() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while f.peers.state().records.len() < 8 {
        assert!(tokio::time::Instant::now() < until, "records did not come");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!format!("{:?}", f.peers.state().records).contains("s3cret-of"));
    use sea_orm::{ConnectionTrait, Statement};
    let db = f.store.read();
    let tables = [
        "project",
        "environment",
        "resource",
        "operation",
        "step",
        "event",
        "log_chunk",
        "plan",
        "run",
        "deployment",
        "secret",
        "outbox",
    ];
    for table in tables {
        let sql = format!("SELECT * FROM {table}");
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        for row in rows {
            for column in row.column_names() {
                let text = row.try_get::<Option<String>>("", &column).ok().flatten().unwrap_or_default();
                let bytes = row.try_get::<Option<Vec<u8>>>("", &column).ok().flatten().unwrap_or_default();
                let bytes = String::from_utf8_lossy(&bytes).into_owned();
                assert!(
                    !text.contains("s3cret-of") && !bytes.contains("s3cret-of"),
                    "{table}.{column}: {text}"
                );
            }
        }
    }
}

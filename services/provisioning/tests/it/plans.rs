//! Plans that are kept, shown, and carried out while what they say holds.

use std::time::Duration;

use pavior_core::Principal;
use pavior_core::digest::{is_sha256_digest, sha256_digest};
use pavior_proto::pavior::policy::internal::v1::DecisionStage;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::plan::intent::Request as Intended;
use pavior_provisioning::store::entity::plan;
use pavior_rpc::convert;
use pavior_testkit::db::{both, sqlite};
use pavior_testkit::wait_for;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use crate::fixture::*;
use crate::harness::alice;

fn planned(intended: Intended) -> pb::CreatePlanRequest {
    let intent = Some(pb::plan::Intent { request: Some(intended) });
    pb::CreatePlanRequest {
        parent: ACME.into(),
        plan: Some(pb::Plan { intent, ..Default::default() }),
        request_id: Uuid::new_v4().to_string(),
    }
}

/// The project of the other tests, asked for within a plan.
fn of_hello() -> pb::CreateProjectRequest {
    pb::CreateProjectRequest { request_id: String::new(), ..hello() }
}

async fn keep(f: &Fixture, intended: Intended) -> pb::Plan {
    f.plans().create_plan(f.call(planned(intended))).await.unwrap().into_inner()
}

fn execute(plan: &pb::Plan) -> pb::ExecutePlanRequest {
    pb::ExecutePlanRequest {
        name: plan.name.clone(),
        plan_digest: plan.digest.clone(),
        request_id: Uuid::new_v4().to_string(),
    }
}

#[tokio::test]
async fn a_plan_is_shown_and_nothing_is_written() {
    let f = Fixture::new(sqlite()).await;
    let request = pb::CreateProjectRequest { validate_only: true, ..hello() };
    let done = f.projects().create_project(f.call(request)).await.unwrap().into_inner();
    assert!(done.done);
    let plan = metadata(&done).validated_plan.unwrap();
    assert_eq!((plan.changes.len(), plan.monthly_cost_after), (6, convert::to_money("2.50 USD")));
    assert!(is_sha256_digest(&plan.digest), "{}", plan.digest);
    assert!(plan.decision.is_some());
    let run = plan.changes.iter().find(|change| change.step_id == "pipeline:run").unwrap();
    assert_eq!(
        (run.action(), run.depends_on_step_ids.as_slice()),
        (pb::plan::Action::Run, &["pipeline".to_owned()][..])
    );
    let workload = plan.changes.last().unwrap();
    let later = workload
        .fields
        .iter()
        .flat_map(|field| field.after_unknown_paths.iter().map(|path| format!("{} {path}", field.path)));
    let later: Vec<String> = later.collect();
    assert_eq!(later, ["/command /0", "/variables /URL"], "{workload:?}");
    let refused = refused(
        f.projects()
            .get_project(f.call(pb::GetProjectRequest { name: HELLO.into(), ..Default::default() }))
            .await,
    );
    assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "RESOURCE_NOT_FOUND"));
    assert_eq!(f.driver.effects(), 0);
    let plans = pb::ListPlansRequest { parent: ACME.into(), ..Default::default() };
    assert!(f.plans().list_plans(f.call(plans)).await.unwrap().into_inner().plans.is_empty());
    assert!(f.peers.state().questions[0].dry_run);
}

#[tokio::test]
async fn a_kept_plan_is_shown_and_carried_out_once() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let request = planned(Intended::CreateProject(of_hello()));
        let plan = f.plans().create_plan(f.call(request.clone())).await.unwrap().into_inner();
        // Nothing else has happened, and the same request has the same answer.
        assert_eq!(f.driver.effects(), 0);
        assert_eq!(f.plans().create_plan(f.call(request)).await.unwrap().into_inner(), plan);
        let named = pb::GetPlanRequest { name: plan.name.clone(), ..Default::default() };
        assert_eq!(f.plans().get_plan(f.call(named.clone())).await.unwrap().into_inner(), plan);
        assert_eq!((plan.target.as_str(), plan.changes.len()), (HELLO, 6));
        assert_eq!(plan.intent.clone().unwrap().request, Some(Intended::CreateProject(of_hello())));

        let request = execute(&plan);
        let begun = f.plans().execute_plan(f.call(request.clone())).await.unwrap().into_inner();
        let again = f.plans().execute_plan(f.call(request.clone())).await.unwrap().into_inner();
        assert_eq!(again.name, begun.name);
        let done = f.wait(begun.clone()).await;
        assert_eq!(response::<pb::Project>(&done).name, HELLO);
        assert_eq!(metadata(&done).plan, plan.name);
        assert_eq!(metadata(&done).plan_digest, plan.digest);
        // It is answered as before also when there is nothing left to carry out.
        let again = f.plans().execute_plan(f.call(request)).await.unwrap().into_inner();
        assert_eq!(again.name, begun.name);
        let second = refused(f.plans().execute_plan(f.call(execute(&plan))).await);
        assert_eq!((second.code, second.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
        assert_eq!(second.metadata["operation"], begun.name);
    })
    .await;
}

/// Lets the time of a kept plan be over.
async fn let_expire(f: &Fixture, plan: &pb::Plan) {
    let rows = plan::Entity::find().filter(plan::Column::Name.eq(&plan.name));
    let mut row = rows.one(f.store.read()).await.unwrap().unwrap();
    row.document.0.expire_time = row.document.0.create_time;
    let (id, document) = (row.id, row.document);
    f.store
        .upkeep::<(), pavior_store::StoreError, _>("a test", move |tx| {
            let set = plan::ActiveModel { document: Set(document.clone()), ..Default::default() };
            Box::pin(async move {
                let update = plan::Entity::update_many().set(set).filter(plan::Column::Id.eq(id));
                update.exec(tx).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

/// What else is wrong with it by then is no answer: to plan anew would do it twice.
#[tokio::test]
async fn a_plan_that_was_carried_out_says_so_before_anything_else() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let (done, waiting) = (
            keep(&f, Intended::CreateProject(of_hello())).await,
            keep(&f, Intended::CreateProject(of_hello())).await,
        );
        let begun = f.plans().execute_plan(f.call(execute(&done))).await.unwrap().into_inner();
        f.wait(begun.clone()).await;
        let wrong = |plan: &pb::Plan| pb::ExecutePlanRequest {
            plan_digest: sha256_digest(b"another"),
            ..execute(plan)
        };
        for expired in [false, true] {
            if expired {
                let_expire(&f, &done).await;
                let_expire(&f, &waiting).await;
            }
            for request in [execute(&done), wrong(&done)] {
                let said = refused(f.plans().execute_plan(f.call(request)).await);
                assert_eq!((said.code, said.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
                assert_eq!(said.metadata["operation"], begun.name);
            }
        }
        // The same of one that nobody carried out is a complaint.
        let said = refused(f.plans().execute_plan(f.call(execute(&waiting))).await);
        assert_eq!((said.code, said.reason.as_str()), (Code::FailedPrecondition, "PLAN_STALE"));
        let said = refused(f.plans().execute_plan(f.call(wrong(&waiting))).await);
        assert_eq!((said.code, said.reason.as_str()), (Code::FailedPrecondition, "PLAN_STALE"));
        assert_eq!(said.metadata["found"], waiting.digest);
    })
    .await;
}

#[tokio::test]
async fn a_plan_of_a_run_is_carried_out_once() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let run =
            pb::RunPipelineRequest { name: format!("{HELLO}/pipelines/pipeline"), ..Default::default() };
        let plan = keep(&f, Intended::RunPipeline(run)).await;
        let (mut one, mut two) = (f.plans(), f.plans());
        let (first, second) =
            tokio::join!(one.execute_plan(f.call(execute(&plan))), two.execute_plan(f.call(execute(&plan))));
        let (begun, other) = if first.is_ok() { (first, second) } else { (second, first) };
        let begun = begun.unwrap().into_inner();
        let other = refused(other);
        assert_eq!((other.code, other.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
        assert_eq!(other.metadata["operation"], begun.name);
        assert_eq!(response::<pb::Run>(&f.wait(begun).await).state(), pb::run::State::Succeeded);
    })
    .await;
}

/// Whoever wrote a plan is told to those who approve it, and does not become another by being carried out.
#[tokio::test]
async fn the_author_of_a_plan_stays_with_it() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let requirement = json!({ "quorum": 1, "group": format!("{ACME}/groups/platform") });
        let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": [requirement] });
        f.decide("provisioning.environments.create", answer);
        let plan = keep(&f, Intended::CreateEnvironment(environment_request("staging"))).await;
        assert_eq!(
            (plan.requester.as_str(), plan.author.as_str()),
            (alice().name.as_str(), alice().name.as_str())
        );
        let bob = Principal { name: format!("{ACME}/users/bob"), subject: "bob".into(), ..alice() };
        let begun = f.plans().execute_plan(f.by(&bob, execute(&plan))).await.unwrap().into_inner();
        let approval = f.peers.state().approvals[&metadata(&begun).approval].clone();
        assert_eq!(
            (approval.requester.as_str(), approval.author.as_str()),
            (bob.name.as_str(), alice().name.as_str())
        );
        let get = pb::GetPlanRequest { name: plan.name.clone(), ..Default::default() };
        let plan = f.plans().get_plan(f.call(get)).await.unwrap().into_inner();
        assert_eq!((plan.requester, plan.author), (bob.name, alice().name));
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_no_longer_holds_is_not_carried_out() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let environment = format!("{HELLO}/environments/development");
        let delete = pb::DeleteEnvironmentRequest { name: environment.clone(), ..Default::default() };
        let plan = keep(&f, Intended::DeleteEnvironment(delete)).await;
        let wrong = pb::ExecutePlanRequest { plan_digest: sha256_digest(b"another"), ..execute(&plan) };
        let stale = refused(f.plans().execute_plan(f.call(wrong)).await);
        assert_eq!((stale.code, stale.reason.as_str()), (Code::FailedPrecondition, "PLAN_STALE"));
        assert_eq!(stale.metadata["found"], plan.digest);

        // A workload more stands in the environment: it would go, too.
        let update = pb::UpdateEnvironmentRequest {
            environment: Some(pb::Environment {
                name: environment.clone(),
                parameters: Some(pavior_rpc::convert::to_struct(&json!({ "size": "large" })).unwrap()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let updated = f.projects().update_environment(f.call(update)).await.unwrap().into_inner();
        f.wait(updated).await;
        let stale = refused(f.plans().execute_plan(f.call(execute(&plan))).await);
        assert_eq!((stale.code, stale.reason.as_str()), (Code::FailedPrecondition, "PLAN_STALE"));
        assert_eq!(stale.metadata["expected"], plan.digest);
        assert_eq!(f.environment("development").await.state(), pb::environment::State::Active);
    })
    .await;
}

/// The digest of a plan that was looked at holds a request to it.
#[tokio::test]
async fn a_request_is_held_to_the_plan_that_was_seen() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let look = pb::CreateProjectRequest { validate_only: true, ..hello() };
        let looked = f.projects().create_project(f.call(look)).await.unwrap().into_inner();
        let plan = metadata(&looked).validated_plan.unwrap();
        // What cannot be got has no name.
        assert_eq!((looked.name.as_str(), plan.name.as_str(), plan.uid.as_str()), ("", "", ""));
        let other = pb::CreateProjectRequest { plan_digest: sha256_digest(b"another"), ..hello() };
        let stale = refused(f.projects().create_project(f.call(other)).await);
        assert_eq!((stale.code, stale.reason.as_str()), (Code::FailedPrecondition, "PLAN_STALE"));
        // What no plan can have as its digest is a mistake of the caller.
        for wrong in ["0".repeat(64), plan.digest.to_uppercase()] {
            let wrong = pb::CreateProjectRequest { plan_digest: wrong, ..hello() };
            let refusal = refused(f.projects().create_project(f.call(wrong)).await);
            let violation = &refusal.violations[0];
            assert_eq!(
                (refusal.code, violation.field.as_str(), violation.reason.as_str()),
                (Code::InvalidArgument, "plan_digest", "PATTERN")
            );
        }
        let held = pb::CreateProjectRequest { plan_digest: plan.digest.clone(), ..hello() };
        let begun = f.projects().create_project(f.call(held)).await.unwrap().into_inner();
        assert_eq!(metadata(&f.wait(begun).await).plan_digest, plan.digest);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_planned_is_refused_with_the_field() {
    let f = Fixture::new(pavior_testkit::db::sqlite()).await;
    let empty = pb::CreatePlanRequest {
        plan: Some(pb::Plan::default()),
        ..planned(Intended::CreateProject(of_hello()))
    };
    let refusal = refused(f.plans().create_plan(f.call(empty)).await);
    assert_eq!((refusal.code, refusal.violations[0].field.as_str()), (Code::InvalidArgument, "plan.intent"));
    let nothing = pb::CreatePlanRequest {
        plan: Some(pb::Plan { intent: Some(pb::plan::Intent::default()), ..Default::default() }),
        ..planned(Intended::CreateProject(of_hello()))
    };
    let refusal = refused(f.plans().create_plan(f.call(nothing)).await);
    assert_eq!(refusal.violations[0].field, "plan.intent.request");
    let some_digest = format!("sha256:{}", "0".repeat(64));
    for (field, request) in [
        (
            "plan.intent.request_id",
            pb::CreateProjectRequest { request_id: Uuid::new_v4().to_string(), ..hello() },
        ),
        ("plan.intent.validate_only", pb::CreateProjectRequest { validate_only: true, ..of_hello() }),
        ("plan.intent.plan_digest", pb::CreateProjectRequest { plan_digest: some_digest, ..of_hello() }),
    ] {
        let refusal = refused(f.plans().create_plan(f.call(planned(Intended::CreateProject(request)))).await);
        assert_eq!((refusal.code, refusal.violations[0].field.as_str()), (Code::InvalidArgument, field));
    }
    let gone = pb::DeleteProjectRequest { name: HELLO.into(), allow_missing: true, ..Default::default() };
    let refusal = refused(f.plans().create_plan(f.call(planned(Intended::DeleteProject(gone)))).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
    // What policy denies is not planned.
    f.decide("provisioning.projects.create", json!({ "effect": "EFFECT_DENY" }));
    let refusal = refused(f.plans().create_plan(f.call(planned(Intended::CreateProject(of_hello())))).await);
    assert_eq!(refusal.code, Code::PermissionDenied);
    let plans = pb::ListPlansRequest { parent: ACME.into(), ..Default::default() };
    assert!(f.plans().list_plans(f.call(plans)).await.unwrap().into_inner().plans.is_empty());
}

/// Whoever may plan at all learns nothing of what there is without being allowed what is planned.
#[tokio::test]
async fn policy_is_asked_before_anything_is_looked_at_for_a_plan() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let gone = format!("{HELLO}/environments/staging");
        let delete = |name: &str| pb::DeleteEnvironmentRequest {
            name: name.to_owned(),
            allow_missing: true,
            ..Default::default()
        };
        let environment = environment_request("staging");
        let begun = f.projects().create_environment(f.call(environment)).await.unwrap().into_inner();
        f.wait(begun).await;
        let plan = keep(&f, Intended::DeleteEnvironment(delete(&gone))).await;
        let begun = f.projects().delete_environment(f.call(delete(&gone))).await.unwrap().into_inner();
        f.wait(begun).await;
        // What was to go has gone by other hands.
        let stale = refused(f.plans().execute_plan(f.call(execute(&plan))).await);
        assert_eq!((stale.code, stale.reason.as_str()), (Code::FailedPrecondition, "PLAN_STALE"));

        f.decide("provisioning.environments.delete", json!({ "effect": "EFFECT_DENY" }));
        f.decide("provisioning.pipelines.run", json!({ "effect": "EFFECT_DENY" }));
        let run = |revision: &str| pb::RunPipelineRequest {
            name: format!("{HELLO}/pipelines/pipeline"),
            revision: revision.to_owned(),
            ..Default::default()
        };
        let there = format!("{HELLO}/environments/development");
        let foreign = "organizations/beta/projects/shop/environments/staging";
        let calls = f.driver.effects();
        for (intended, action) in [
            (Intended::DeleteEnvironment(delete(&gone)), "provisioning.environments.delete"),
            (Intended::DeleteEnvironment(delete(&there)), "provisioning.environments.delete"),
            (Intended::DeleteEnvironment(delete(foreign)), "provisioning.environments.delete"),
            (Intended::RunPipeline(run("main")), "provisioning.pipelines.run"),
            (Intended::RunPipeline(run("no-such-branch")), "provisioning.pipelines.run"),
        ] {
            f.peers.state().questions.clear();
            let refusal = refused(f.plans().create_plan(f.call(planned(intended))).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
            assert_eq!(refusal.metadata["action"], action);
            let asked = f.peers.state().questions.iter().map(|one| one.stage()).collect::<Vec<_>>();
            assert!(asked.iter().all(|stage| *stage == DecisionStage::Admission), "{asked:?}");
        }
        assert_eq!(f.driver.effects(), calls);
        let refusal = refused(f.plans().execute_plan(f.call(execute(&plan))).await);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::PermissionDenied, "ACCESS_DENIED"));
        // Each refusal is on its way to the audit log, under the name of who asked.
        wait_for("six records", Duration::from_secs(20), async || {
            let records = f.peers.state().records.clone();
            let denied = |record: &&String| {
                record.contains("policy denied `") && record.contains("organizations/acme/users/alice")
            };
            match records.iter().filter(denied).count() {
                6 => Ok(()),
                found => Err(found),
            }
        })
        .await;
        // Nobody writes into the log of another organization, which goes by what a record is about.
        let records = f.peers.state().records.clone();
        let about: Vec<&String> = records.iter().filter(|record| record.contains(foreign)).collect();
        let [about] = about.as_slice() else { panic!("{about:?}") };
        assert!(about.contains(&format!("name: {ACME:?}")), "{about}");
        assert!(!about.contains(&format!("name: {foreign:?}")), "{about}");
        // What owns nothing is no question to policy, but a mistake.
        for owner in ["zork", "organizations/beta/groups/x", "organizations/acme/users/alice"] {
            let mut request = of_hello();
            request.project.as_mut().unwrap().owner = owner.to_owned();
            let refusal =
                refused(f.plans().create_plan(f.call(planned(Intended::CreateProject(request)))).await);
            let field = refusal.violations[0].field.as_str();
            assert_eq!((refusal.code, field), (Code::InvalidArgument, "project.owner"), "{owner}");
        }
    })
    .await;
}

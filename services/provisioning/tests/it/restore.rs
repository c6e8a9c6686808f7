//! A database that was set back: nothing in it goes on by itself.

use std::sync::Arc;
use std::time::Duration;

use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id_gen::{IdGen, SystemIds};
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_proto::google::longrunning::{CancelOperationRequest, GetOperationRequest, Operation};
use pavior_proto::pavior::provisioning::v1::RetryOperationRequest;
use pavior_proto::pavior::provisioning::v1::operation_metadata::State;
use pavior_provisioning::domain::failure::{Failure, FailureReason};
use pavior_provisioning::restore::{GRACE, UnderWay, park, spare, under_way};
use pavior_provisioning::store::entity::{environment, project, timer};
use pavior_provisioning::store::{Admission, NewEnvironment};
use pavior_testkit::db::both;
use sea_orm::EntityTrait;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::fixture::{Fixture, HELLO, hello, metadata, problem, refused};
use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(30);

fn tools() -> (Arc<dyn Clock>, Arc<dyn IdGen>) {
    (Arc::new(SystemClock), Arc::new(SystemIds))
}

#[tokio::test]
async fn what_waits_for_people_is_parked_and_what_expires_is_spared() {
    both(|db| async {
        let world = World::new(db).await;
        let store = world.db.store().clone();
        let name = format!("{PROJECT}/environments/e");
        let mut new = new_operation(graph(&[]));
        new.makes.environments = vec![NewEnvironment {
            name: name.clone(),
            display_name: String::new(),
            class: "preview".into(),
            parameters: json!({}),
            ttl_seconds: Some(60),
            expire_time: None,
        }];
        let id = new.id;
        world.db.accept_unscoped(new).await.unwrap();
        assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
        let mut waiting = new_operation(elsewhere(graph(&DIAMOND), "acme", 2));
        waiting.admission = Admission::AskPeople;
        let waiting_id = waiting.id;
        world.db.accept_unscoped(waiting).await.unwrap();
        world.db.await_approval_unscoped(waiting_id, "organizations/acme/approvals/a").await.unwrap();
        let waiting = world.view(waiting_id).await.op;
        assert_eq!(waiting.state.as_str(), "AWAITING_APPROVAL");

        let found = UnderWay { operations: vec![waiting.name], environments: vec![name.clone()] };
        let (clock, ids) = tools();
        assert_eq!(under_way(store.clone(), clock.clone(), ids.clone()).await.unwrap(), found);
        for (parked, spared) in [(found.operations, found.environments), (Vec::new(), Vec::new())] {
            let (clock, ids) = tools();
            let done = park(store.clone(), clock.clone(), ids.clone(), &restorer()).await.unwrap();
            assert_eq!(done, parked, "once is enough");
            if !spared.is_empty() {
                assert_eq!(spare(store.clone(), clock, ids, &restorer()).await.unwrap(), spared);
            }
        }

        let stuck = world.view(waiting_id).await;
        assert_eq!((stuck.op.state.as_str(), stuck.op.error.unwrap().code.as_str()), ("STUCK", "RESTORED"));
        // It was approved since: for all that it does not begin.
        let approved = ["organizations/acme/approvals/a".to_owned()];
        world.db.admit_unscoped(waiting_id, &approved, 60_000_000).await.unwrap();
        assert_eq!(world.view(waiting_id).await.op.state.as_str(), "STUCK");
        assert_eq!(world.db.waiting_unscoped(10).await.unwrap(), []);

        let row = environment::Entity::find().all(store.read()).await.unwrap().remove(0);
        let soonest = OffsetDateTime::now_utc() + GRACE - time::Duration::minutes(5);
        assert!(row.expire_time.unwrap() > soonest, "{:?}", row.expire_time);
        let timers = timer::Entity::find().all(store.read()).await.unwrap();
        assert!(pavior_store::from_micros(timers[0].due).unwrap() > soonest);
        assert_eq!(world.db.expired_unscoped(10).await.unwrap(), []);

        // It was refused since: nothing of it is left.
        let why = Failure::refusal(FailureReason::NotApproved, "no");
        let how = Some(TakeUp::Anew(Checked::Refused(why)));
        let caller = by_alice(RETRY);
        let rest = world.db.retry_unscoped(waiting_id, &caller, Some(TakeUp::Rest), 60_000_000, None);
        assert!(matches!(rest.await, Err(pavior_provisioning::Error::Busy { .. })), "it had not begun");
        world.db.retry_unscoped(waiting_id, &by_alice(RETRY), how, 60_000_000, None).await.unwrap();
        let ended = world.view(waiting_id).await.op;
        assert_eq!((ended.state.as_str(), ended.error.unwrap().reason.as_str()), ("DENIED", "NOT_APPROVED"));
        assert_eq!(world.driver.effects(), 0);
        let projects = project::Entity::find().all(store.read()).await.unwrap();
        assert_eq!(projects.len(), 1, "what was to be made is forgotten");
        // The people who were asked are told.
        let told = world.db.withdrawn_unscoped(10).await.unwrap();
        assert_eq!(told.len(), 1);
    })
    .await;
}

/// An operation that people are asked about, parked.
async fn parked(f: &Fixture) -> Operation {
    f.decide("provisioning.projects.create", approval());
    let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
    let name = operation.name.clone();
    let asked = pavior_testkit::wait_for("people to be asked", LIMIT, async || {
        let request = GetOperationRequest { name: name.clone() };
        let operation = f.operations().get_operation(f.call(request)).await.unwrap().into_inner();
        match metadata(&operation).state() {
            State::AwaitingApproval => Ok(operation),
            other => Err(other),
        }
    })
    .await;
    let (clock, ids) = tools();
    assert_eq!(park(f.store.clone(), clock, ids, &restorer()).await.unwrap(), [name]);
    asked
}

fn approval() -> serde_json::Value {
    json!({
        "effect": "EFFECT_REQUIRE_APPROVAL",
        "requirements": [{ "group": "organizations/acme/groups/platform", "quorum": 1 }],
    })
}

async fn retried(f: &Fixture, operation: &Operation) -> Operation {
    let request = RetryOperationRequest { name: operation.name.clone(), ..Default::default() };
    f.operation_service().retry_operation(f.call(request)).await.unwrap().into_inner()
}

fn answer(f: &Fixture, request: &str, state: i32) {
    f.peers.state().approvals.get_mut(request).unwrap().state = state;
}

#[tokio::test]
async fn what_had_not_begun_is_checked_anew_and_carried_out() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let asked = parked(&f).await;
        let request = metadata(&asked).approval;
        // Nobody has answered: people are waited for, and the answer counts.
        let waits = retried(&f, &asked).await;
        assert_eq!(
            (metadata(&waits).state(), metadata(&waits).approval),
            (State::AwaitingApproval, request.clone())
        );
        let (clock, ids) = tools();
        park(f.store.clone(), clock, ids, &restorer()).await.unwrap();
        answer(&f, &request, 2);
        let done = f.wait(retried(&f, &asked).await).await;
        assert_eq!((metadata(&done).state(), problem(&done)), (State::Succeeded, None));
        let state = f.peers.state();
        let last = state.questions.iter().rev().find(|asked| asked.action == "provisioning.projects.create");
        assert_eq!(last.unwrap().approval, request);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_any_more_says_so_at_once() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let asked = parked(&f).await;
        answer(&f, &metadata(&asked).approval, 3);
        let ended = retried(&f, &asked).await;
        assert!(ended.done);
        assert_eq!(
            (metadata(&ended).state(), problem(&ended).unwrap()),
            (State::Denied, "NOT_APPROVED: the approval was denied".to_owned())
        );
        // It holds nothing any more. Where policy has lost the request, people are asked anew.
        let asked = parked(&f).await;
        let request = metadata(&asked).approval;
        let lost = f.peers.state().approvals.remove(&request);
        assert!(lost.is_some());
        let waits = retried(&f, &asked).await;
        let anew = metadata(&waits);
        assert_eq!(anew.state(), State::AwaitingApproval);
        answer(&f, &anew.approval, 2);
        assert_eq!(problem(&f.wait(waits).await), None);
    })
    .await;
}

/// People have said yes, and policy asks for more since: nobody waits for an answer that was given.
#[tokio::test]
async fn an_approval_that_is_given_and_not_enough_is_not_waited_for() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let asked = parked(&f).await;
        answer(&f, &metadata(&asked).approval, 2);
        f.peers.state().wants_more = true;
        let ended = retried(&f, &asked).await;
        let said = problem(&ended).unwrap();
        assert_eq!((ended.done, metadata(&ended).state()), (true, State::Denied));
        assert!(said.starts_with("GUARDRAIL_DENIED") && said.contains("more people must approve"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn whoever_restores_is_the_actor_of_what_is_put_off() {
    let f = Fixture::new(pavior_testkit::db::sqlite()).await;
    parked(&f).await;
    pavior_testkit::wait_for("the record", LIMIT, async || {
        let state = f.peers.state();
        let parked = |record: &&String| record.contains("is STUCK") && record.contains("os:root");
        match state.records.iter().filter(parked).count() {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// A creation of which a part was done in the copy, while another was under way. What was done is gone by now, and something
/// else may have its name.
#[tokio::test]
async fn what_builds_on_something_that_is_gone_does_not_go_on() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let gate = Arc::new(Semaphore::new(0));
        f.driver.script(CallKind::Apply, "pipeline", [Behaviour::Gate(gate.clone())]);
        let operation = f.projects().create_project(f.call(hello())).await.unwrap().into_inner();
        pavior_testkit::wait_for("the call to be under way", LIMIT, async || {
            let calls: Vec<String> = f.driver.calls().into_iter().map(|call| call.step).collect();
            if calls.iter().any(|step| step == "pipeline") { Ok(()) } else { Err(calls) }
        })
        .await;
        let (clock, ids) = tools();
        let parked = park(f.store.clone(), clock, ids, &restorer()).await.unwrap();
        assert_eq!(parked, std::slice::from_ref(&operation.name));
        gate.add_permits(1);
        let repository = format!("{HELLO}/resources/repository");
        f.driver.vanish(&repository);
        let request = RetryOperationRequest { name: operation.name.clone(), ..Default::default() };
        let decoded = refused(f.operation_service().retry_operation(f.call(request)).await);
        assert_eq!((decoded.code, decoded.reason.as_str()), (Code::FailedPrecondition, "INVALID_STATE"));
        assert!(
            decoded.message.starts_with(&format!("what this builds on is gone: `{repository}`. ")),
            "{}",
            decoded.message
        );
        assert_eq!(decoded.preconditions[0].subject, repository);
        let request = CancelOperationRequest { name: operation.name.clone() };
        f.operations().cancel_operation(f.call(request)).await.unwrap();
        let ended = f.wait(operation).await;
        assert_eq!(metadata(&ended).state(), State::Compensated);
    })
    .await;
}

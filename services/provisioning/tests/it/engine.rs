//! One harness for every way in which a step can go.

use std::sync::Arc;

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::Config;
use pavior_provisioning::domain::failure::FailureCode;
use pavior_provisioning::domain::plan::{Action, Kind};
use pavior_provisioning::error::Error;
use pavior_provisioning::store::{ClaimParams, Completion, StepError};
use pavior_testkit::db::{both, sqlite};
use serde_json::json;

use crate::harness::*;

fn all_live() -> Vec<String> {
    DIAMOND.iter().map(|(id, _)| resource(id)).collect()
}

async fn rows(world: &World) -> Vec<String> {
    let mut rows: Vec<String> = world
        .db
        .resources_in_scope_unscoped(PROJECT, &resource("x"))
        .await
        .unwrap()
        .into_iter()
        .map(|row| format!("{} {}", row.name.rsplit('/').next().unwrap(), row.state))
        .collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn a_graph_is_made_in_order_and_outputs_flow_along_it() {
    both(|db| async {
        let world = World::new(db).await;
        let id = world.start(graph(&DIAMOND)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", view.op.error, shown(&view));
        assert_eq!(world.driver.live(), all_live());
        assert_eq!(world.driver.effects(), 5);
        let inputs = world.driver.inputs_of(&resource("d")).unwrap();
        assert!(inputs["from"][0].as_str().unwrap().starts_with("fake://"), "{inputs}");
        let journal = world.journal(id).await;
        let at =
            |line: &str| journal.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line}"));
        assert!(
            at("a DONE") < at("b RUNNING")
                && at("b DONE") < at("d RUNNING")
                && at("c DONE") < at("d RUNNING")
        );
        assert_eq!(journal.last().unwrap(), "SUCCEEDED");
        assert_eq!(rows(&world).await, ["a ACTIVE", "b ACTIVE", "c ACTIVE", "d ACTIVE", "e ACTIVE"]);
    })
    .await;
}

#[tokio::test]
async fn whichever_node_fails_the_world_is_clean_and_the_node_is_blamed() {
    both(|db| async {
        let world = World::new(db).await;
        for (node, _) in DIAMOND {
            for partially in [false, true] {
                let message = format!("`{node}` broke");
                let behaviour = if partially {
                    Behaviour::FailPartially { message: message.clone() }
                } else {
                    Behaviour::Fail { retryable: false, message: message.clone() }
                };
                world.driver.script(CallKind::Apply, node, [behaviour]);
                let id = world.start(graph(&DIAMOND)).await;
                let view = world.ended(id).await;
                assert_eq!(view.op.state.as_str(), "COMPENSATED", "{node}: {:?}", shown(&view));
                assert_eq!(view.op.error.as_ref().unwrap().step, node);
                assert_eq!(view.op.error.as_ref().unwrap().message, message);
                assert_eq!(world.driver.live(), Vec::<String>::new(), "{node} partially {partially}");
                assert_eq!(rows(&world).await, Vec::<String>::new());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn undo_goes_in_reverse_order() {
    let world = World::new(sqlite()).await;
    world.driver.fail("d");
    let id = world.start(graph(&DIAMOND)).await;
    world.ended(id).await;
    let journal = world.journal(id).await;
    let at = |line: &str| {
        journal.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line} in {journal:?}"))
    };
    assert!(at("b UNDONE") < at("a UNDOING") && at("c UNDONE") < at("a UNDOING"), "{journal:?}");
}

#[tokio::test]
async fn every_do_and_every_undo_may_come_twice() {
    let world = World::new(sqlite()).await;
    // An unknown outcome whose effect happened makes the engine look, and an undo that is not known is repeated.
    for (node, _) in DIAMOND {
        world.driver.script(
            CallKind::Apply,
            node,
            [Behaviour::Fail { retryable: true, message: "again".into() }],
        );
    }
    let id = world.start(graph(&DIAMOND)).await;
    assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
    assert_eq!((world.driver.live(), world.driver.effects()), (all_live(), 5));
    for (node, _) in DIAMOND {
        world.driver.script(CallKind::Destroy, node, [Behaviour::Unknown { effect: true }]);
    }
    let id = world.start(teardown_plan(&world).await).await;
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?}", shown(&view));
    assert_eq!((world.driver.live(), world.driver.effects()), (vec![], 10));
    assert_eq!(rows(&world).await, Vec::<String>::new());

    for (node, _) in DIAMOND {
        world.driver.script(CallKind::Destroy, node, [Behaviour::Unknown { effect: true }]);
    }
    world.driver.fail("d");
    let id = world.start(graph(&DIAMOND)).await;
    assert_eq!(world.ended(id).await.op.state.as_str(), "COMPENSATED");
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

#[tokio::test]
async fn unknown_outcomes_are_resolved_by_observation() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.script(CallKind::Apply, "a", [Behaviour::Unknown { effect: true }]);
        world.driver.script(CallKind::Apply, "b", [Behaviour::Unknown { effect: false }]);
        world.driver.script(CallKind::Apply, "c", [Behaviour::Unknown { effect: true }]);
        world.driver.script(
            CallKind::Observe,
            "c",
            [Behaviour::Unknown { effect: false }, Behaviour::Unknown { effect: false }],
        );
        let id = world.start(graph(&DIAMOND)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?}", shown(&view));
        assert_eq!((world.driver.live(), world.driver.effects()), (all_live(), 5));
        let attempts: Vec<i32> = view.steps.iter().map(|step| step.attempt).collect();
        assert_eq!(attempts, [1, 2, 1, 1, 1]);
        let journal = world.journal(id).await;
        assert!(journal.contains(&"a OBSERVING".to_owned()), "{journal:?}");
    })
    .await;
}

#[tokio::test]
async fn unknown_steps_are_undone_too() {
    let world = World::new(sqlite()).await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    world.driver.script(CallKind::Apply, "e", [Behaviour::Gate(gate.clone())]);
    world.driver.script(CallKind::Apply, "a", [Behaviour::Unknown { effect: true }]);
    world.driver.script(CallKind::Observe, "a", vec![Behaviour::Unknown { effect: false }; 200]);
    let id = world.start(graph(&DIAMOND)).await;
    world.wait(id, &["RUNNING"]).await;
    world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
    world.engine.stop_calls(id);
    world.engine.wake();
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
    assert_eq!(view.op.error.as_ref().unwrap().reason.as_str(), "CANCELLED");
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

#[tokio::test]
async fn retries_are_bounded() {
    let world = World::new(sqlite()).await;
    world.driver.script(
        CallKind::Apply,
        "a",
        vec![Behaviour::Fail { retryable: true, message: "not now".into() }; 10],
    );
    let id = world.start(graph(&DIAMOND[..1])).await;
    let view = world.ended(id).await;
    assert_eq!((view.op.state.as_str(), view.steps[0].attempt), ("COMPENSATED", 4));
}

#[tokio::test]
async fn a_zombie_is_refused_by_its_fence() {
    both(|db| async {
        let config = Config { poll_ms: 20, ..quick() };
        let world = World::with(db, config, None).await;
        // Nothing is woken: the zombie takes the step before the engine looks.
        let new = new_operation(graph(&DIAMOND[..1]));
        let id = new.id;
        let params = ClaimParams {
            worker: "zombie".into(),
            lease_micros: 1,
            limit: 1,
            per_operation: 1,
            per_organization: 1,
            away: [].into(),
        };
        world.db.accept_unscoped(new).await.unwrap();
        let claims = world.db.claim_unscoped(id, &params).await.unwrap();
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED");
        let Some(claim) = claims.first() else { return };
        let error = StepError::new(FailureCode::Timeout, "late");
        let late = Arc::new(Completion::Failed { error, remains: None, again: None });
        let refused = world.db.complete_unscoped(claim.reference(), &late, None).await;
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
        assert_eq!(world.db.heartbeat_unscoped(claim.reference(), 1).await.unwrap(), (false, false));
        let after = world.view(id).await;
        assert_eq!((after.op.state.as_str(), after.steps[0].state.as_str()), ("SUCCEEDED", "DONE"));
        assert!(after.steps[0].fence > claim.step.fence);
        assert_eq!(world.driver.live().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_failed_undo_is_stuck_until_an_operator_retries() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.fail("d");
        let refuse = Behaviour::Fail { retryable: false, message: "will not go".into() };
        world.driver.script(CallKind::Destroy, "b", [refuse]);
        let id = world.start(graph(&DIAMOND)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "STUCK", "{:?}", shown(&view));
        let state = |name: &str| view.steps.iter().find(|step| step.name == name).unwrap().state;
        assert_eq!(
            (state("b").as_str(), state("a").as_str(), state("c").as_str()),
            ("UNDO_STUCK", "DONE", "UNDONE")
        );
        assert_eq!(world.driver.live(), [resource("a"), resource("b")]);
        world.db.retry_unscoped(id, &by_alice(RETRY), Some(TakeUp::Rest), 60_000_000, None).await.unwrap();
        world.engine.wake();
        assert_eq!(world.ended(id).await.op.state.as_str(), "COMPENSATED");
        assert_eq!(world.driver.live(), Vec::<String>::new());
        assert!(matches!(
            world.db.retry_unscoped(id, &by_alice(RETRY), Some(TakeUp::Rest), 1, None).await,
            Err(Error::Illegal(_))
        ));
    })
    .await;
}

#[tokio::test]
async fn a_failed_deletion_is_taken_up_again() {
    let world = World::new(sqlite()).await;
    let id = world.start(graph(&DIAMOND)).await;
    world.ended(id).await;
    let refuse = Behaviour::Fail { retryable: false, message: "will not go".into() };
    world.driver.script(CallKind::Destroy, "b", [refuse]);
    let id = world.start(teardown_plan(&world).await).await;
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "STUCK", "{:?}", shown(&view));
    assert_eq!(view.op.error.as_ref().unwrap().step, "b");
    world.db.retry_unscoped(id, &by_alice(RETRY), Some(TakeUp::Rest), 60_000_000, None).await.unwrap();
    world.engine.wake();
    assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
    assert_eq!((world.driver.live(), rows(&world).await), (vec![], vec![]));
}

#[tokio::test]
async fn an_update_is_undone_by_its_former_inputs() {
    both(|db| async {
        let world = World::new(db).await;
        world.ended(world.start(graph(&DIAMOND[..2])).await).await;
        let mut changes = vec![
            change("a", Action::Update, &[], json!({"name": "a", "size": 2})),
            change("b", Action::Replace, &["a"], json!({"name": "b", "immutable": 2})),
            change("f", Action::Create, &["b"], json!({"name": "f"})),
        ];
        let before: Vec<_> = ["a", "b"].map(|id| world.driver.inputs_of(&resource(id)).unwrap()).to_vec();
        changes[2].undoable = true;
        world.driver.fail("f");
        // A project has no update of its own yet: a run leaves the target alone.
        let id = world.start(plan(Kind::Run, changes)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?} {:?}", shown(&view), view.op.error);
        assert_eq!(world.driver.inputs_of(&resource("a")).unwrap(), before[0]);
        assert_eq!(world.driver.inputs_of(&resource("b")).unwrap()["name"], "b");
        assert_eq!(world.driver.inputs_of(&resource("b")).unwrap().get("immutable"), None);
        assert_eq!(world.driver.live(), [resource("a"), resource("b")]);
        assert_eq!(rows(&world).await, ["a ACTIVE", "b ACTIVE"]);
    })
    .await;
}

#[tokio::test]
async fn secrets_are_sealed_and_seen_by_drivers_only() {
    both(|db| async {
        let world = World::new(db).await;
        let mut changes = vec![
            change("a", Action::Create, &[], json!({"secret": true})),
            change(
                "b",
                Action::Create,
                &["a"],
                json!({
                    "direct": "${{ resources.a.password }}",
                    "mixed": "postgres://u:${{ resources.a.password }}@h/d",
                }),
            ),
        ];
        changes[0].spec.secret_outputs = vec!["password".into()];
        world.driver.script(
            CallKind::Apply,
            "b",
            // The second is cut within the secret, since it is longer than a line may be.
            [Behaviour::Log(vec![
                "password is s3cret-of-fake-1".into(),
                format!("{}s3cret-of-fake-1 end", "x".repeat(16 * 1024 - 9)),
            ])],
        );
        let id = world.start(plan(Kind::CreateProject, changes)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?}", shown(&view));
        let given = world.driver.inputs_of(&resource("b")).unwrap();
        assert_eq!(given["direct"], "s3cret-of-fake-1");
        assert_eq!(given["mixed"], "postgres://u:s3cret-of-fake-1@h/d");
        let rows = world.db.resources_in_scope_unscoped(PROJECT, &resource("x")).await.unwrap();
        let a = rows.iter().find(|row| row.name == resource("a")).unwrap();
        assert!(a.outputs["password"]["$secret"].is_string(), "{}", a.outputs);
        let b = rows.iter().find(|row| row.name == resource("b")).unwrap();
        assert_eq!(b.inputs["direct"], a.outputs["password"]);
        let logs = world.db.log_chunks_unscoped(id, 0, 100).await.unwrap();
        let text = format!("{logs:?}");
        assert!(text.contains("password is ***"), "{text}");
        assert!(text.contains("xxx***") && !text.contains("s3cret") && !text.contains("fake-1 end"));
        let events = world.db.events_unscoped(id, 0, 1000).await.unwrap();
        let outbox =
            pavior_store::outbox::pending(world.db.store(), "provisioning", 100, usize::MAX).await.unwrap();
        for everything in
            [text, format!("{events:?}"), format!("{rows:?}"), format!("{view:?}"), format!("{outbox:?}")]
        {
            assert!(!everything.contains("s3cret-of"), "{everything}");
        }
        assert!(!outbox.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_operation_whose_time_is_up_fails() {
    let world = World::new(sqlite()).await;
    world.driver.script(CallKind::Apply, "a", [Behaviour::UntilCancelled]);
    let mut new = new_operation(graph(&DIAMOND[..1]));
    new.deadline_micros = 200_000;
    let id = new.id;
    world.db.accept_unscoped(new).await.unwrap();
    world.engine.wake();
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "COMPENSATED");
    assert_eq!(view.op.error.unwrap().code.as_str(), "TIMEOUT");
}

#[tokio::test]
async fn limits_hold_per_operation() {
    let config = Config { max_running_per_operation: 2, ..quick() };
    let world = World::with(sqlite(), config, None).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    for name in names {
        world.driver.script(CallKind::Apply, name, [Behaviour::Gate(gate.clone())]);
    }
    let nodes: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, &[][..])).collect();
    let id = world.start(graph(&nodes)).await;
    for _ in names {
        let mut changes = world.engine.changes();
        while world.view(id).await.steps.iter().filter(|step| step.state.as_str() == "RUNNING").count() == 0 {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(10), changes.recv()).await;
        }
        let running = world.view(id).await.steps.iter().filter(|s| s.state.held()).count();
        assert!(running <= 2, "{running}");
        gate.add_permits(1);
    }
    assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
}

#[tokio::test]
async fn nobody_waits_for_the_hundreds_of_another() {
    both(|db| async {
        let config = Config {
            max_running: 2,
            max_running_per_organization: 1,
            max_running_per_operation: 1,
            ..quick()
        };
        let world = World::with(db, config, None).await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let mut gated = Vec::new();
        for index in 0..20 {
            let name = format!("a{index}");
            world.driver.script(CallKind::Apply, &name, [Behaviour::Gate(gate.clone())]);
            gated.push(world.start(elsewhere(graph(&[(name.as_str(), &[])]), "acme", index)).await);
        }
        let id = world.start(elsewhere(graph(&DIAMOND), "beta", 0)).await;
        assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
        assert_ne!(world.view(gated[19]).await.op.state.as_str(), "SUCCEEDED");
        gate.add_permits(20);
        for id in gated {
            assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
        }
    })
    .await;
}

#[tokio::test]
async fn a_step_whose_time_is_up_fails_and_is_undone() {
    let config = Config { step_timeout_ms: 100, ..quick() };
    let world = World::with(sqlite(), config, None).await;
    world.driver.script(CallKind::Apply, "b", [Behaviour::UntilCancelled]);
    let id = world.start(graph(&DIAMOND)).await;
    let view = world.ended(id).await;
    let error = view.op.error.clone().unwrap();
    assert_eq!(
        (view.op.state.as_str(), error.reason.as_str(), error.step.as_str()),
        ("COMPENSATED", "STEP_FAILED", "b")
    );
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stopped_engine_ends_at_once_and_leaves_its_work_to_the_next() {
    let world = World::new(sqlite()).await;
    let failing = vec![Behaviour::Fail { retryable: true, message: "not now".into() }; 2];
    world.driver.script(CallKind::Apply, "a", failing);
    let id = world.start(graph(&DIAMOND)).await;
    let started = tokio::time::Instant::now();
    let world = world.restarted().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(4));
    assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
    assert_eq!(world.driver.effects(), 5);
}

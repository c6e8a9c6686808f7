//! Drivers that are away, busy, or have seen a later claim.

use std::time::Duration;

use pavior_driver::testing::{Behaviour, CallKind, Presence};
use pavior_provisioning::Config;
use pavior_runtime::Severity;
use pavior_testkit::db::{TestDb, both, sqlite};
use pavior_testkit::wait_for;

use crate::fixture::Fixture;
use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(30);

fn calls(world: &World) -> usize {
    world.driver.calls().len()
}

/// Returns once the engine knows that the driver is away.
async fn known_to_be_away(world: &World) {
    wait_for("somebody to notice that the driver is away", LIMIT, async || {
        if world.engine.drivers_away().is_empty() { Err("nobody did") } else { Ok(()) }
    })
    .await;
}

/// Wakes the engine again and again, until it has asked the driver some more times whether it is back.
async fn look_often(world: &World) {
    let before = world.driver.asked();
    wait_for("the engine to ask for the driver", LIMIT, async || {
        world.engine.wake();
        match world.driver.asked() - before {
            asked if asked >= 10 => Ok(()),
            asked => Err(asked),
        }
    })
    .await;
}

async fn away(db: TestDb, presence: Presence) {
    // One attempt each: an absence that cost one would end them.
    let config = Config { max_attempts: 1, max_undo_attempts: 1, ..quick() };
    let world = World::with(db, config, None).await;
    world.ended(world.start(elsewhere(graph(&DIAMOND), "acme", 1)).await).await;
    let made = calls(&world);
    world.driver.set_presence(presence);
    let create = world.start(elsewhere(graph(&DIAMOND[..1]), "acme", 2)).await;
    let destroy = world.start(teardown_of(&world, "acme", 1).await).await;
    known_to_be_away(&world).await;
    let away = world.engine.drivers_away();
    assert_eq!((away.len(), away[0].driver.as_str()), (1, "fake"));
    assert!(away[0].why.contains("away"), "{away:?}");
    look_often(&world).await;
    let before = calls(&world);
    assert!(before - made < 12, "{} calls were burnt", before - made);
    look_often(&world).await;
    assert_eq!(calls(&world), before, "steps of a driver that is away are called");
    world.driver.set_presence(Presence::There);
    for id in [create, destroy] {
        let view = world.ended(id).await;
        assert_eq!(
            view.op.state.as_str(),
            "SUCCEEDED",
            "{presence:?}: {:?} {:?}",
            shown(&view),
            view.op.error
        );
    }
    assert_eq!(world.driver.live(), ["organizations/acme/projects/p2/resources/a"]);
    assert_eq!(world.engine.drivers_away(), []);
}

#[tokio::test]
async fn whatever_waited_for_a_driver_that_was_away_succeeds_afterwards() {
    both(|db| away(db, Presence::Refuses)).await;
    both(|db| away(db, Presence::Silent)).await;
}

async fn undone_afterwards(presence: Presence) {
    let config = Config { max_undo_attempts: 1, ..quick() };
    let world = World::with(sqlite(), config, None).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    world.driver.script(CallKind::Apply, "d", [Behaviour::Gate(gate)]);
    let id = world.start(graph(&DIAMOND)).await;
    let mut changes = world.engine.changes();
    while !world.view(id).await.steps.iter().any(|step| step.name == "d" && step.state.as_str() == "RUNNING")
    {
        let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
    }
    world.driver.set_presence(presence);
    world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
    world.engine.stop_calls(id);
    known_to_be_away(&world).await;
    look_often(&world).await;
    assert_eq!(world.view(id).await.op.state.as_str(), "COMPENSATING");
    world.driver.set_presence(Presence::There);
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "COMPENSATED", "{presence:?}: {:?}", shown(&view));
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

#[tokio::test]
async fn an_undo_waits_for_its_driver_to_come_back() {
    undone_afterwards(Presence::Refuses).await;
    undone_afterwards(Presence::Silent).await;
}

#[tokio::test]
async fn a_step_whose_target_is_busy_waits_without_losing_an_attempt() {
    let config = Config { max_attempts: 1, ..quick() };
    let world = World::with(sqlite(), config, None).await;
    let busy = vec![Behaviour::Busy(Duration::from_millis(120)); 2];
    world.driver.script(CallKind::Apply, "a", busy);
    let begin = tokio::time::Instant::now();
    let view = world.ended(world.start(graph(&DIAMOND)).await).await;
    assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?}", shown(&view));
    // As long as the driver said, and the driver itself was never thought to be away.
    assert!(begin.elapsed() >= Duration::from_millis(240), "{:?}", begin.elapsed());
    assert_eq!(world.driver.calls().iter().filter(|call| call.step == "a").count(), 3);
}

#[tokio::test]
async fn a_driver_that_does_not_come_back_fails_the_operation_in_its_time() {
    let world = World::new(sqlite()).await;
    world.driver.set_presence(Presence::Refuses);
    let mut new = new_operation(graph(&DIAMOND[..1]));
    (new.deadline_micros, new.undo_micros) = (300_000, 300_000);
    let id = new.id;
    world.db.accept_unscoped(new).await.unwrap();
    world.engine.wake();
    let view = world.ended(id).await;
    assert_eq!(view.op.error.as_ref().unwrap().code.as_str(), "TIMEOUT", "{:?}", shown(&view));
    assert_eq!(view.op.state.as_str(), "COMPENSATED");
}

#[tokio::test]
async fn an_undo_has_its_time_and_then_says_why_it_was_given_up() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.fail("b");
        world.driver.script(CallKind::Destroy, "a", vec![Behaviour::Busy(Duration::from_millis(5)); 5_000]);
        let mut new = new_operation(graph(&DIAMOND[..2]));
        new.undo_micros = 250_000;
        let id = new.id;
        world.db.accept_unscoped(new).await.unwrap();
        world.engine.wake();
        let view = world.ended(id).await;
        let a = view.steps.iter().find(|step| step.name == "a").unwrap();
        assert_eq!((view.op.state.as_str(), a.state.as_str()), ("STUCK", "UNDO_STUCK"), "{:?}", shown(&view));
        assert!(a.error.as_ref().unwrap().message.contains("told to be busy"), "{a:?}");
        assert_eq!(world.driver.live(), [resource("a")]);
    })
    .await;
}

#[tokio::test]
async fn a_driver_that_has_seen_a_later_claim_is_a_failure_that_counts() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.set_fence(&resource("b"), i64::MAX);
        let view = world.ended(world.start(graph(&DIAMOND[..2])).await).await;
        let error = view.op.error.clone().unwrap();
        assert_eq!((error.step.as_str(), error.code.as_str()), ("b", "FENCED"));
        assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
        let tried = world.driver.calls().iter().filter(|call| call.step == "b").count();
        assert_eq!(tried, 4, "as often as any other step");
        assert_eq!(world.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_driver_that_talks_while_it_keeps_checkpoints_holds_nobody_up() {
    both(|db| async {
        // Lines are kept every millisecond, beside a call that waits for the database itself.
        let world = World::with(db, Config { log_flush_ms: 1, lease_ms: 15_000, ..quick() }, None).await;
        let steps: [(&str, &[&str]); 4] = [("a", &[]), ("b", &[]), ("c", &[]), ("d", &[])];
        for (step, _) in steps {
            world.driver.script(CallKind::Apply, step, [Behaviour::Chatter { rounds: 5, lines: 100 }]);
        }
        let id = world.start(graph(&steps)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", shown(&view), view.op.error);
        let mut kept = 0;
        let mut from = 0;
        loop {
            let chunks = world.db.log_chunks_unscoped(id, from, 100).await.unwrap();
            let Some(last) = chunks.last() else { break };
            from = last.seq + 1;
            let lines = chunks.iter().flat_map(|chunk| &chunk.lines);
            kept += lines.filter(|(stream, _)| stream == "stdout").count();
        }
        assert_eq!(kept, steps.len() * 5 * 100);
    })
    .await;
}

#[tokio::test]
async fn a_driver_that_is_away_degrades_the_service_by_name_and_keeps_it_ready() {
    let f = Fixture::new(sqlite()).await;
    let unwell = async || {
        let mut found = Vec::new();
        for check in &f.checks {
            if let Err(why) = check.ask().await {
                found.push((check.name.to_string(), check.severity, why));
            }
        }
        found
    };
    assert_eq!(unwell().await, []);
    f.driver.set_presence(Presence::Refuses);
    pavior_testkit::wait_for("the driver to be known as away", LIMIT, async || match &unwell().await[..] {
        [(name, Severity::Degrades, why)] if name == "provisioning drivers" && why.contains("`fake`") => {
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    f.driver.set_presence(Presence::There);
    pavior_testkit::wait_for("the driver to be back", LIMIT, async || match &unwell().await[..] {
        [] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

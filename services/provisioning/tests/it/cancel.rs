//! Cancelled at any moment, an operation ends undone or done, never stuck, and leaves nothing behind.

use std::time::Duration;

use pavior_driver::FailureCode;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::Config;
use pavior_provisioning::domain::operation::OperationState;
use pavior_provisioning::error::Error;
use pavior_provisioning::store::Admission;
use pavior_store::ErrorKind;
use pavior_testkit::db::{TestDb, both, postgres, sqlite};
use pavior_testkit::wait_for;

use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(60);
const OPERATIONS: usize = 300;
/// Under way at a time.
const WAVE: usize = 25;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Asks again while the machine has no time for the database.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(Error::Store(error)) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn cancelled_at_any_moment(db: TestDb, seed: u64) {
    let kind = db.kind;
    let config = Config { lease_ms: 15_000, max_running: 64, max_running_per_organization: 64, ..quick() };
    let world = World::with(db, config, None).await;
    let mut dice = Dice(seed);
    let mut ended = [0_usize; 2];
    for wave in 0..OPERATIONS / WAVE {
        for (step, _) in DIAMOND {
            let takes = (0..WAVE).map(|_| Behaviour::Take(Duration::from_micros(dice.roll(4_000))));
            world.driver.script(CallKind::Apply, step, takes.collect::<Vec<_>>());
            let takes = (0..WAVE).map(|_| Behaviour::Take(Duration::from_micros(dice.roll(8_000))));
            world.driver.script(CallKind::Destroy, step, takes.collect::<Vec<_>>());
        }
        let cancels = (0..WAVE).map(|number| {
            let (world, after) = (&world, dice.roll(12));
            async move {
                let new = new_operation(elsewhere(graph(&DIAMOND), "acme", wave * WAVE + number));
                let (id, caller) = (new.id, by_alice(CANCEL));
                let mut changes = world.engine.changes();
                patiently(|| world.db.accept_unscoped(new.clone())).await;
                world.engine.wake();
                world.happened(&mut changes, id, after).await;
                patiently(|| world.db.cancel_unscoped(id, &caller)).await;
                world.engine.stop_calls(id);
                world.engine.wake();
                // Impatient people do it twice.
                patiently(|| world.db.cancel_unscoped(id, &caller)).await;
                world.engine.stop_calls(id);
                (id, after)
            }
        });
        let begun = futures::future::join_all(cancels).await;
        for (id, after) in begun {
            let view = world.ended(id).await;
            let live = world.driver.live();
            let left = live.iter().filter(|name| name.starts_with(&format!("{}/", view.op.target))).count();
            match view.op.state.as_str() {
                "SUCCEEDED" => {
                    assert_eq!(left, DIAMOND.len(), "{kind}, seed {seed}, after {after} changes");
                    ended[0] += 1;
                }
                "COMPENSATED" => {
                    let reason = view.op.error.as_ref().unwrap().reason.as_str();
                    assert_eq!(
                        (left, reason),
                        (0, "CANCELLED"),
                        "{kind}, seed {seed}, after {after} changes"
                    );
                    ended[1] += 1;
                }
                state => {
                    let errors: Vec<_> = view.steps.iter().map(|step| step.error.clone()).collect();
                    panic!(
                        "{kind}, seed {seed}, after {after} changes: {state} {:?} {errors:?}",
                        shown(&view)
                    );
                }
            }
        }
    }
    assert!(ended[1] > OPERATIONS / 4, "few were caught under way: {ended:?}");
    println!("{kind}: {} done, {} undone, 0 stuck", ended[0], ended[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_operations_cancelled_at_random_moments_are_never_stuck() {
    cancelled_at_any_moment(sqlite(), 0x5eed_cafe).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_operations_cancelled_at_random_moments_are_never_stuck_on_postgres() {
    if let Some(db) = postgres().await {
        cancelled_at_any_moment(db, 0x5eed_cafe).await;
    }
}

/// What a deletion has taken away is gone, so it is cancelled as a whole before it begins, or not at all.
async fn deletions_cancelled_at_any_moment(db: TestDb, seed: u64) {
    const DELETIONS: usize = 20;
    let kind = db.kind;
    let config = Config { max_running: 64, max_running_per_organization: 64, ..quick() };
    let world = World::with(db, config, None).await;
    let mut dice = Dice(seed);
    for number in 0..DELETIONS {
        let id = world.start(elsewhere(graph(&DIAMOND), "acme", number)).await;
        assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
    }
    for (step, _) in DIAMOND {
        let takes = (0..DELETIONS).map(|_| Behaviour::Take(Duration::from_micros(dice.roll(20_000))));
        world.driver.script(CallKind::Destroy, step, takes.collect::<Vec<_>>());
    }
    let cancels = (0..DELETIONS).map(|number| {
        let (world, after) = (&world, dice.roll(6));
        async move {
            let (mut new, caller) =
                (new_operation(teardown_of(world, "acme", number).await), by_alice(CANCEL));
            let id = new.id;
            // Some before anything can have begun, some when something surely has.
            let (never, surely) = (number < DELETIONS / 4, number >= DELETIONS * 3 / 4);
            if never {
                new.admission = Admission::AskPeople;
            }
            let mut changes = world.engine.changes();
            patiently(|| world.db.accept_unscoped(new.clone())).await;
            world.engine.wake();
            if surely {
                wait_for("a first step", LIMIT, async || {
                    let view = world.view(id).await;
                    if view.steps.iter().any(|step| step.attempt > 0) { Ok(()) } else { Err(shown(&view)) }
                })
                .await;
            } else if !never {
                world.happened(&mut changes, id, after).await;
            }
            let answer = patiently(|| async {
                match world.db.cancel_unscoped(id, &caller).await {
                    Err(Error::Begun { operation }) => Ok(Err(operation)),
                    other => other.map(Ok),
                }
            })
            .await;
            if answer.is_ok() {
                world.engine.stop_calls(id);
            }
            world.engine.wake();
            (number, id, answer)
        }
    });
    let mut ended = [0_usize; 2];
    for (number, id, answer) in futures::future::join_all(cancels).await {
        let view = world.ended(id).await;
        let of = format!("organizations/acme/projects/p{number}/");
        let left = world.driver.live().iter().filter(|name| name.starts_with(&of)).count();
        let shown = format!("{kind}, seed {seed}: {answer:?} {:?} {:?}", view.op.error, shown(&view));
        match view.op.state.as_str() {
            // Either it was too late, and the caller was told so, or it had ended already.
            "SUCCEEDED" => {
                let late = answer == Err(view.op.name.clone());
                let over = answer == Ok(OperationState::Succeeded);
                assert!(late || over, "{shown}");
                assert_eq!((left, view.op.cancel_requested), (0, false), "{shown}");
                ended[0] += 1;
            }
            "COMPENSATED" => {
                assert!(answer.is_ok(), "{shown}");
                assert_eq!(left, DIAMOND.len(), "{shown}");
                ended[1] += 1;
            }
            _ => panic!("{shown}"),
        }
    }
    println!("{kind}: {} deleted, {} cancelled before they began", ended[0], ended[1]);
    assert!(ended.iter().all(|ended| *ended >= DELETIONS / 4), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_cancelled_before_it_begins_or_goes_on() {
    both(|db| deletions_cancelled_at_any_moment(db, 0xdead_beef)).await;
}

#[tokio::test]
async fn a_cancel_of_a_deletion_under_way_is_refused() {
    both(|db| async {
        let world = World::new(db).await;
        world.ended(world.start(graph(&DIAMOND)).await).await;
        let new = new_operation(teardown_plan(&world).await);
        let waiting = new.id;
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
        world.driver.script(CallKind::Destroy, "e", [Behaviour::Gate(gate.clone())]);
        world.db.accept_unscoped(new).await.unwrap();
        world.engine.wake();
        let mut changes = world.engine.changes();
        while !world
            .view(waiting)
            .await
            .steps
            .iter()
            .any(|step| step.name == "e" && step.state.as_str() == "RUNNING")
        {
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
        }
        let refused = world.db.cancel_unscoped(waiting, &by_alice(CANCEL)).await;
        assert!(
            matches!(&refused, Err(Error::Begun { operation }) if operation.ends_with(&waiting.to_string())),
            "{refused:?}"
        );
        gate.add_permits(1);
        let view = world.ended(waiting).await;
        assert_eq!(
            (view.op.state.as_str(), view.op.cancel_requested),
            ("SUCCEEDED", false),
            "{:?}",
            shown(&view)
        );
        assert_eq!(world.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn an_undo_that_answers_cancelled_is_tried_again() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.fail("d");
        // More often than an undo has attempts.
        let refuse = vec![Behaviour::Refuse(FailureCode::Cancelled); 8];
        world.driver.script(CallKind::Destroy, "b", refuse);
        let view = world.ended(world.start(graph(&DIAMOND)).await).await;
        assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
        assert_eq!(world.driver.live(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn what_an_earlier_attempt_left_is_undone_when_the_next_is_cancelled() {
    let config = Config { backoff_ms: 60_000, max_backoff_ms: 60_000, ..quick() };
    let world = World::with(sqlite(), config, None).await;
    // Half made, nobody knows, and then a long pause in which the operation is cancelled.
    world.driver.script(CallKind::Apply, "a", [Behaviour::Unknown { effect: true }]);
    world.driver.script(CallKind::Observe, "a", vec![Behaviour::Unknown { effect: false }; 50]);
    let id = world.start(graph(&DIAMOND[..1])).await;
    let mut changes = world.engine.changes();
    while !world.view(id).await.steps.iter().any(|step| step.waits > 0) {
        let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
    }
    world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
    world.engine.wake();
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

#[tokio::test]
async fn cancel_stops_what_runs_and_undoes_what_was_made() {
    both(|db| async {
        let world = World::new(db).await;
        world.driver.script(CallKind::Apply, "d", [Behaviour::UntilCancelled]);
        let id = world.start(graph(&DIAMOND)).await;
        let mut changes = world.engine.changes();
        while !world
            .view(id)
            .await
            .steps
            .iter()
            .any(|step| step.name == "d" && step.state.as_str() == "RUNNING")
        {
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
        }
        world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
        world.engine.stop_calls(id);
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
        assert_eq!(view.op.error.as_ref().unwrap().reason.as_str(), "CANCELLED");
        assert_eq!(world.driver.live(), Vec::<String>::new());
        // Once more changes nothing.
        world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
        assert_eq!(world.view(id).await.op.state.as_str(), "COMPENSATED");
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_driver_that_does_not_listen_is_dropped_and_looked_after() {
    let world = World::new(sqlite()).await;
    // A gate listens to cancel, so the deaf one is a driver whose cancel is answered after the grace.
    world.driver.script(CallKind::Apply, "a", [Behaviour::Unknown { effect: true }]);
    world.driver.script(CallKind::Observe, "a", vec![Behaviour::Unknown { effect: false }; 500]);
    let id = world.start(graph(&DIAMOND[..1])).await;
    world.wait(id, &["RUNNING"]).await;
    world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
    world.engine.wake();
    assert_eq!(world.ended(id).await.op.state.as_str(), "COMPENSATED");
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

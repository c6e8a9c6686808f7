//! What was under way when the database was set back: an operator goes on with it, or gives it up, and neither takes down
//! what is there by then.

use std::sync::Arc;
use std::time::Duration;

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::store::OperationView;
use pavior_provisioning::store::entity::{project, resource as row};
use pavior_testkit::db::both;
use sea_orm::EntityTrait;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(60);

async fn take_up(world: &World, id: Uuid) -> OperationView {
    world.db.retry_unscoped(id, &by_alice(RETRY), Some(TakeUp::Rest), 60_000_000, None).await.unwrap();
    world.engine.wake();
    world.ended(id).await
}

/// Parks an operation while a call of this kind for a step is under way; the call comes to its end and is not believed.
async fn parked(world: &World, kind: CallKind, step: &str, start: impl Future<Output = Uuid>) -> Uuid {
    let gate = Arc::new(Semaphore::new(0));
    world.driver.script(kind, step, [Behaviour::Gate(gate.clone())]);
    let id = start.await;
    let running = format!("{step} RUNNING");
    pavior_testkit::wait_for("the call to be under way", LIMIT, async || {
        let journal = world.journal(id).await;
        if journal.contains(&running) { Ok(()) } else { Err(journal) }
    })
    .await;
    assert_eq!(world.db.parkable_unscoped().await.unwrap().len(), 1);
    assert!(world.db.park_unscoped(id, &restorer()).await.unwrap());
    let view = world.view(id).await;
    assert_eq!(view.op.state.as_str(), "STUCK", "{:?}", shown(&view));
    assert_eq!(view.op.error.unwrap().code.as_str(), "RESTORED");
    assert_eq!(world.db.parkable_unscoped().await.unwrap(), [], "once is enough");
    let there = world.driver.live().contains(&resource(step));
    gate.add_permits(1);
    pavior_testkit::wait_for("the call to end", LIMIT, async || {
        let live = world.driver.live();
        if live.contains(&resource(step)) != there { Ok(()) } else { Err(live) }
    })
    .await;
    assert_eq!(world.view(id).await.op.state.as_str(), "STUCK");
    id
}

/// The operation and the claimant that drivers were last told for a step.
fn told(world: &World, step: &str) -> [String; 2] {
    let call = world.driver.calls().into_iter().rev().find(|call| call.step == step).unwrap();
    [call.operation, call.claimant]
}

#[tokio::test]
async fn it_goes_forward_and_undoes_nothing() {
    both(|db| async {
        let world = World::new(db).await;
        let id = parked(&world, CallKind::Apply, "b", world.start(graph(&DIAMOND))).await;
        let there = world.driver.live();
        let refusal = Behaviour::Fail { retryable: false, message: "not now".to_owned() };
        world.driver.script(CallKind::Apply, "d", [refusal]);
        let view = take_up(&world, id).await;
        assert_eq!(view.op.state.as_str(), "STUCK", "{:?}", shown(&view));
        let live = world.driver.live();
        assert!(there.iter().all(|thing| live.contains(thing)), "{there:?} {live:?}");
        // Drivers may have seen later operations that are lost here: for them this is a later one.
        let parked = view.op.parked.unwrap();
        assert_ne!(parked, id);
        assert_eq!(told(&world, "d"), [id, parked].map(|id| id.to_string()));
        let view = take_up(&world, id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", view.op.error, shown(&view));
        assert_eq!((world.driver.live().len(), world.driver.effects()), (5, 5), "what is there is adopted");
    })
    .await;
}

#[tokio::test]
async fn it_is_given_up_and_everything_stays_as_it_is() {
    both(|db| async {
        let world = World::new(db).await;
        let id = parked(&world, CallKind::Apply, "b", world.start(graph(&DIAMOND))).await;
        let there = world.driver.live();
        for _ in 0..2 {
            let state = world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
            assert_eq!(state.as_str(), "COMPENSATED");
        }
        let view = world.view(id).await;
        let error = view.op.error.clone().unwrap();
        assert_eq!(error.reason.as_str(), "CANCELLED");
        assert!(error.message.contains("what drivers have of it stays as it is"), "{}", error.message);
        assert_eq!(world.driver.live(), there);
        // Nothing is declared that nobody knows to be there: what there is, is nobody's.
        let reads = world.db.store().read();
        assert_eq!(project::Entity::find().all(reads).await.unwrap(), []);
        assert_eq!(row::Entity::find().all(reads).await.unwrap(), []);
    })
    .await;
}

/// What a deletion takes down may be another's by now: the driver is to be able to tell.
#[tokio::test]
async fn a_deletion_stays_the_operation_that_it_was() {
    both(|db| async {
        let world = World::new(db).await;
        let made = world.start(graph(&[("a", &[]), ("b", &["a"])])).await;
        assert_eq!(world.ended(made).await.op.state.as_str(), "SUCCEEDED");
        let plan = teardown_plan(&world).await;
        let id = parked(&world, CallKind::Destroy, "b", world.start(plan)).await;
        let view = take_up(&world, id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", view.op.error, shown(&view));
        assert_eq!((told(&world, "a"), world.driver.live().len()), ([id, id].map(|id| id.to_string()), 0));
    })
    .await;
}

/// Steps that were not wanted any more, since another had failed, while a call was under way.
#[tokio::test]
async fn what_had_failed_goes_forward_with_all_of_its_steps() {
    both(|db| async {
        let world = World::new(db).await;
        let gate = Arc::new(Semaphore::new(0));
        world.driver.script(CallKind::Apply, "a", [Behaviour::Gate(gate.clone())]);
        let refusal = Behaviour::Fail { retryable: false, message: "not now".to_owned() };
        world.driver.script(CallKind::Apply, "e", [refusal]);
        let id = world.start(graph(&DIAMOND)).await;
        pavior_testkit::wait_for("the rest to be skipped", LIMIT, async || {
            let view = world.view(id).await;
            let skipped = shown(&view).iter().filter(|step| step.contains("SKIPPED")).count();
            if (view.op.state.as_str(), skipped) == ("FAILING", 3) { Ok(()) } else { Err(shown(&view)) }
        })
        .await;
        assert!(world.db.park_unscoped(id, &restorer()).await.unwrap());
        gate.add_permits(1);
        let view = take_up(&world, id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", view.op.error, shown(&view));
        assert_eq!(world.driver.live().len(), 5);
    })
    .await;
}

/// It may have been taken up in the life that is lost, and what came after that is in its way.
#[tokio::test]
async fn what_was_stuck_in_the_copy_can_be_given_up() {
    both(|db| async {
        let world = World::new(db).await;
        let refusal = || Behaviour::Fail { retryable: false, message: "no".to_owned() };
        world.driver.script(CallKind::Apply, "b", [refusal()]);
        world.driver.script(CallKind::Destroy, "a", [refusal()]);
        let id = world.start(graph(&[("a", &[]), ("b", &["a"])])).await;
        assert_eq!(world.ended(id).await.op.state.as_str(), "STUCK");
        let caller = by_alice(CANCEL);
        let refused = world.db.cancel_unscoped(id, &caller).await;
        assert!(matches!(refused, Err(pavior_provisioning::Error::Stuck { .. })), "{refused:?}");
        assert_eq!(world.db.parkable_unscoped().await.unwrap().len(), 1);
        assert!(world.db.park_unscoped(id, &restorer()).await.unwrap());
        assert_eq!(world.db.parkable_unscoped().await.unwrap(), []);
        let view = world.view(id).await;
        assert_eq!((view.op.state.as_str(), view.op.parked.is_some()), ("STUCK", true));
        assert_eq!(world.db.cancel_unscoped(id, &caller).await.unwrap().as_str(), "COMPENSATED");
        assert_eq!(world.driver.live(), [resource("a")]);
        assert_eq!(row::Entity::find().all(world.db.store().read()).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_undo_goes_on_and_ends_as_what_went_wrong_first() {
    both(|db| async {
        let world = World::new(db).await;
        let gate = Arc::new(Semaphore::new(0));
        let refusal = Behaviour::Fail { retryable: false, message: "no".to_owned() };
        world.driver.script(CallKind::Apply, "b", [refusal]);
        world.driver.script(CallKind::Destroy, "a", [Behaviour::Gate(gate.clone())]);
        let id = world.start(graph(&[("a", &[]), ("b", &["a"])])).await;
        pavior_testkit::wait_for("the undo to be under way", LIMIT, async || {
            let view = world.view(id).await;
            if shown(&view).iter().any(|step| step.contains("UNDOING")) { Ok(()) } else { Err(shown(&view)) }
        })
        .await;
        let first = world.view(id).await.op.error.unwrap();
        assert!(world.db.park_unscoped(id, &restorer()).await.unwrap());
        gate.add_permits(1);
        let error = world.view(id).await.op.error.unwrap();
        assert_eq!((error.reason, error.code, &error.step), (first.reason, first.code, &first.step));
        assert!(error.message.contains("while this was being undone"), "{}", error.message);
        assert!(error.message.ends_with(&format!("; before that: {}", first.message)), "{}", error.message);
        let view = take_up(&world, id).await;
        assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?} {:?}", view.op.error, shown(&view));
        assert_eq!(view.op.error.unwrap(), first);
        assert_eq!(world.driver.live().len(), 0);
    })
    .await;
}

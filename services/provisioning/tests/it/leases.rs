//! Leases while somebody sets the machine's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pavior_core::clock::{Clock as _, ManualClock, SystemClock};
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::Config;
use pavior_provisioning::engine::FaultPoint;
use pavior_provisioning::store::entity::step;
use pavior_store::outbox;
use pavior_testkit::db::{TestDb, both};
use pavior_testkit::wait_for;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::harness::*;

const HOUR: time::Duration = time::Duration::HOUR;
const LEASE_MS: u64 = 3_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that stands where it is set.
fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(SystemClock.now()))
}

/// The fence of the only step, and until when it is held.
async fn claim(world: &World, id: Uuid) -> (i64, i64) {
    let step = step::Entity::find().filter(step::Column::Operation.eq(id));
    let step = step.one(world.db.store().read()).await.unwrap().unwrap();
    (step.fence, step.lease_until)
}

/// Nobody delivers here, and changes are refused while a record is old.
async fn delivered(world: &World) {
    let rows = outbox::pending(world.db.store(), "provisioning", 100, usize::MAX).await.unwrap();
    let last = rows.last().unwrap();
    outbox::delivered(world.db.store(), "provisioning", last.epoch, last.seq).await.unwrap();
}

async fn a_live_holder_keeps_its_step(db: TestDb, jump: time::Duration) {
    let clock = clock();
    let config = Config { lease_ms: LEASE_MS, ..quick() };
    let world = World::at(db, clock.clone(), config, None).await;
    let gate = Arc::new(Semaphore::new(0));
    world.driver.script(CallKind::Apply, "a", [Behaviour::Gate(gate.clone())]);
    let id = world.start(graph(&[("a", &[])])).await;
    let begun = || world.driver.calls().iter().filter(|call| call.kind == CallKind::Apply).count();
    wait_for("the call", PATIENCE, async || if begun() == 1 { Ok(()) } else { Err(begun()) }).await;
    let (fence, first) = claim(&world, id).await;
    delivered(&world).await;
    clock.set(clock.now() + jump);
    // Through renewals under the new time, with the engine looking for ended leases all the while.
    wait_for("renewals", PATIENCE, async || {
        world.engine.wake();
        let lapsed = world.db.lapsed_unscoped(10).await.unwrap();
        assert_eq!(lapsed, Vec::<Uuid>::new(), "a claim that is held counts as ended");
        let (now, until) = claim(&world, id).await;
        assert_eq!(now, fence, "the step was taken from its holder");
        if until - first > i64::try_from(LEASE_MS).unwrap() * 1_000 { Ok(()) } else { Err(until - first) }
    })
    .await;
    gate.add_permits(1);
    let view = world.ended(id).await;
    assert_eq!((view.op.state.as_str(), begun()), ("SUCCEEDED", 1), "{:?}", shown(&view));
}

#[tokio::test]
async fn a_clock_that_is_set_an_hour_forwards_takes_no_step_from_its_holder() {
    both(|db| a_live_holder_keeps_its_step(db, HOUR)).await;
}

#[tokio::test]
async fn a_clock_that_is_set_an_hour_back_takes_no_step_from_its_holder() {
    both(|db| a_live_holder_keeps_its_step(db, -HOUR)).await;
}

#[tokio::test]
async fn a_clock_that_is_set_an_hour_back_leaves_no_step_held_by_a_dead_worker() {
    both(|db| async {
        let (clock, once) = (clock(), AtomicBool::new(true));
        let faults = Arc::new(move |at: FaultPoint, _: &str| {
            at == FaultPoint::AfterIntent && once.swap(false, Ordering::SeqCst)
        });
        let mut world = World::at(db, clock.clone(), quick(), Some(faults)).await;
        let id = world.start(graph(&[("a", &[])])).await;
        world.died().await;
        clock.set(clock.now() - HOUR);
        let world = world.restarted().await;
        let view = world.ended(id).await;
        assert_eq!((view.op.state.as_str(), world.driver.effects()), ("SUCCEEDED", 1), "{:?}", shown(&view));
    })
    .await;
}

//! The worker dies at every point of every step, and a new one carries on: one live resource, no orphan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::engine::FaultPoint;
use pavior_testkit::db::{TestDb, postgres, sqlite};

use crate::harness::*;

const POINTS: [FaultPoint; 4] =
    [FaultPoint::AfterIntent, FaultPoint::AfterEffect, FaultPoint::BeforeCommit, FaultPoint::AfterCommit];

async fn dies_once(db: TestDb, point: FaultPoint, step: &'static str, fail: Option<&str>) -> World {
    let fired = Arc::new(AtomicBool::new(false));
    let faults = Arc::new(move |at: FaultPoint, name: &str| {
        at == point && name == step && !fired.swap(true, Ordering::SeqCst)
    });
    let mut world = World::with(db, quick(), Some(faults)).await;
    if let Some(node) = fail {
        world.driver.script(
            CallKind::Apply,
            node,
            [Behaviour::Fail { retryable: false, message: "broke".into() }],
        );
    }
    world.start(graph(&DIAMOND)).await;
    world.died().await;
    world.restarted().await
}

async fn only_operation(world: &World) -> uuid::Uuid {
    // The one operation of the world is found through its steps.
    let outbox =
        pavior_store::outbox::pending(world.db.store(), "provisioning", 1, usize::MAX).await.unwrap();
    let name = outbox[0].event.change.as_ref().unwrap().after.as_ref().unwrap()["operation"]
        .as_str()
        .unwrap()
        .to_owned();
    name.rsplit('/').next().unwrap().parse().unwrap()
}

async fn survives(db: TestDb, point: FaultPoint, step: &'static str) {
    let world = dies_once(db, point, step, None).await;
    let id = only_operation(&world).await;
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{point:?} of {step}: {:?}", shown(&view));
    let live: Vec<String> = DIAMOND.iter().map(|(id, _)| resource(id)).collect();
    assert_eq!((world.driver.live(), world.driver.effects()), (live, 5), "{point:?} of {step}");
    world.journal(id).await;
}

async fn undo_survives(db: TestDb, point: FaultPoint, step: &'static str) {
    // `e` runs beside; the death is at the undo of `step`, which comes second to its do.
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let faults = Arc::new(move |at: FaultPoint, name: &str| {
        at == point && name == step && seen.fetch_add(1, Ordering::SeqCst) == 1
    });
    let mut world = World::with(db, quick(), Some(faults)).await;
    world.driver.fail("d");
    let id = world.start(graph(&DIAMOND)).await;
    world.died().await;
    let world = world.restarted().await;
    let view = world.ended(id).await;
    assert_eq!(view.op.state.as_str(), "COMPENSATED", "{point:?} of {step}: {:?}", shown(&view));
    assert_eq!(world.driver.live(), Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_dies_at_any_point_of_a_step_leaves_exactly_one_resource() {
    for point in POINTS {
        for (step, _) in DIAMOND {
            survives(sqlite(), point, step).await;
        }
    }
    survives(sqlite(), FaultPoint::BeforeIntent, "").await;
}

#[tokio::test]
async fn on_postgresql_the_lease_frees_the_step() {
    for point in POINTS {
        if let Some(db) = postgres().await {
            survives(db, point, "b").await;
        }
    }
}

#[tokio::test]
async fn a_worker_that_dies_while_undoing_leaves_nothing() {
    for point in POINTS {
        for step in ["a", "b"] {
            undo_survives(sqlite(), point, step).await;
        }
    }
}

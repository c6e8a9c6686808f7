//! What is held is worked on, and what is worked on is held: slots before claims, leases from the claim to its record.

use std::sync::Arc;
use std::time::Duration;

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::Config;
use pavior_provisioning::store::SERVICE;
use pavior_provisioning::store::entity::step;
use pavior_store::StoreError;
use pavior_store::outbox::{Delivery, Limits, OutboxRow};
use pavior_testkit::db::{both, sqlite};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(60);

/// A root and six steps that follow from it at once, each waiting for its gate.
fn fan(world: &World, prefix: &str, root: &Arc<Semaphore>, leaves: &Arc<Semaphore>) -> Vec<String> {
    let names: Vec<String> = (0..7).map(|number| format!("{prefix}{number}")).collect();
    for (index, name) in names.iter().enumerate() {
        let gate = if index == 0 { root } else { leaves };
        world.driver.script(CallKind::Apply, name, [Behaviour::Gate(gate.clone())]);
    }
    names
}

async fn held(world: &World, ids: &[Uuid]) -> usize {
    let mut held = 0;
    for id in ids {
        let view = world.view(*id).await;
        held += view.steps.iter().filter(|step| step.state.held()).count();
    }
    held
}

/// The same of a whole organization, at one moment.
async fn held_by(world: &World, organization: &str) -> usize {
    let rows = step::Entity::find().filter(step::Column::Organization.eq(organization));
    let rows = rows.all(world.db.store().read()).await.unwrap();
    rows.iter().filter(|step| step.state.held()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_claimed_that_has_no_slot() {
    both(|db| async {
        let config = Config { max_running: 4, poll_ms: 20, ..quick() };
        let world = World::with(db, config, None).await;
        let (root, leaves) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let mut ids = Vec::new();
        for (number, prefix) in ["x", "y"].into_iter().enumerate() {
            let names = fan(&world, prefix, &root, &leaves);
            let first = [names[0].as_str()];
            let nodes: Vec<(&str, &[&str])> = names
                .iter()
                .enumerate()
                .map(|(index, name)| (name.as_str(), if index == 0 { &[][..] } else { &first[..] }))
                .collect();
            ids.push(world.start(elsewhere(graph(&nodes), "acme", number)).await);
        }
        pavior_testkit::wait_for("both roots to run", LIMIT, async || match held(&world, &ids).await {
            2 => Ok(()),
            held => Err(held),
        })
        .await;
        // Two complete at once, with two slots free.
        root.add_permits(2);
        let made = async || world.driver.live().len();
        pavior_testkit::wait_for("both roots to be made", LIMIT, async || match made().await {
            2 => Ok(()),
            made => Err(made),
        })
        .await;
        pavior_testkit::wait_for("all slots to be taken", LIMIT, async || match held(&world, &ids).await {
            held if held >= 4 => Ok(()),
            held => Err(held),
        })
        .await;
        for _ in 0..20 {
            world.engine.wake();
            tokio::task::yield_now().await;
            let held = held_by(&world, "acme").await;
            assert!(held <= 4, "{held}");
        }
        pavior_testkit::wait_for("all slots to be in use", LIMIT, async || {
            match held_by(&world, "acme").await {
                4 => Ok(()),
                held => Err(held),
            }
        })
        .await;
        assert_eq!(world.engine.free_for(), None);
        leaves.add_permits(12);
        for id in ids {
            assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_claim_cannot_be_renewed_is_dropped_before_the_claim_ends() {
    both(|db| async {
        let world = World::new(db).await;
        let gate = Arc::new(Semaphore::new(0));
        world.driver.script(CallKind::Apply, "a", [Behaviour::Gate(gate.clone())]);
        let id = world.start(graph(&DIAMOND[..1])).await;
        pavior_testkit::wait_for("the call", LIMIT, async || match Arc::strong_count(&gate) {
            2 if !world.driver.calls().is_empty() => Ok(()),
            count => Err(count),
        })
        .await;
        // Whoever writes to the step waits: on SQLite whoever writes at all.
        let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let stall = tokio::spawn({
            let (store, begun, release) = (world.db.store().clone(), begun.clone(), release.clone());
            async move {
                let stalled = store.upkeep::<(), StoreError, _>("a test", move |tx| {
                    let (begun, release) = (begun.clone(), release.clone());
                    Box::pin(async move {
                        tx.execute_unprepared("UPDATE step SET attempt = attempt").await?;
                        begun.notify_one();
                        release.notified().await;
                        Ok(())
                    })
                });
                stalled.await.unwrap();
            }
        });
        begun.notified().await;
        let until = tokio::time::Instant::now() + Duration::from_millis(quick().lease_ms);
        pavior_testkit::wait_for("the call to be dropped", LIMIT, async || match Arc::strong_count(&gate) {
            1 => Ok(()),
            count => Err(count),
        })
        .await;
        assert!(tokio::time::Instant::now() < until, "somebody else may have had it");
        assert_eq!(world.driver.effects(), 0);
        release.notify_one();
        stall.await.unwrap();
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", shown(&view), view.op.error);
        assert_eq!(world.driver.effects(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_step_without_room_waits_for_its_turn_and_not_for_a_worker() {
    both(|db| async {
        let config = Config { max_running_per_operation: 1, ..quick() };
        let world = World::with(db, config, None).await;
        let gate = Arc::new(Semaphore::new(0));
        for name in ["a", "e"] {
            world.driver.script(CallKind::Apply, name, [Behaviour::Gate(gate.clone())]);
        }
        let id = world.start(graph(&[("a", &[]), ("e", &[])])).await;
        pavior_testkit::wait_for("one to run", LIMIT, async || match held(&world, &[id]).await {
            1 => Ok(()),
            held => Err(held),
        })
        .await;
        let oldest = async |limits| world.db.oldest_claimable_unscoped(&[], limits).await.unwrap();
        assert!(oldest(None).await.is_some());
        assert_eq!(oldest(Some((1, 64))).await, None, "its operation has no room");
        assert_eq!(oldest(Some((8, 1))).await, None, "its organization has none");
        assert!(oldest(Some((8, 64))).await.is_some(), "nobody takes it");
        gate.add_permits(2);
        assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_carried_out_before_the_histories_are_known_to_fit() {
    let world = World::new(sqlite()).await;
    let gate = Arc::new(Semaphore::new(0));
    world.driver.script(CallKind::Apply, "a", [Behaviour::Gate(gate.clone())]);
    let id = world.start(graph(&DIAMOND[..2])).await;
    pavior_testkit::wait_for("the call", LIMIT, async || match world.driver.calls().len() {
        1 => Ok(()),
        calls => Err(calls),
    })
    .await;
    // The log is found to know more than this database. What follows from a call that was under way does not begin.
    let apart = pavior_store::outbox::Difference::OlderEpoch { epoch: None, recorded: 7 }.of("provisioning");
    world.db.history().set(Some(apart));
    assert!(!world.db.history().fits());
    gate.add_permits(1);
    pavior_testkit::wait_for("the call to end", LIMIT, async || match world.driver.live().len() {
        1 => Ok(()),
        live => Err(live),
    })
    .await;
    for _ in 0..20 {
        world.engine.wake();
        tokio::task::yield_now().await;
    }
    assert_eq!(world.driver.calls().len(), 1);
    world.db.history().set(None);
    world.engine.wake();
    assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_has_no_more_under_way_than_it_may() {
    both(|db| async {
        let config = Config { max_running: 32, max_running_per_organization: 3, poll_ms: 20, ..quick() };
        let world = World::with(db, config, None).await;
        let (root, leaves) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let mut ids = Vec::new();
        for (number, prefix) in ["x", "y"].into_iter().enumerate() {
            let names = fan(&world, prefix, &root, &leaves);
            let first = [names[0].as_str()];
            let nodes: Vec<(&str, &[&str])> = names
                .iter()
                .enumerate()
                .map(|(index, name)| (name.as_str(), if index == 0 { &[][..] } else { &first[..] }))
                .collect();
            ids.push(world.start(elsewhere(graph(&nodes), "acme", number)).await);
        }
        let beta = world.start(elsewhere(graph(&DIAMOND), "beta", 0)).await;
        // What follows from both roots is more than four times as much as may be under way.
        root.add_permits(2);
        pavior_testkit::wait_for("both roots to be made", LIMIT, async || {
            let live = world.driver.live();
            let acme = live.iter().filter(|name| name.starts_with("organizations/acme/")).count();
            if acme == 2 { Ok(()) } else { Err(live) }
        })
        .await;
        for made in 0..12 {
            for _ in 0..5 {
                world.engine.wake();
                tokio::task::yield_now().await;
                let held = held_by(&world, "acme").await;
                assert!(held <= 3, "{held}");
            }
            let room = 3.min(12 - made);
            pavior_testkit::wait_for("its places to be taken", LIMIT, async || {
                match held_by(&world, "acme").await {
                    held if held == room => Ok(()),
                    held => Err(held),
                }
            })
            .await;
            leaves.add_permits(1);
            pavior_testkit::wait_for("one more to be made", LIMIT, async || {
                let live = world.driver.live();
                let acme = live.iter().filter(|name| name.starts_with("organizations/acme/")).count();
                if acme == 3 + made { Ok(()) } else { Err(live) }
            })
            .await;
        }
        for id in ids.into_iter().chain([beta]) {
            assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
        }
    })
    .await;
}

#[tokio::test]
async fn an_orderly_stop_ends_what_is_under_way_and_begins_nothing() {
    both(|db| async {
        let mut world = World::new(db).await;
        let gate = Arc::new(Semaphore::new(0));
        world.driver.script(CallKind::Apply, "a", [Behaviour::Gate(gate.clone())]);
        let id = world.start(graph(&[("a", &[]), ("b", &["a"])])).await;
        pavior_testkit::wait_for("the call", LIMIT, async || match world.driver.calls().len() {
            1 => Ok(()),
            calls => Err(calls),
        })
        .await;
        let stopping = world.stop();
        gate.add_permits(1);
        stopping.await.unwrap();
        let view = world.view(id).await;
        assert_eq!(shown(&view), ["a DONE", "b READY"]);
        assert_eq!(world.driver.calls().len(), 1);
        let world = world.restarted().await;
        assert_eq!(world.ended(id).await.op.state.as_str(), "SUCCEEDED");
    })
    .await;
}

#[tokio::test]
async fn what_was_done_is_recorded_in_a_full_outbox_and_nothing_more_begins() {
    both(|db| async {
        let world = World::bounded(db, Limits { max_rows: 2, ..Limits::default() }).await;
        let gate = Arc::new(Semaphore::new(0));
        world.driver.script(CallKind::Apply, "a", [Behaviour::Gate(gate.clone())]);
        let first = world.start(graph(&[("a", &[])])).await;
        pavior_testkit::wait_for("the call", LIMIT, async || match held(&world, &[first]).await {
            1 => Ok(()),
            held => Err(held),
        })
        .await;
        let second = world.start(elsewhere(graph(&[("b", &[])]), "acme", 2)).await;
        gate.add_permits(1);
        assert_eq!(world.ended(first).await.op.state.as_str(), "SUCCEEDED", "its end is recorded");
        let rows = async || pavior_store::outbox::waiting(world.db.store(), SERVICE).await.unwrap().len();
        assert_eq!(rows().await, 4);
        for _ in 0..20 {
            world.engine.wake();
            tokio::task::yield_now().await;
        }
        assert_eq!((world.driver.effects(), held(&world, &[second]).await), (1, 0));
        let relay = pavior_store::outbox::Relay::new(world.db.store().clone(), SERVICE, Limits::default());
        let acknowledged = |rows: &[OutboxRow]| rows.last().map(|row| row.seq);
        let delivered = relay.drain(|rows| {
            Box::pin(async move { Delivery { acknowledged: acknowledged(&rows), error: None } })
        });
        // What begins as soon as there is room may have been delivered as well.
        let delivered = delivered.await.unwrap();
        assert!([4, 6].contains(&delivered), "{delivered}");
        world.engine.wake();
        assert_eq!(world.ended(second).await.op.state.as_str(), "SUCCEEDED");
    })
    .await;
}

//! A replacement that ends in either of its halves leaves what stood before, and never more or less than that.

use std::sync::Arc;
use std::time::Duration;

use pavior_core::clock::{Clock as _, ManualClock, SystemClock};
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_driver::{Driver as _, FailureCode, ListRequest};
use pavior_provisioning::domain::plan::{Action, Kind, Plan};
use pavior_provisioning::domain::resource::Resource;
use pavior_testkit::db::{TestDb, both};
use pavior_testkit::wait_for;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::harness::*;

const LIMIT: Duration = Duration::from_secs(60);

/// One way in which a call of a half can go.
#[derive(Debug, Clone)]
struct Way {
    half: CallKind,
    calls: Vec<Behaviour>,
    /// Somebody cancels once the call was made.
    cancelled: bool,
    /// The former thing is taken down by it.
    removes: bool,
}

/// Every way, in each half.
fn ways() -> Vec<Way> {
    let fail = |retryable| Behaviour::Fail { retryable, message: "it broke".into() };
    let unknown = |effect| Behaviour::Unknown { effect };
    // As often as a step is tried.
    let tries = 4;
    let common = [
        (vec![fail(false)], false),
        (vec![fail(true); tries], false),
        (vec![unknown(false); tries], false),
        (vec![Behaviour::Refuse(FailureCode::Unavailable); 30], true),
        (vec![Behaviour::Refuse(FailureCode::Conflict)], false),
        (vec![Behaviour::UntilCancelled], true),
    ];
    let mut ways = Vec::new();
    for half in [CallKind::Destroy, CallKind::Apply] {
        let removes = half == CallKind::Apply;
        let each = common.clone().into_iter();
        ways.extend(each.map(|(calls, cancelled)| Way { half, calls, cancelled, removes }));
    }
    let gone = Way { half: CallKind::Destroy, calls: vec![], cancelled: false, removes: true };
    let made = Way { half: CallKind::Apply, ..gone.clone() };
    ways.push(Way { calls: vec![unknown(true); tries], ..gone });
    ways.push(Way { calls: vec![unknown(true)], ..made.clone() });
    ways.push(Way { calls: vec![Behaviour::FailPartially { message: "half".into() }], ..made.clone() });
    // It is made, and what follows from it fails.
    ways.push(made);
    ways
}

fn replacing() -> Plan {
    plan(
        Kind::Run,
        vec![
            change("b", Action::Replace, &[], json!({"name": "b", "immutable": 2})),
            change("f", Action::Create, &["b"], json!({"name": "f"})),
        ],
    )
}

async fn row(world: &World) -> Resource {
    let rows = world.db.resources_in_scope_unscoped(PROJECT, &resource("x")).await.unwrap();
    rows.into_iter().find(|row| row.name == resource("b")).unwrap()
}

async fn identities(world: &World) -> Vec<String> {
    let listed =
        world.driver.list(ListRequest { page_size: 100, page_token: String::new() }).await.unwrap().resources;
    listed.into_iter().map(|thing| thing.identity).collect()
}

fn calls(world: &World, kind: CallKind) -> usize {
    world.driver.calls().iter().filter(|call| call.kind == kind && call.step == "b").count()
}

async fn ends_as_before(db: TestDb, way: Way) {
    let world = World::new(db).await;
    let made =
        world.start(plan(Kind::CreateProject, vec![change("b", Action::Create, &[], json!({"name": "b"}))]));
    assert_eq!(world.ended(made.await).await.op.state.as_str(), "SUCCEEDED");
    let before = row(&world).await;
    let (applies, made) = (calls(&world, CallKind::Apply), calls(&world, way.half));
    world.driver.script(way.half, "b", way.calls.clone());
    world.driver.fail("f");
    let id = world.start(replacing()).await;
    if way.cancelled {
        wait_for("the call", LIMIT, async || match calls(&world, way.half) {
            now if now > made => Ok(()),
            now => Err(now),
        })
        .await;
        world.db.cancel_unscoped(id, &by_alice(CANCEL)).await.unwrap();
        world.engine.stop_calls(id);
        world.engine.wake();
    }
    let view = world.ended(id).await;
    let told = format!("{way:?}: {:?} {:?}", view.op.error, shown(&view));
    assert_eq!(view.op.state.as_str(), "COMPENSATED", "{told}");
    let after = row(&world).await;
    // Exactly what the row says stands, made as it was before.
    assert_eq!(identities(&world).await, [after.identity.as_str()], "{told}");
    assert_eq!(world.driver.inputs_of(&resource("b")), Some(json!({"name": "b"})), "{told}");
    assert_eq!(
        (&after.inputs, &after.spec, after.state.as_str(), &after.outputs["id"]),
        (&before.inputs, &before.spec, "ACTIVE", &json!(after.identity)),
        "{told}"
    );
    let kept = (after.identity == before.identity, calls(&world, CallKind::Apply) == applies);
    assert_eq!(kept, (!way.removes, !way.removes), "{told}");
}

#[tokio::test]
async fn a_replacement_that_fails_or_is_cancelled_in_either_half_leaves_what_stood_before() {
    for way in ways() {
        both(|db| ends_as_before(db, way.clone())).await;
    }
}

async fn leaves_one_without_keys(db: TestDb, calls: Vec<Behaviour>) {
    let world = World::new(db).await;
    world.driver.forget_keys();
    let make = vec![change("b", Action::Create, &[], json!({"name": "b"}))];
    world.ended(world.start(plan(Kind::CreateProject, make)).await).await;
    world.driver.script(CallKind::Apply, "b", calls);
    world.driver.fail("f");
    let view = world.ended(world.start(replacing()).await).await;
    assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
    assert_eq!(identities(&world).await, [row(&world).await.identity]);
}

#[tokio::test]
async fn what_took_the_place_goes_when_the_driver_finds_things_by_their_names_only() {
    for calls in [vec![], vec![Behaviour::FailPartially { message: "half".into() }]] {
        both(|db| leaves_one_without_keys(db, calls.clone())).await;
    }
}

/// The second call of a step is told of the claim as it is then, not as it was when the first began.
#[tokio::test]
async fn a_call_is_told_until_when_the_claim_holds_as_of_its_own_begin() {
    both(|db| async {
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let world = World::at(db, clock.clone(), quick(), None).await;
        let make = vec![change("b", Action::Create, &[], json!({"name": "b"}))];
        world.ended(world.start(plan(Kind::CreateProject, make)).await).await;
        let gate = Arc::new(Semaphore::new(0));
        // The destroy of what stood before, and the one that undoes what took its place.
        world.driver.script(CallKind::Destroy, "b", vec![Behaviour::Gate(gate.clone()); 2]);
        world.driver.fail("f");
        let id = world.start(replacing()).await;
        for nth in 1..=2 {
            wait_for("the destroy", LIMIT, async || match calls(&world, CallKind::Destroy) {
                now if now == nth => Ok(()),
                now => Err(now),
            })
            .await;
            // It takes longer than a claim lasts.
            clock.set(clock.now() + Duration::from_millis(quick().lease_ms * 5));
            gate.add_permits(1);
            wait_for("what follows", LIMIT, async || match calls(&world, CallKind::Apply) {
                now if now == nth + 1 => Ok(()),
                now => Err(now),
            })
            .await;
            let told = world.driver.calls();
            let apply = told.iter().rfind(|call| call.kind == CallKind::Apply && call.step == "b").unwrap();
            let end = apply.lease_expire_time.unwrap();
            let lease = Duration::from_millis(quick().lease_ms);
            assert!(end > clock.now() && end <= clock.now() + lease, "{nth}: {end} at {}", clock.now());
        }
        assert_eq!(world.ended(id).await.op.state.as_str(), "COMPENSATED");
    })
    .await;
}

//! Outputs that no driver may tell.

use pavior_core::value::MAX_EXACT;
use pavior_driver::testing::{Behaviour, CallKind};
use pavior_provisioning::domain::plan::{Action, Kind};
use pavior_testkit::db::both;
use serde_json::json;

use crate::harness::*;

/// Whoever asked for such an output would be told another number.
#[tokio::test]
async fn a_number_that_would_be_rounded_is_the_drivers_mistake() {
    both(|db| async {
        let world = World::new(db).await;
        let creating = |size: i64| {
            let inputs = json!({ "sizes": [1, { "largest": size }] });
            plan(Kind::CreateProject, vec![change("a", Action::Create, &[], inputs)])
        };
        for (behaviour, attempts) in [
            (Behaviour::Succeed, 1),
            // Found by a look after the driver did not say what became of it.
            (Behaviour::Unknown { effect: true }, 2),
        ] {
            world.driver.script(CallKind::Apply, "a", [behaviour]);
            let id = world.start(creating(MAX_EXACT + 1)).await;
            let view = world.ended(id).await;
            assert_eq!(view.op.state.as_str(), "COMPENSATED", "{:?}", shown(&view));
            let error = view.op.error.unwrap();
            assert_eq!((error.code.as_str(), error.step.as_str()), ("INTERNAL", "a"));
            assert_eq!(
                error.message,
                "driver `fake` gave an output `inputs.sizes[1].largest`, which must be between -9007199254740991 and \
                 9007199254740991, because numbers of values are doubles: give a larger one as a text"
            );
            assert_eq!(view.steps[0].attempt, attempts);
            assert_eq!(world.driver.live(), Vec::<String>::new());
        }
        let id = world.start(creating(MAX_EXACT)).await;
        let view = world.ended(id).await;
        assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?} {:?}", view.op.error, shown(&view));
    })
    .await;
}

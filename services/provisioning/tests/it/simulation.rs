//! Seeded random worlds: every operation ends as the oracle says, and what lives is what is recorded.

use pavior_driver::testing::{Behaviour, CallKind};
use pavior_testkit::db::sqlite;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::harness::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[derive(Debug, Clone)]
struct Scenario {
    edges: Vec<Vec<bool>>,
    applies: Vec<Vec<u8>>,
    destroys: Vec<Vec<u8>>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let row = || prop::collection::vec(any::<bool>(), NAMES.len());
    let script = || prop::collection::vec(prop::collection::vec(0_u8..12, 0..3), NAMES.len());
    (prop::collection::vec(row(), 1..=NAMES.len()), script(), script())
        .prop_map(|(edges, applies, destroys)| Scenario { edges, applies, destroys })
}

fn behaviour(code: u8) -> Behaviour {
    let message = "so it was drawn".to_owned();
    match code {
        0 => Behaviour::Fail { retryable: false, message },
        1 | 2 => Behaviour::Fail { retryable: true, message },
        3 => Behaviour::Unknown { effect: true },
        4 => Behaviour::Unknown { effect: false },
        5 => Behaviour::FailPartially { message },
        _ => Behaviour::Succeed,
    }
}

async fn play(world: &World, scenario: &Scenario) -> Result<(), TestCaseError> {
    let count = scenario.edges.len();
    let deps: Vec<Vec<&str>> = scenario
        .edges
        .iter()
        .enumerate()
        .map(|(i, row)| (0..i).filter(|j| row[*j]).map(|j| NAMES[j]).collect())
        .collect();
    let nodes: Vec<(&str, &[&str])> =
        deps.iter().enumerate().map(|(i, deps)| (NAMES[i], deps.as_slice())).collect();
    for ((name, applies), destroys) in NAMES.iter().zip(&scenario.applies).zip(&scenario.destroys).take(count)
    {
        world.driver.script(CallKind::Apply, name, applies.iter().map(|code| behaviour(*code)));
        world.driver.script(CallKind::Destroy, name, destroys.iter().map(|code| behaviour(*code)));
    }
    let id = world.start(graph(&nodes)).await;
    let mut view = world.ended(id).await;
    for _ in 0..12 {
        if view.op.state.as_str() != "STUCK" {
            break;
        }
        world.db.retry_unscoped(id, &by_alice(RETRY), Some(TakeUp::Rest), 60_000_000, None).await.unwrap();
        world.engine.wake();
        view = world.ended(id).await;
    }
    let all: Vec<String> = (0..count).map(|i| resource(NAMES[i])).collect();
    let expected = match view.op.state.as_str() {
        "SUCCEEDED" => all,
        "COMPENSATED" => vec![],
        state => return Err(TestCaseError::fail(format!("{state}: {:?}", shown(&view)))),
    };
    prop_assert_eq!(world.driver.live(), expected, "{}: {:?}", view.op.state, shown(&view));
    world.journal(id).await;
    // What is left is taken down; scripts that were not used up may get in the way, then an operator helps.
    if view.op.state.as_str() == "SUCCEEDED" {
        let id = world.start(teardown_plan(world).await).await;
        let mut view = world.ended(id).await;
        for _ in 0..12 {
            if view.op.state.as_str() != "STUCK" {
                break;
            }
            world
                .db
                .retry_unscoped(id, &by_alice(RETRY), Some(TakeUp::Rest), 60_000_000, None)
                .await
                .unwrap();
            world.engine.wake();
            view = world.ended(id).await;
        }
        prop_assert_eq!(view.op.state.as_str(), "SUCCEEDED", "{:?}", shown(&view));
        prop_assert_eq!(world.driver.live(), Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn random_worlds_end_as_the_oracle_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[42; 32]);
    TestRunner::new_with_rng(config, rng)
        .run(&scenario(), |scenario| {
            runtime.block_on(async {
                let world = World::new(sqlite()).await;
                play(&world, &scenario).await
            })
        })
        .unwrap();
}

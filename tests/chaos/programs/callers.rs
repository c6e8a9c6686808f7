//! Callers that do not wait for the answer.

use anyhow::Result;

use super::{Load, Plan};
use crate::ledger::Ledger;
use crate::world::World;

const CALLERS: usize = 8;

/// Whoever was answered OK has a change that stands, whatever others do.
pub(super) async fn give_up(plan: Plan) -> Result<String> {
    let world = World::start(plan.backing).await?;
    let pia = world.person("pia")?;
    let ledger = Ledger::default();
    let mut random = plan.random();
    let mut seconds = 0.0;
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &pia, &format!("writer-{round}"), CALLERS);
        for n in 0..CALLERS {
            let (ledger, stop) = (ledger.clone(), load.stop.clone());
            // A connection of its own: a dropped call resets its stream, as a closed browser does.
            let (person, prefix, random) =
                (world.person("pia")?, format!("given-up-{round}-{n}"), random.fork());
            load.tasks.spawn(async move { ledger.give_up(person, prefix, random, stop).await });
        }
        tokio::time::sleep(plan.round).await;
        load.end().await?;
        seconds += plan.round.as_secs_f64();
    }
    let acknowledged = ledger.check(&pia).await?.acknowledged;
    world.end().await?;
    Ok(format!("{acknowledged} acknowledged, 0 lost, {:.0} changes/s", acknowledged as f64 / seconds))
}

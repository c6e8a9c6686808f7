//! Programs over operations: killed, cancelled, frozen.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Load, Plan, recovered};
use crate::environments::{Environments, make_project};
use crate::ledger::Ledger;
use crate::world::{ALL, World};

const WRITERS: usize = 4;
const PROJECTS: usize = 3;

/// A project for each of the callers that make environments.
async fn projects(world: &World) -> Result<Vec<String>> {
    let alice = world.person("alice")?;
    let names: Vec<String> = (0..PROJECTS).map(|n| format!("chaos-{n}")).collect();
    for name in &names {
        make_project(&alice, name).await?;
    }
    Ok(names)
}

fn churn(
    load: &mut Load,
    world: &World,
    environments: &Environments,
    projects: &[String],
    random: &mut fastrand::Rng,
) -> Result<()> {
    for project in projects {
        let (environments, person) = (environments.clone(), world.person("alice")?);
        let (project, random, stop) = (project.clone(), random.fork(), load.stop.clone());
        load.tasks.spawn(async move { environments.churn(person, project, random, stop).await });
    }
    Ok(())
}

/// `kill -9` at any moment loses nothing and does nothing twice.
pub(super) async fn kill(plan: Plan) -> Result<String> {
    let mut world = World::start(plan.backing).await?;
    let projects = projects(&world).await?;
    let (ledger, environments) = (Ledger::default(), Environments::default());
    let mut random = plan.random();
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &world.person("pia")?, &format!("killed-{round}"), WRITERS);
        churn(&mut load, &world, &environments, &projects, &mut random)?;
        tokio::time::sleep(plan.round.mul_f64(0.2 + random.f64())).await;
        // Callers see the connection break, as they would.
        load.stop.cancel();
        world.processes.kill(ALL)?;
        load.end().await?;
        world.up()?;
    }
    recovered(&world).await?;
    let checked = ledger.check(&world.person("pia")?).await?;
    let settled = environments.check(&world, &world.person("alice")?, &projects).await?;
    world.end().await?;
    Ok(format!(
        "{} rounds, {} acknowledged, 0 lost; {} operations, {} live, 0 doubled, 0 orphans",
        plan.rounds, checked.acknowledged, settled.operations, settled.live
    ))
}

/// A cancelled operation ends, and what it made is gone.
pub(super) async fn cancel(plan: Plan) -> Result<String> {
    let world = World::start(plan.backing).await?;
    let projects = projects(&world).await?;
    let environments = Environments::default();
    let mut random = plan.random();
    let mut load = Load::new();
    churn(&mut load, &world, &environments, &projects, &mut random)?;
    tokio::time::sleep(plan.round * plan.rounds).await;
    load.end().await?;
    let settled = environments.check(&world, &world.person("alice")?, &projects).await?;
    ensure!(settled.cancelled > 0, "no operation was cancelled in time");
    world.end().await?;
    Ok(format!("{} operations, {} cancelled, none stuck", settled.operations, settled.cancelled))
}

/// A process that stood still beyond its leases does no harm when it goes on.
pub(super) async fn freeze(plan: Plan) -> Result<String> {
    let world = World::start(plan.backing).await?;
    let projects = projects(&world).await?;
    let (ledger, environments) = (Ledger::default(), Environments::default());
    let mut random = plan.random();
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &world.person("pia")?, &format!("frozen-{round}"), WRITERS);
        churn(&mut load, &world, &environments, &projects, &mut random)?;
        tokio::time::sleep(plan.round.mul_f64(random.f64())).await;
        world.processes.signal(ALL, "STOP")?;
        tokio::time::sleep(plan.round * 2).await;
        world.processes.signal(ALL, "CONT")?;
        load.end().await?;
    }
    recovered(&world).await?;
    let checked = ledger.check(&world.person("pia")?).await?;
    let settled = environments.check(&world, &world.person("alice")?, &projects).await?;
    world.end().await?;
    Ok(format!("{} acknowledged, 0 lost; {} operations", checked.acknowledged, settled.operations))
}

/// A second process on the same folder is refused, and says who holds it; the first one goes on.
pub(super) async fn two_processes(_: Plan) -> Result<String> {
    let mut world = World::start(crate::world::Backing::Sqlite).await?;
    let log = tempfile::NamedTempFile::new()?;
    world.processes.log_to(log.path().to_owned());
    let refused = world.processes.start("second", &["--all"], &[]);
    ensure!(refused.is_err(), "a second process runs on the same folder");
    let said = std::fs::read_to_string(log.path())?;
    let line = said.lines().find(|line| line.contains("in use by")).context("nothing says who holds it")?;
    ensure!(line.contains("process"), "{line}");
    recovered(&world).await?;
    tokio::time::timeout(Duration::from_secs(30), world.end()).await??;
    Ok("refused".to_owned())
}

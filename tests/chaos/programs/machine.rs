//! Programs over what a system stands on: its disk, its clock, its database server.

use anyhow::{Result, ensure};
use pavior_tests::Processes;

use super::{Load, Plan, recovered};
use crate::faults::{BrokenDisk, Clock, Postgres, SmallDisk};
use crate::ledger::Ledger;
use crate::world::{Backing, World};

const WRITERS: usize = 8;
const DISK_MEGABYTES: u32 = 192;

/// A disk that fills loses nothing that was acknowledged, and writes go on when it is freed.
pub(super) async fn disk_full(plan: Plan) -> Result<String> {
    let disk = SmallDisk::mount(DISK_MEGABYTES)?;
    let mut world = World::prepared(Processes::within(disk.path(), &[])?, Backing::Sqlite).await?;
    let ledger = Ledger::default();
    let mut random = plan.random();
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &world.person("pia")?, &format!("full-{round}"), WRITERS);
        tokio::time::sleep(plan.round / 3).await;
        disk.fill(random.u64(..512 * 1_024))?;
        tokio::time::sleep(plan.round).await;
        disk.free_up()?;
        // Every other time without a restart.
        if round % 2 == 0 {
            recovered(&world).await?;
            tokio::time::sleep(plan.round / 3).await;
            load.end().await?;
        } else {
            load.end().await?;
            world.kill_and_up()?;
            recovered(&world).await?;
        }
    }
    let checked = ledger.check(&world.person("pia")?).await?;
    ensure!(checked.refused > 0, "the disk was never full");
    world.end().await?;
    Ok(format!("{} cycles, {} acknowledged, 0 lost", plan.rounds, checked.acknowledged))
}

/// A disk that fails now and then loses nothing that was acknowledged.
pub(super) async fn disk_errors(plan: Plan) -> Result<String> {
    let disk = BrokenDisk::build()?;
    let mut processes = Processes::new(&[])?;
    for (name, value) in disk.variables() {
        processes.set_variable(name, &value);
    }
    let mut world = World::prepared(processes, Backing::Sqlite).await?;
    let ledger = Ledger::default();
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &world.person("pia")?, &format!("errors-{round}"), WRITERS);
        tokio::time::sleep(plan.round / 3).await;
        disk.break_down()?;
        tokio::time::sleep(plan.round / 2).await;
        disk.mend()?;
        recovered(&world).await?;
        load.end().await?;
        if round % 2 == 1 {
            world.kill_and_up()?;
        }
    }
    let checked = ledger.check(&world.person("pia")?).await?;
    ensure!(checked.refused > 0, "the disk never failed");
    world.end().await?;
    Ok(format!("{} cycles, {} acknowledged, 0 lost", plan.rounds, checked.acknowledged))
}

/// A clock that steps an hour forwards or back loses and doubles nothing.
pub(super) async fn clock(plan: Plan) -> Result<String> {
    let clock = Clock::find()?;
    let mut processes = Processes::new(&[])?;
    for (name, value) in clock.variables() {
        processes.set_variable(name, &value);
    }
    let world = World::prepared(processes, plan.backing).await?;
    let ledger = Ledger::default();
    let mut random = plan.random();
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &world.person("pia")?, &format!("clock-{round}"), WRITERS);
        tokio::time::sleep(plan.round / 2).await;
        // Within what a caller's token and the tokens between services allow.
        clock.step(random.i64(-20..20))?;
        tokio::time::sleep(plan.round / 2).await;
        load.end().await?;
    }
    clock.step(0)?;
    let checked = ledger.check(&world.person("pia")?).await?;
    world.end().await?;
    Ok(format!("{} steps, {} acknowledged, 0 lost", plan.rounds, checked.acknowledged))
}

/// A database server that crashes loses nothing that was acknowledged; the services come back by themselves.
pub(super) async fn server_crash(plan: Plan) -> Result<String> {
    let mut server = Postgres::start()?;
    let world = World::at_server(&server).await?;
    let ledger = Ledger::default();
    for round in 0..plan.rounds {
        let mut load = Load::new();
        load.writers(&ledger, &world.person("pia")?, &format!("crash-{round}"), WRITERS);
        tokio::time::sleep(plan.round).await;
        server.crash_and_up()?;
        recovered(&world).await?;
        load.end().await?;
    }
    let checked = ledger.check(&world.person("pia")?).await?;
    world.end().await?;
    Ok(format!("{} crashes, {} acknowledged, 0 lost", plan.rounds, checked.acknowledged))
}

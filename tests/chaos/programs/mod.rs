//! The programs: each hurts the system in one way.

mod callers;
mod machine;
mod operations;
mod restores;
mod workloads;

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use pavior_tests::Person;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::world::{Backing, World};

/// How a program is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Where the random choices begin.
    pub(crate) seed: u64,
    /// How often to hurt.
    pub(crate) rounds: u32,
    /// How long to write in each round.
    pub(crate) round: Duration,
    /// The database.
    pub(crate) backing: Backing,
}

impl Plan {
    fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }
}

/// One way to hurt.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) backings: &'static [Backing],
    pub(crate) run: fn(Plan) -> BoxFuture<'static, Result<String>>,
}

const BOTH: &[Backing] = &[Backing::Sqlite, Backing::Postgres];
const SQLITE: &[Backing] = &[Backing::Sqlite];
const POSTGRES: &[Backing] = &[Backing::Postgres];

/// Every program.
pub(crate) const PROGRAMS: &[Program] = &[
    Program {
        name: "give-up",
        about: "eight write while eight give up after 1 to 15 ms",
        backings: BOTH,
        run: |plan| Box::pin(callers::give_up(plan)),
    },
    Program {
        name: "kill",
        about: "kill -9 at a random moment, while entities and environments change",
        backings: BOTH,
        run: |plan| Box::pin(operations::kill(plan)),
    },
    Program {
        name: "workloads",
        about: "kill -9 at a random moment, while what runs changes",
        backings: BOTH,
        run: |plan| Box::pin(workloads::workloads(plan)),
    },
    Program {
        name: "cancel",
        about: "operations are cancelled at random moments",
        backings: BOTH,
        run: |plan| Box::pin(operations::cancel(plan)),
    },
    Program {
        name: "freeze",
        about: "the process stands still beyond its leases and goes on",
        backings: BOTH,
        run: |plan| Box::pin(operations::freeze(plan)),
    },
    Program {
        name: "clock",
        about: "the clock steps forwards and back",
        backings: BOTH,
        run: |plan| Box::pin(machine::clock(plan)),
    },
    Program {
        name: "disk-full",
        about: "the disk fills and is freed, with and without a restart",
        backings: SQLITE,
        run: |plan| Box::pin(machine::disk_full(plan)),
    },
    Program {
        name: "disk-errors",
        about: "every third write or sync of a database fails",
        backings: SQLITE,
        run: |plan| Box::pin(machine::disk_errors(plan)),
    },
    Program {
        name: "server-crash",
        about: "the database server crashes and comes back",
        backings: POSTGRES,
        run: |plan| Box::pin(machine::server_crash(plan)),
    },
    Program {
        name: "two-processes",
        about: "a second process is started on the same folder",
        backings: SQLITE,
        run: |plan| Box::pin(operations::two_processes(plan)),
    },
    Program {
        name: "restore",
        about: "each service's database is set back to an older copy",
        backings: SQLITE,
        run: |plan| Box::pin(restores::restore(plan)),
    },
];

/// Callers that write until they are told to stop.
struct Load {
    tasks: JoinSet<Result<()>>,
    stop: CancellationToken,
}

impl Load {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Adds so many that count entities of their own up.
    fn writers(&mut self, ledger: &Ledger, person: &Person, prefix: &str, count: usize) {
        for n in 0..count {
            let (ledger, person, stop) = (ledger.clone(), person.clone(), self.stop.clone());
            let id = format!("{prefix}-{n}");
            self.tasks.spawn(async move { ledger.write(person, id, stop).await });
        }
    }

    /// Tells them to stop and waits until they have.
    async fn end(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a caller panicked")??;
        }
        Ok(())
    }
}

/// Waits until a change goes through again.
async fn recovered(world: &World) -> Result<()> {
    let pia = world.person("pia")?;
    let ledger = Ledger::default();
    let (ledger, pia) = (&ledger, &pia);
    until(Duration::from_secs(60), || async move {
        let went_through = ledger.once(pia, "recovered").await?;
        Ok((!went_through).then(|| "changes are still refused after a minute".to_owned()))
    })
    .await
}

/// Looks until nothing is wrong any more, and fails with what still is after `limit`.
async fn until<F>(limit: Duration, look: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<Option<String>>>,
{
    let deadline = std::time::Instant::now() + limit;
    while let Some(wrong) = look().await? {
        anyhow::ensure!(std::time::Instant::now() < deadline, "{wrong}");
        // The system that is waited for has the same two cores.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

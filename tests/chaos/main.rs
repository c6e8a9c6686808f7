//! Hurts a whole system in seeded ways and then looks whether it kept its word: what was acknowledged is there, what
//! runs is what is declared, every change has exactly one record, and the audit log verifies.
//!
//! `pavior-chaos --seed 7 --rounds 20 kill` repeats one program; without arguments every program runs a little, as CI
//! does. The seed of a failed program stands in its message.

mod environments;
mod faults;
mod ledger;
mod programs;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;
use faults::Skip;
use programs::{PROGRAMS, Plan, Program};
use world::Backing;

/// Hurts a whole system and looks whether it kept its word.
#[derive(Debug, Parser)]
#[command(name = "pavior-chaos")]
struct Arguments {
    /// The programs to run; all when none is named.
    programs: Vec<String>,
    /// Where the random choices begin; the same seed makes the same choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each program hurts the system.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each round writes, in milliseconds.
    #[arg(long, default_value_t = 1_500)]
    round_ms: u64,
    /// `sqlite`, `postgres`, or `both`.
    #[arg(long, default_value = "both")]
    database: String,
    /// Lists the programs.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    if arguments.list {
        for program in PROGRAMS {
            println!("{:<16} {}", program.name, program.about);
        }
        return ExitCode::SUCCESS;
    }
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs what was chosen; true when everything held.
async fn run(arguments: &Arguments) -> Result<bool> {
    let backings = match arguments.database.as_str() {
        "sqlite" => vec![Backing::Sqlite],
        "postgres" => vec![Backing::Postgres],
        "both" => vec![Backing::Sqlite, Backing::Postgres],
        other => bail!("`{other}` is no database; there are sqlite, postgres and both"),
    };
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for program in chosen(&arguments.programs)? {
        for backing in backings.iter().filter(|backing| program.backings.contains(backing)) {
            let plan = Plan {
                seed: arguments.seed,
                rounds: arguments.rounds,
                round: std::time::Duration::from_millis(arguments.round_ms),
                backing: *backing,
            };
            let name = format!("{} on {backing}", program.name);
            let begin = Instant::now();
            match (program.run)(plan).await {
                Ok(figures) => {
                    passed += 1;
                    println!("ok    {name:<28} {:>6.1} s  {figures}", begin.elapsed().as_secs_f64());
                }
                // In CI nothing is skipped: what a program needs is installed there.
                Err(error) if error.is::<Skip>() && !in_ci => {
                    skipped += 1;
                    println!("skip  {name:<28} {error}");
                }
                Err(error) => {
                    failed += 1;
                    println!("FAIL  {name:<28} seed {}: {error:#}", arguments.seed);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Program>> {
    if names.is_empty() {
        return Ok(PROGRAMS.iter().collect());
    }
    let mut found = Vec::new();
    for name in names {
        match PROGRAMS.iter().find(|program| program.name == name) {
            Some(program) => found.push(program),
            None => bail!("there is no program `{name}`; --list shows them"),
        }
    }
    Ok(found)
}

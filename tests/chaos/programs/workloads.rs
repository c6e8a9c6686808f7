//! What runs is what is declared: workloads are changed while the platform is killed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use pavior::cli::client::request_id;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::Person;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Load, Plan, until};
use crate::environments::{Environments, cancel, finished, passing};
use crate::world::{ALL, World};

const PROJECTS: usize = 3;
const ENVIRONMENT: &str = "development";
const LEVELS: [&str; 3] = ["debug", "info", "warning"];
/// How long a supervisor may take to start what should run.
const UP: Duration = Duration::from_secs(60);

/// `kill -9` while workloads change: each runs once, as it is declared.
pub(super) async fn workloads(plan: Plan) -> Result<String> {
    let mut world = World::start(plan.backing).await?;
    let projects: Vec<String> = (0..PROJECTS).map(|n| format!("works-{n}")).collect();
    for project in &projects {
        world.person("alice")?.create_project(project).await?;
    }
    let accepted = Environments::default();
    let mut random = plan.random();
    for _ in 0..plan.rounds {
        // What the last kill interrupted has ended: the next one meets something new.
        accepted.settle(&world.person("alice")?).await?;
        let mut load = Load::new();
        for project in &projects {
            let change = change(
                accepted.clone(),
                world.person("alice")?,
                project.clone(),
                random.fork(),
                load.stop.clone(),
            );
            load.tasks.spawn(change);
        }
        tokio::time::sleep(plan.round.mul_f64(0.2 + random.f64())).await;
        load.stop.cancel();
        world.processes.kill(ALL)?;
        load.end().await?;
        world.up()?;
    }
    let alice = world.person("alice")?;
    let settled = accepted.settle(&alice).await?;
    for project in &projects {
        as_declared(&world, &alice, project).await?;
    }
    world.end().await?;
    Ok(format!(
        "{} rounds, {} updates, {} undone; what runs is what is declared",
        plan.rounds, settled.operations, settled.cancelled
    ))
}

/// Changes the workload of a project again and again, and cancels some of it, until `stop`.
async fn change(
    accepted: Environments,
    person: Person,
    project: String,
    mut random: fastrand::Rng,
    stop: CancellationToken,
) -> Result<()> {
    while !stop.is_cancelled() {
        let level = random.choice(LEVELS).context("no level")?;
        let environment = pb::Environment {
            name: name(&project),
            parameters: pavior_rpc::convert::to_struct(&json!({ "log_level": level })).ok(),
            ..Default::default()
        };
        let request = pb::UpdateEnvironmentRequest {
            environment: Some(environment),
            update_mask: Some(prost_types::FieldMask { paths: vec!["parameters".to_owned()] }),
            request_id: request_id(),
            ..Default::default()
        };
        let answer = person.projects().update_environment(request).await;
        let Some(operation) = passing(answer, "changing an environment")? else { continue };
        accepted.accept(&operation);
        if random.u8(..4) == 0 {
            tokio::time::sleep(Duration::from_micros(random.u64(..300_000))).await;
            cancel(&person, &operation.name).await?;
        }
        finished(&person, &operation.name, &stop).await?;
    }
    Ok(())
}

fn name(project: &str) -> String {
    format!("organizations/acme/projects/{project}/environments/{ENVIRONMENT}")
}

/// One process runs for the environment, with the level that is declared, and it answers.
async fn as_declared(world: &World, person: &Person, project: &str) -> Result<()> {
    let request = pb::GetEnvironmentRequest { name: name(project), ..Default::default() };
    let environment = person.projects().get_environment(request).await?.into_inner();
    let parameters = environment.parameters.as_ref().and_then(|found| found.fields.get("log_level").cloned());
    let declared = match parameters.and_then(|value| value.kind) {
        Some(prost_types::value::Kind::StringValue(level)) => level,
        // The golden path's own.
        _ => "info".to_owned(),
    };
    let declared = declared.as_str();
    until(UP, || async move {
        let (found, page) = (levels(world, project), person.page(project, ENVIRONMENT).await);
        let is_so = found == [declared] && page.is_ok();
        Ok(if is_so { None } else { Some(format!("NOT AS DECLARED: `{project}` is declared with `{declared}`, processes with {found:?} run: {page:?}")) })
    })
    .await
}

/// The level of each process that runs for a project on the world's folder.
fn levels(world: &World, project: &str) -> Vec<String> {
    let (data, own) = (world.processes.data().display().to_string(), format!("APP_NAME={project}"));
    let mut found = Vec::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
        let environment = String::from_utf8_lossy(&environment);
        let of = |key: &str| environment.split('\0').find_map(|pair| pair.strip_prefix(key));
        // The shim above it has the same environment, and watches it.
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let is_shim = String::from_utf8_lossy(&command).contains("shim");
        let is_own = environment.split('\0').any(|pair| pair == own)
            && of("DATABASE_URL=").is_some_and(|url| url.contains(&data));
        if is_own && !is_shim {
            found.extend(of("LOG_LEVEL=").map(str::to_owned));
        }
    }
    found
}

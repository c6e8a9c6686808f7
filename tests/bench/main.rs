//! The load tool: measures in one run what is compared with each other, and prints ratios. Absolute figures say more
//! about the machine than about Pavior. `cargo run --release -p pavior-tests --bin pavior-bench`

mod floor;
mod measure;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use measure::{Figures, closed_loop};
use pavior::cli::client::request_id;
use pavior::serve::{Config, DEV_OPERATOR, Role, System};
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_tests::{Person, binary};

const ENTITIES: usize = 10_000;
const BATCH: usize = 1_000;
const CALLS: usize = 2_000;
const ENTITY: &str = "organizations/acme/kinds/component/entities/service-4711";

#[tokio::main]
async fn main() -> Result<()> {
    anyhow::ensure!(std::env::args().len() == 1, "takes no arguments");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let data = pavior_files::temporary_directory("pavior-bench-")?;
    let started = Instant::now();
    let system = System::start(Config::embedded(data.path(), &binary()?)?, &Role::ALL).await?;
    let ready = started.elapsed();
    let resident = resident_megabytes()?;
    let operator = Person::new(&system.server(), data.path(), DEV_OPERATOR, "acme")?;
    seed(&operator).await?;
    let imported = import(&operator).await?;

    let floor = floor::bare_unary(CALLS).await?;
    let get = closed_loop(CALLS, 1, || get_entity(operator.clone())).await?;
    let path = format!("{}/v1/{ENTITY}", system.server());
    let token = pavior::quickstart::mint(data.path(), DEV_OPERATOR, "acme", &[], time::Duration::hours(1))?;
    let http = reqwest::Client::new();
    let json = closed_loop(CALLS, 1, || get_json(http.clone(), path.clone(), token.clone())).await?;
    let list = closed_loop(CALLS / 4, 1, || list_entities(operator.clone())).await?;
    let busy = closed_loop(CALLS * 4, 64, || get_entity(operator.clone())).await?;

    println!("ready in                             {:>8.0} ms   (target: below 1000)", millis(ready));
    println!("resident when idle                   {resident:>8.0} MB   (target: below 100)");
    println!(
        "{ENTITIES} entities imported in          {:>8.1} s    (target: below 10)",
        imported.as_secs_f64()
    );
    println!("bare tonic unary call, p50           {:>8.0} µs", micros(floor.p50));
    row("governed GetEntity", &get, &floor, 3.0);
    println!(
        "the same over HTTP with JSON     p50 {:>8.0} µs   {:.1} times the call over gRPC (target: at most 2)",
        micros(json.p50),
        json.p50.as_secs_f64() / get.p50.as_secs_f64()
    );
    row("list of 20 of 10,000, filtered", &list, &floor, 4.0);
    println!("governed GetEntity, 64 at once       {:>8.0} /s", busy.per_second);
    system.stop().await
}

fn row(name: &str, figures: &Figures, floor: &Figures, target: f64) {
    let ratio = figures.p50.as_secs_f64() / floor.p50.as_secs_f64();
    println!(
        "{name:<32} p50 {:>8.0} µs   {ratio:.1} times the bare call (target: at most {target})",
        micros(figures.p50)
    );
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// What the kernel says of this process.
fn resident_megabytes() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kilobytes / 1024.0)
}

async fn seed(operator: &Person) -> Result<()> {
    let request = identity_pb::CreateOrganizationRequest {
        organization_id: "acme".to_owned(),
        organization: Some(identity_pb::Organization::default()),
        request_id: request_id(),
        validate_only: false,
    };
    operator.identity().create_organization(request).await?;
    Ok(())
}

async fn import(operator: &Person) -> Result<Duration> {
    let started = Instant::now();
    for batch in 0..ENTITIES / BATCH {
        let documents = (0..BATCH)
            .map(|i| {
                let n = batch * BATCH + i;
                let team = n % 50;
                let content = format!(
                    "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata:\n  name: service-{n}\n  labels:\n    \
                     team: team-{team}\nspec:\n  type: service\n  lifecycle: production\n  owner: user:default/someone\n  \
                     dependsOn: [component:service-{}]\n",
                    // Never itself.
                    n / 2 + usize::from(n == 0)
                );
                pb::import_entities_request::Document { origin: format!("bench:{n}"), content }
            })
            .collect();
        let request = pb::ImportEntitiesRequest {
            parent: "organizations/acme".to_owned(),
            documents,
            request_id: request_id(),
            validate_only: false,
        };
        operator.catalog().import_entities(request).await?;
    }
    Ok(started.elapsed())
}

async fn get_entity(operator: Person) -> Result<()> {
    operator
        .catalog()
        .get_entity(pb::GetEntityRequest { name: ENTITY.to_owned(), ..Default::default() })
        .await?;
    Ok(())
}

async fn get_json(client: reqwest::Client, url: String, token: String) -> Result<()> {
    let answer = client.get(url).bearer_auth(token).send().await?.error_for_status()?;
    let entity: serde_json::Value = answer.json().await?;
    anyhow::ensure!(entity["name"] == ENTITY, "{entity}");
    Ok(())
}

async fn list_entities(operator: Person) -> Result<()> {
    let request = pb::ListEntitiesRequest {
        parent: "organizations/acme/kinds/component".to_owned(),
        page_size: 20,
        filter: "labels.team = \"team-7\"".to_owned(),
        ..Default::default()
    };
    let page = operator.catalog().list_entities(request).await?.into_inner();
    anyhow::ensure!(page.entities.len() == 20, "{} entities", page.entities.len());
    Ok(())
}

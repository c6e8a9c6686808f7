//! Health means that a call would work now.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pavior_tests::{Embedded, Processes};
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const SOON: Duration = Duration::from_secs(1);
const PUBLIC: [&str; 6] = [
    "",
    "pavior.identity.v1.IdentityService",
    "pavior.catalog.v1.CatalogService",
    "pavior.policy.v1.PolicyService",
    "pavior.provisioning.v1.ProjectService",
    "google.longrunning.Operations",
];

async fn client(address: &str) -> Result<HealthClient<Channel>> {
    Ok(HealthClient::new(Endpoint::from_shared(format!("http://{address}"))?.connect().await?))
}

async fn watches(client: &HealthClient<Channel>) -> Result<Vec<Streaming<HealthCheckResponse>>> {
    let mut watches = Vec::new();
    for service in PUBLIC {
        let ask = HealthCheckRequest { service: service.to_owned() };
        watches.push(client.clone().watch(ask).await?.into_inner());
    }
    Ok(watches)
}

/// Each is told this, and nothing else, within the time.
async fn told(
    watches: &mut [Streaming<HealthCheckResponse>],
    wanted: ServingStatus,
    limit: Duration,
) -> Result<()> {
    for (service, watch) in PUBLIC.iter().zip(watches) {
        let said = timeout(limit, watch.message()).await.with_context(|| format!("`{service}`: silence"))?;
        let said = said?.context("the watch ended")?.status();
        ensure!(said == wanted, "`{service}` is {said:?}");
    }
    Ok(())
}

async fn until_serving(watches: &mut [Streaming<HealthCheckResponse>]) -> Result<()> {
    for watch in watches {
        while timeout(Duration::from_secs(20), watch.message()).await??.context("ended")?.status()
            != ServingStatus::Serving
        {}
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn that_policy_died_and_is_back_shows_within_a_second() -> Result<()> {
    let mut system = Processes::apart().await?;
    let gateway = client(&system.address("gateway")?).await?;
    let admin = system.address_of("gateway", "admin")?;
    let http = async |path: &str| -> Result<(u16, String)> {
        let answer = reqwest::get(format!("http://{admin}{path}")).await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    };
    let mut watches = watches(&gateway).await?;
    until_serving(&mut watches).await?;
    ensure!(http("/readyz").await?.0 == 200, "{:?}", http("/readyz").await?);

    system.kill("policy")?;
    told(&mut watches, ServingStatus::NotServing, SOON).await?;
    let (status, text) = http("/readyz").await?;
    ensure!(status == 503, "{status}");
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let conditions = report["conditions"].as_array().context("no conditions")?;
    let failing: Vec<_> = conditions.iter().filter(|c| !c["reason"].is_null()).collect();
    ensure!(failing.len() == 1 && failing[0]["role"] == "policy", "{text}");
    ensure!(http("/healthz").await?.0 == 200, "the process lives");
    // Provisioning tells the truth about itself.
    let mut provisioning = client(&system.address("provisioning")?).await?;
    let own = provisioning.check(HealthCheckRequest::default()).await?.into_inner().status();
    ensure!(own == ServingStatus::Serving, "provisioning is {own:?}");
    let alice = system.person("alice")?;
    let status = alice.projects().create_project(alice.project("closed")).await.unwrap_err();
    ensure!(status.code() == tonic::Code::Unavailable, "{status}");

    system.start_apart("policy")?;
    told(&mut watches, ServingStatus::Serving, SOON).await?;
    ensure!(http("/readyz").await?.0 == 200, "{:?}", http("/readyz").await?);
    alice.create_project("open").await?;
    Ok(())
}

/// A driver in another process that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_is_away_does_not_keep_the_system_from_starting() -> Result<()> {
    let system = Embedded::with(|config| {
        let away = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let remote = serde_json::json!([{ "endpoint": format!("http://{away}") }]);
        config.drivers.remote = serde_json::from_value(remote)?;
        Ok(())
    })
    .await?;
    let answer = reqwest::get(format!("http://{}/readyz", system.system().admin())).await?;
    ensure!(answer.status().as_u16() == 200, "{answer:?}");
    let report: serde_json::Value = serde_json::from_str(&answer.text().await?)?;
    ensure!(report["degraded"] == true, "{report}");
    let conditions = report["conditions"].as_array().context("no conditions")?;
    let failing: Vec<_> = conditions.iter().filter(|c| !c["reason"].is_null()).collect();
    ensure!(failing.len() == 1 && failing[0]["severity"] == "degrades", "{report}");
    ensure!(failing[0]["name"].as_str().is_some_and(|name| name.starts_with("driver at ")), "{report}");
    Ok(())
}

//! A process that is asked to end while people wait for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use pavior::cli::client::request_id;
use pavior::cli::progress;
use pavior_proto::google::longrunning::{Operation, WaitOperationRequest};
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::wait_for;
use pavior_tests::{Person, Processes, details};
use pb::operation_metadata::State;
use tonic::{Code, Status};

const EACH: usize = 20;
const PARTS: i32 = 500;

/// An operation that goes on until somebody approves it.
async fn waiting_operation(alice: &Person) -> Result<Operation> {
    alice.create_project("shop").await?;
    let request = alice.environment("shop", "production");
    let operation = alice.projects().create_environment(request).await?.into_inner();
    let waits = |operation: &_| {
        progress::metadata(operation).is_ok_and(|metadata| metadata.state() == State::AwaitingApproval)
    };
    alice.until(&operation.name, waits).await
}

/// Work that takes the catalog some time.
fn large_import() -> catalog::ImportEntitiesRequest {
    let documents = (0..PARTS).map(|n| {
        let content = format!(
            "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata: {{ name: part-{n} }}\n\
             spec: {{ type: service, lifecycle: production, owner: storefront }}\n"
        );
        catalog::import_entities_request::Document { origin: "test".to_owned(), content }
    });
    catalog::ImportEntitiesRequest {
        parent: "organizations/acme".to_owned(),
        documents: documents.collect(),
        request_id: request_id(),
        ..Default::default()
    }
}

fn told(status: &Status) -> Result<()> {
    let (reason, found) = details(status);
    ensure!((status.code(), reason.as_str()) == (Code::Unavailable, "DRAINING"), "{status:?}");
    ensure!(found.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{status:?}");
    Ok(())
}

/// So many calls are being worked on by a server.
async fn active_calls(admin: &str, server: &str) -> Result<usize> {
    let text = reqwest::get(format!("http://{admin}/metrics")).await?.text().await?;
    let marker = format!("pavior_server=\"{server}\"");
    let line =
        text.lines().find(|line| line.starts_with("rpc_server_active_calls") && line.contains(&marker));
    let value = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0");
    Ok(value.parse::<f64>()? as usize)
}

/// Ends the processes while twenty watch, twenty wait and one works; everybody gets a status, in time.
async fn ends_in_order(mut system: Processes, stopped: &'static str) -> Result<()> {
    let alice = system.person("alice")?;
    let pia = system.person("pia")?;
    let operation = waiting_operation(&alice).await?;
    let watches = (0..EACH).map(|_| async {
        let request = pb::WatchOperationRequest { name: operation.name.clone(), start: None };
        let mut stream = alice.operation_service().watch_operation(request).await?.into_inner();
        stream.message().await?.context("nothing to see")?;
        Ok::<_, anyhow::Error>(stream)
    });
    let streams: Vec<_> = join_all(watches).await.into_iter().collect::<Result<_>>()?;
    let watching: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                loop {
                    match stream.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => return None,
                        Err(status) => return Some(status),
                    }
                }
            })
        })
        .collect();
    let waiting: Vec<_> = (0..EACH)
        .map(|_| {
            let (alice, name) = (alice.clone(), operation.name.clone());
            let timeout = Some(pavior_rpc::convert::to_duration(Duration::from_secs(25)));
            tokio::spawn(async move {
                alice.operations().wait_operation(WaitOperationRequest { name, timeout }).await
            })
        })
        .collect();
    let gateway = system.address_of("gateway", "admin").or_else(|_| system.address_of("all", "admin"))?;
    let own = system.address_of(stopped, "admin")?;
    let arrived = async |(admin, server): (&str, &str), at_least: usize, over: &dyn Fn() -> bool| {
        wait_for("the calls to arrive", Duration::from_secs(20), || async {
            match active_calls(admin, server).await {
                Ok(active) if active >= at_least || over() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    };
    // Where they wait: one that the gateway still decides on is refused as by anybody who is not there.
    arrived((&own, "provisioning"), 2 * EACH, &|| false).await;
    let working = tokio::spawn(async move { pia.catalog().import_entities(large_import()).await });
    // On a fast machine it may be over before it was seen.
    arrived((&gateway, "gateway"), 2 * EACH + 1, &|| working.is_finished()).await;

    let begun = Instant::now();
    let ended = tokio::task::spawn_blocking(move || system.stop(stopped).map(|()| system));
    for watch in watching {
        told(&watch.await?.context("a stream was cut off")?)?;
    }
    for wait in waiting {
        told(&wait.await?.err().context("a wait was answered")?)?;
    }
    let system = ended.await??;
    let took = begun.elapsed();
    let imported = working.await??.into_inner();
    ensure!(imported.created_count == PARTS, "{imported:?}");
    ensure!(took <= Duration::from_secs(5), "it took {took:?}");
    drop(system);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_process_everybody_gets_a_status_and_it_ends_in_time() -> Result<()> {
    ends_in_order(Processes::whole().await?, "all").await
}

#[tokio::test(flavor = "multi_thread")]
async fn apart_everybody_gets_a_status_and_it_ends_in_time() -> Result<()> {
    ends_in_order(Processes::apart().await?, "provisioning").await
}

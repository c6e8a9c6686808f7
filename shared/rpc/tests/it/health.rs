//! Health over the network: what is told of each service, and what a peer notices.

use std::collections::BTreeSet;
use std::time::Duration;

use pavior_rpc::health::follow;
use pavior_rpc::server::{Drain, ServeOptions, serve_with};
use pavior_rpc::{Health, StackOptions, local, remote, server};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

const SOON: Duration = Duration::from_secs(1);

async fn serve(health: &Health, address: &str) -> (String, CancellationToken) {
    let beside = health.add_to(Routes::default());
    let stack = server::stack(Routes::default(), StackOptions::default()).beside(beside, Drain::default());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    let options = ServeOptions { grace: Duration::ZERO, ..ServeOptions::default() };
    tokio::spawn(serve_with(listener, stack, options, stop.clone()));
    (address, stop)
}

/// The next news that differs.
async fn changed(news: &mut mpsc::UnboundedReceiver<Result<(), String>>, well: bool) {
    let wanted = async {
        while let Some(said) = news.recv().await {
            if said.is_ok() == well {
                return;
            }
        }
        panic!("no more news");
    };
    tokio::time::timeout(SOON, wanted).await.unwrap_or_else(|_| panic!("not {well} within {SOON:?}"));
}

#[tokio::test]
async fn a_peer_that_falls_ill_dies_and_comes_back_is_noticed_within_a_second() {
    let health = Health::new(["any"]).await;
    health.set(true).await;
    let (address, stop) = serve(&health, "127.0.0.1:0").await;
    let (tell, mut news) = mpsc::unbounded_channel();
    let peer = remote(&format!("http://{address}"), None);
    tokio::spawn(follow(peer, move |said| drop(tell.send(said))));
    changed(&mut news, true).await;
    health.set(false).await;
    changed(&mut news, false).await;
    health.set(true).await;
    changed(&mut news, true).await;
    stop.cancel();
    changed(&mut news, false).await;
    let (_, _stop) = serve(&health, &address).await;
    changed(&mut news, true).await;
}

#[tokio::test]
async fn a_peer_in_the_same_process_is_followed_in_the_same_way() {
    let health = Health::new(["any"]).await;
    let beside = health.add_to(Routes::default());
    let stack = server::stack(Routes::default(), StackOptions::default()).beside(beside, Drain::default());
    let (tell, mut news) = mpsc::unbounded_channel();
    tokio::spawn(follow(local(stack), move |said| drop(tell.send(said))));
    changed(&mut news, false).await;
    health.set(true).await;
    changed(&mut news, true).await;
}

#[tokio::test]
async fn a_service_is_well_when_the_roles_that_it_needs_are() {
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    use tonic_health::pb::health_client::HealthClient;
    let roles = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect::<BTreeSet<_>>();
    let needs = [("plain", roles(&["catalog"])), ("more", roles(&["catalog", "policy"]))];
    let health = Health::needing(needs.map(|(name, roles)| (name.to_owned(), roles))).await;
    let beside = health.add_to(Routes::default());
    let stack = server::stack(Routes::default(), StackOptions::default()).beside(beside, Drain::default());
    let client = HealthClient::new(local(stack));
    let said = async |service: &str| {
        let ask = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
        client.clone().check(ask).await.unwrap().into_inner().status()
    };
    health.tell(|roles| !roles.contains("policy")).await;
    assert_eq!((said("plain").await, said("more").await, said("").await), (Serving, NotServing, NotServing));
    health.tell(|_| true).await;
    assert_eq!((said("plain").await, said("more").await, said("").await), (Serving, Serving, Serving));
}

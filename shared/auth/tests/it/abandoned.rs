//! Callers that give up while keys are fetched.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use pavior_auth::{SigningKey, TokenVerifier};
use tokio::sync::Semaphore;

use crate::clock;
use crate::external::{Provider, at, claims};

/// An issuer that answers when it is let.
#[derive(Clone)]
struct Slow {
    body: Arc<Mutex<String>>,
    asked: Arc<Semaphore>,
    let_go: Arc<Semaphore>,
}

async fn serve(State(slow): State<Slow>) -> String {
    slow.asked.add_permits(1);
    slow.let_go.acquire().await.unwrap().forget();
    slow.body.lock().unwrap().clone()
}

/// Whoever hangs up while keys are fetched keeps nobody from learning them: the fetch goes on.
#[tokio::test]
async fn a_fetch_goes_on_when_its_caller_gives_up() {
    let clock = clock();
    let mut provider = Provider::new(&["one"]);
    let slow = Slow {
        body: Arc::new(Mutex::new(provider.jwks())),
        asked: Arc::new(Semaphore::new(0)),
        let_go: Arc::new(Semaphore::new(1)),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/jwks", axum::routing::get(serve)).with_state(slow.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let verifier = TokenVerifier::new(vec![at(address)], clock.clone()).unwrap();
    let reason = async |token: &str| verifier.verify(token).await.map_or_else(|e| e.reason(), |_| "accepted");
    let old = provider.sign("one", &claims(&clock));
    assert_eq!(reason(&old).await, "accepted");
    slow.asked.forget_permits(1);
    // The old key is withdrawn for a new one.
    provider.keys = vec![("two".to_owned(), SigningKey::generate().unwrap())];
    *slow.body.lock().unwrap() = provider.jwks();
    clock.advance(Duration::from_secs(301));
    let new = provider.sign("two", &claims(&clock));
    // The caller for whom they are fetched hangs up while the issuer is slow.
    tokio::select! {
        reason = reason(&old) => panic!("it was answered before its keys were there: {reason}"),
        asked = slow.asked.acquire() => asked.unwrap().forget(),
    }
    slow.let_go.add_permits(1);
    assert_eq!(reason(&new).await, "accepted");
    assert_eq!(reason(&provider.sign("two", &claims(&clock))).await, "accepted");
    assert_eq!(reason(&old).await, "unknown_key");
    assert_eq!(slow.asked.available_permits(), 0, "it was asked once, although its caller gave up");
}

//! `grpc.health.v1`: the whole under the empty name, and each service under its full name. That one is SERVING means
//! that a call of it would work now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_check_response::ServingStatus as Said;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

use crate::Transport;

/// Whether a peer is still there is asked this long after it last said something.
const PROBE: Duration = Duration::from_secs(1);
/// For a peer to say how it is.
const ANSWER: Duration = Duration::from_secs(1);
/// Before a peer that cannot be reached is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// What the health service answers. Clones share their state.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    /// Each service with the roles that a call of it needs.
    services: Arc<BTreeMap<String, BTreeSet<String>>>,
    /// What was told last: watchers hear of changes only.
    told: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Health {
    /// Everything NOT_SERVING, until it is told otherwise. (tonic's own begins with SERVING.) A call of one of the
    /// services needs all that there is.
    pub async fn new<S: AsRef<str>>(services: impl IntoIterator<Item = S>) -> Self {
        Self::needing(services.into_iter().map(|service| (service.as_ref().to_owned(), BTreeSet::new())))
            .await
    }

    /// The same, with the roles that a call of each service needs: none stands for all.
    pub async fn needing(services: impl IntoIterator<Item = (String, BTreeSet<String>)>) -> Self {
        let services = Arc::new(services.into_iter().collect());
        let health = Self { reporter: HealthReporter::new(), services, told: Arc::default() };
        health.set(false).await;
        health
    }

    /// All services, and the whole.
    pub async fn set(&self, serving: bool) {
        self.tell(|_| serving).await;
    }

    /// Tells each service by whether the roles that it needs are well, and the whole by whether all of them are.
    pub async fn tell(&self, well: impl Fn(&BTreeSet<String>) -> bool) {
        let mut whole = true;
        for (service, roles) in &*self.services {
            let serving = well(roles);
            whole &= serving;
            self.tell_one(service, serving).await;
        }
        if self.services.is_empty() {
            whole = well(&BTreeSet::new());
        }
        self.tell_one("", whole).await;
    }

    async fn tell_one(&self, service: &str, serving: bool) {
        let before =
            self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(service.to_owned(), serving);
        if before == Some(serving) {
            return;
        }
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status(service, status).await;
    }

    /// Adds the health service to routes.
    pub fn add_to(&self, routes: Routes) -> Routes {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        routes.add_service(
            HealthServer::new(service).accept_compressed(tonic::codec::CompressionEncoding::Gzip),
        )
    }
}

/// Follows what a peer says of itself as a whole, for ever: its health is watched, so that news comes at once, and it
/// is asked when it has been silent, so that one that hangs is noticed. `Err` says why a call would not work.
pub async fn follow(peer: Transport, mut news: impl FnMut(Result<(), String>)) {
    let mut client = HealthClient::new(peer);
    loop {
        let said = check(&mut client).await;
        let reached = !matches!(said, Err(Unwell::Unreached(_)));
        news(said.map_err(Unwell::reason));
        if reached {
            watch(&mut client, &mut news).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a peer is not well.
enum Unwell {
    Unreached(String),
    Says(String),
}

impl Unwell {
    fn reason(self) -> String {
        match self {
            Self::Unreached(reason) | Self::Says(reason) => reason,
        }
    }
}

fn whole() -> HealthCheckRequest {
    HealthCheckRequest { service: String::new() }
}

async fn check(client: &mut HealthClient<Transport>) -> Result<(), Unwell> {
    match tokio::time::timeout(ANSWER, client.check(whole())).await {
        Ok(Ok(answer)) => said(answer.get_ref()),
        // It answers, and has no health service to say more.
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
        Ok(Err(status)) => Err(Unwell::Unreached(unreached(&status))),
        Err(_) => Err(Unwell::Unreached(format!("it does not answer within {ANSWER:?}"))),
    }
}

fn said(answer: &HealthCheckResponse) -> Result<(), Unwell> {
    match answer.status() {
        Said::Serving => Ok(()),
        other => Err(Unwell::Says(format!("it says that it is {}", other.as_str_name()))),
    }
}

fn unreached(status: &Status) -> String {
    format!("it cannot be reached: {}", status.message())
}

/// Until the stream ends, or the peer does not answer any more.
async fn watch(client: &mut HealthClient<Transport>, news: &mut impl FnMut(Result<(), String>)) {
    let mut prober = client.clone();
    let opened = tokio::time::timeout(ANSWER, client.watch(whole())).await;
    let mut stream = match opened {
        Ok(Ok(answer)) => Some(answer.into_inner()),
        // Without a stream it is asked again and again.
        Ok(Err(status)) if status.code() == Code::Unimplemented => None,
        Ok(Err(_)) | Err(_) => return,
    };
    loop {
        let heard = async {
            match &mut stream {
                Some(stream) => stream.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = heard => match heard {
                Ok(Some(answer)) => news(said(&answer).map_err(Unwell::reason)),
                Ok(None) | Err(_) => return,
            },
            () = tokio::time::sleep(PROBE) => match check(&mut prober).await {
                Err(Unwell::Unreached(reason)) => {
                    news(Err(reason));
                    return;
                }
                other => news(other.map_err(Unwell::reason)),
            },
        }
    }
}

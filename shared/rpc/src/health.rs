//! `grpc.health.v1`: the whole process under the empty name, and each service under its full name.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// Sets what the health service answers. Clones share their state.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<String>,
}

impl Health {
    /// Everything NOT_SERVING, until [`Health::set`] says otherwise. (tonic's own begins with SERVING.)
    pub async fn new<S: AsRef<str>>(services: impl IntoIterator<Item = S>) -> Self {
        let services = services.into_iter().map(|service| service.as_ref().to_owned()).collect();
        let health = Self { reporter: HealthReporter::new(), services };
        health.set(false).await;
        health
    }

    /// All services, and the process.
    pub async fn set(&self, serving: bool) {
        for service in self.services.iter().map(String::as_str).chain([""]) {
            self.set_service(service, serving).await;
        }
    }

    /// One service.
    pub async fn set_service(&self, service: &str, serving: bool) {
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

//! # pavior-catalog
//!
//! Owns what exists and what may be asked for: organizations with their groups and users, kinds and entities with
//! their relations, golden paths and their immutable versions, resource types and the definitions that make them.
//!
//! It must never call another service on a caller's behalf, decide what a caller may do (policy does), run anything
//! that a document says, or read a row without the caller's organization.
//!
//! Entry points: [`build`] with [`Config`] and [`Deps`]. It serves what the API declares for the role `catalog`.

mod api;
mod app;
mod config;
mod domain;
mod error;
mod json;
mod store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::metrics::Meter;
use pavior_auth::ServiceIdentity;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::page::PageTokens;
use pavior_proto::pavior::catalog::internal::v1::registration_service_server::RegistrationServiceServer;
use pavior_proto::pavior::catalog::v1::catalog_service_server::CatalogServiceServer;
use pavior_proto::pavior::catalog::v1::resource_type_service_server::ResourceTypeServiceServer;
use pavior_proto::pavior::catalog::v1::template_service_server::TemplateServiceServer;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsServiceServer;
use pavior_proto::pavior::identity::internal::v1::directory_service_server::DirectoryServiceServer;
use pavior_proto::pavior::identity::v1::identity_service_server::IdentityServiceServer;
use pavior_relay::{compared_check, outbox_relay};
use pavior_resource::{Keeping, Kernel, sweeper};
use pavior_rpc::Transport;
use pavior_rpc::audit::AuditSink;
use pavior_runtime::{Component, HealthCheck, Task};
use pavior_store::Store;
use pavior_store::outbox::OutboxContext;

pub use config::Config;

/// The role that internal tokens for this service name as their audience.
pub const ROLE: &str = "catalog";
/// The defaults, with a comment for each value.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// What the service needs of the process that it is in.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The service's own database, connected; [`build`] brings its schema up to date.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdGen>,
    /// Who this service is towards its peers.
    pub identity: ServiceIdentity,
    /// The way to the audit service; calls are signed with `identity`.
    pub audit: Transport,
    /// The key that page tokens are made with; the same in every replica.
    pub page_token_key: [u8; 32],
    /// Where metrics go.
    pub meter: Meter,
    /// This process among the replicas of the service.
    pub instance: String,
}

/// Applies the migrations that are missing.
///
/// # Errors
/// When the database cannot be migrated.
pub async fn migrate(store: &Store) -> Result<(), pavior_store::StoreError> {
    store::migrate(store).await
}

/// Bytes of a question about facts beside the change that it holds.
const FACTS_OVERHEAD: usize = 64 * 1024;

/// Makes the service: schema, routes, background work and health checks.
///
/// # Errors
/// A configuration that makes no sense, or a database whose schema cannot be brought up to date.
pub async fn build(config: &Config, deps: Deps) -> anyhow::Result<Component> {
    config.validate().map_err(|problems| anyhow::anyhow!("catalog: {}", problems.join("; ")))?;
    let Deps { store, clock, ids, identity, audit, page_token_key, meter, instance } = deps;
    store::migrate(&store).await.context("catalog database")?;
    let mut outbox = OutboxContext::new(&store, ROLE, &instance, clock.clone());
    outbox.limits = config.outbox.limits();
    let sink = AuditSink::new(identity.transport(audit, "audit"), &meter);
    let relay = outbox_relay(store.clone(), &outbox, sink, &meter, "catalog outbox");
    let tokens = PageTokens::new(page_token_key).with_clock(clock.clone());
    let max_page_bytes = config.max_page_bytes;
    let keeping = Keeping::days(config.deleted_retention_days, config.max_deleted);
    let kernel = Kernel { store: store.clone(), outbox, clock, ids, tokens, max_page_bytes, keeping };
    let sweep = Duration::from_millis(config.sweep_interval_ms);
    let tasks = vec![relay.task, sweeper(&kernel, sweep, store::purges())];
    let api = api::Api::new(app::App::new(kernel, &config.currency));
    let limit = config.max_message_bytes;
    // A question about facts may hold a whole change, and says a little about it.
    let facts = ResourceFactsServiceServer::new(api.clone())
        .max_decoding_message_size(limit.saturating_add(FACTS_OVERHEAD));
    let routes = tonic::service::Routes::default()
        .add_service(IdentityServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(CatalogServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(TemplateServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(ResourceTypeServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(DirectoryServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(RegistrationServiceServer::new(api.clone()).max_decoding_message_size(limit))
        .add_service(facts);
    let closed = store.clone();
    let closing = vec![Task::new("catalog_database", move |_| async move { Ok(closed.close().await?) })];
    let history = compared_check(&store, "catalog history", "nobody is allowed a change");
    let check = HealthCheck::new("catalog database", move || {
        let store = store.clone();
        async move { store.check().await }
    });
    let checks = vec![check, history, relay.check];
    Ok(Component {
        name: ROLE,
        routes,
        services: pavior_rpc::governance::services(ROLE),
        tasks,
        checks,
        closing,
    })
}

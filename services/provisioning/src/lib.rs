//! # pavior-provisioning
//!
//! Owns making what is asked for from a golden path, and keeping it so: projects, environments, resources, pipelines
//! and runs, deployments, plans, and the durable engine that carries operations out.
//!
//! It must never begin anything that policy has not seen as a plan, call a driver before its intent is committed, let a
//! secret into a plan, an event, a log line or an audit record, or read a tenant's row without a permit.
//!
//! Entry points: [`build`] with [`Config`] and [`Deps`]; [`migrate`]. It serves what the API declares for the
//! role `provisioning`.
//!
//! Code map: `domain` (pure: planner, state machines, digest), `app` (use cases), `engine` (worker, executor, recovery,
//! compensation), `store` (tables and every transaction), `tasks` (background work), `api` (the wire).

mod api;
mod app;
mod config;
#[doc(hidden)]
pub mod domain;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod error;
mod health;
pub mod restore;
#[doc(hidden)]
pub mod store;
mod tasks;

use std::sync::Arc;

use anyhow::Context as _;
use opentelemetry::metrics::Meter;
use pavior_auth::ServiceIdentity;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::page::PageTokens;
use pavior_driver::{PushRecorder, Registry};
use pavior_proto::google::longrunning::operations_server::OperationsServer;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsServiceServer;
use pavior_proto::pavior::provisioning::v1::deployment_service_server::DeploymentServiceServer;
use pavior_proto::pavior::provisioning::v1::operation_service_server::OperationServiceServer;
use pavior_proto::pavior::provisioning::v1::pipeline_service_server::PipelineServiceServer;
use pavior_proto::pavior::provisioning::v1::plan_service_server::PlanServiceServer;
use pavior_proto::pavior::provisioning::v1::project_service_server::ProjectServiceServer;
use pavior_relay::{compare_histories, outbox_relay};
use pavior_resource::{Keeping, Kernel};
use pavior_rpc::Transport;
use pavior_rpc::audit::AuditSink;
use pavior_rpc::paging::MAX_PAGE_BYTES;
use pavior_runtime::{Component, Task};
use pavior_store::{Store, StoreError};

pub use config::Config;
pub use engine::seal::SealingKey;
pub use error::Error;

use app::driver::Conditions;
use app::entity_driver::EntityDriver;
use app::peers::Peers;
use app::push::PushLog;
use app::{App, Inner};
use engine::Engine;
use store::Db;

/// The role that internal tokens for this service name as their audience.
pub const ROLE: &str = store::SERVICE;
/// The defaults, with a comment for each value.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// What the service needs of the process that it is in.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Its database, connected; [`build`] applies the migrations.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdGen>,
    /// Who it is towards its peers; the role must be [`ROLE`].
    pub identity: ServiceIdentity,
    /// The catalog: golden paths, resource types and definitions, entities. Calls are signed here.
    pub catalog: Transport,
    /// Policy: decisions and approvals. Calls are signed here.
    pub policy: Transport,
    /// The audit service. Calls are signed here.
    pub audit: Transport,
    /// The drivers. The one of catalog entries is added here.
    pub drivers: Registry,
    /// Seals secrets at rest; the same for all replicas, and for the life of the database.
    pub sealing_key: SealingKey,
    /// Where metrics go.
    pub meter: Meter,
    /// Signs page tokens; the same for all replicas.
    pub page_token_key: [u8; 32],
    /// This process among the replicas of the service.
    pub instance: String,
}

/// Applies the migrations that are missing.
///
/// # Errors
/// When the database cannot be reached or changed.
pub async fn migrate(store: &Store) -> Result<(), StoreError> {
    pavior_store::migrate::<store::migration::Migrator>(store).await
}

/// Records pushes to the repositories of projects. Works as soon as the database is migrated, which [`build`] does.
pub fn push_recorder(config: &Config, deps: &Deps) -> Arc<dyn PushRecorder> {
    let Deps { store, clock, ids, instance, .. } = deps;
    Arc::new(PushLog(Db::new(store.clone(), clock.clone(), ids.clone(), instance, config.outbox.limits())))
}

/// Puts the service together.
///
/// # Errors
/// When the configuration makes no sense, or the database cannot be migrated.
pub async fn build(config: Config, deps: Deps) -> anyhow::Result<Component> {
    config.validate().map_err(|problems| anyhow::anyhow!("provisioning: {}", problems.join("; ")))?;
    let Deps {
        store,
        clock,
        ids,
        identity,
        catalog,
        policy,
        audit,
        drivers,
        sealing_key,
        meter,
        page_token_key,
        instance,
    } = deps;
    anyhow::ensure!(identity.role() == ROLE, "the provisioning service cannot act as `{}`", identity.role());
    migrate(&store).await.context("provisioning database")?;
    let db = Db::new(store.clone(), clock.clone(), ids, &instance, config.outbox.limits());
    let peers = Peers::new(identity.clone(), catalog, policy);
    let entities = Arc::new(EntityDriver::new(peers.clone(), identity.authority(), page_token_key));
    let engine = Engine::new(db.clone(), drivers.with(entities), sealing_key, config.clone(), &meter);
    let sink = AuditSink::new(identity.transport(audit, "audit"), &meter);
    // What a database that was set back says was to be done must not be done again: the tasks wait for the comparison,
    // which is rarely long.
    compare_histories(&store, &db.outbox, &sink).await;
    let relay = outbox_relay(store, &db.outbox, sink, &meter, "provisioning outbox");
    let kernel = Kernel {
        store: db.store.clone(),
        outbox: (*db.outbox).clone(),
        clock: clock.clone(),
        ids: db.ids.clone(),
        tokens: PageTokens::new(page_token_key).with_clock(clock),
        max_page_bytes: MAX_PAGE_BYTES,
        // Projects and environments end by operations, which keep what they were.
        keeping: Keeping::NOTHING,
    };
    let app = App {
        inner: Arc::new(Inner {
            kernel,
            db: db.clone(),
            engine,
            config: config.clone(),
            peers,
            identity,
            conditions: Conditions::new(&meter),
        }),
    };
    let mut tasks = tasks::all(&app);
    tasks.push(relay.task);
    let mut checks = health::checks(&app, &meter);
    checks.push(relay.check);
    let api = api::Api::new(app);
    let routes = tonic::service::Routes::default()
        .add_service(ProjectServiceServer::new(api.clone()))
        .add_service(PipelineServiceServer::new(api.clone()))
        .add_service(DeploymentServiceServer::new(api.clone()))
        .add_service(PlanServiceServer::new(api.clone()))
        .add_service(OperationServiceServer::new(api.clone()))
        .add_service(OperationsServer::new(api.clone()))
        .add_service(ResourceFactsServiceServer::new(api));
    let closing =
        vec![Task::new("provisioning_database", move |_| async move { Ok(db.store().close().await?) })];
    Ok(Component {
        name: ROLE,
        routes,
        services: pavior_rpc::governance::services(ROLE),
        tasks,
        checks,
        closing,
    })
}

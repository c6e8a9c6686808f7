//! # pavior-policy
//!
//! Owns authorization and guardrails: roles, role bindings, policies in Cedar and their bindings, decisions with their
//! reasons, and approvals.
//!
//! A decision must depend on (policies, request, facts) only, without I/O and without a clock. An error must never allow
//! anything. No caller is trusted without the signed internal token, and no row is read without the organization of the
//! permit.
//!
//! Entry points: [`build`] with [`Config`] and [`Deps`]; [`migrate`]. It serves what the API declares for the
//! role `policy`. The manual for policy authors is this crate's `README.md`; [`schema`] returns the schema that policies
//! are checked against.

mod api;
mod app;
mod config;
#[doc(hidden)]
pub mod domain;
mod error;
pub mod restore;
mod store;
mod tasks;

use std::sync::Arc;

use anyhow::Context as _;
use opentelemetry::metrics::Meter;
use pavior_auth::ServiceIdentity;
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::page::PageTokens;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsServiceServer;
use pavior_proto::pavior::policy::internal::v1::decision_service_server::DecisionServiceServer;
use pavior_proto::pavior::policy::internal::v1::operation_approval_service_server::OperationApprovalServiceServer;
use pavior_proto::pavior::policy::v1::access_service_server::AccessServiceServer;
use pavior_proto::pavior::policy::v1::approval_service_server::ApprovalServiceServer;
use pavior_proto::pavior::policy::v1::policy_service_server::PolicyServiceServer;
use pavior_relay::{compared_check, outbox_relay};
use pavior_resource::{Keeping, Kernel};
use pavior_rpc::Transport;
use pavior_rpc::audit::AuditSink;
use pavior_rpc::paging::MAX_PAGE_BYTES;
use pavior_runtime::{Component, HealthCheck, Task};
use pavior_store::outbox::OutboxContext;
use pavior_store::{Store, StoreError};

pub use config::Config;
pub use error::Error;
pub use store::Migrator;

use app::cache::{Compilations, Parts};
use app::decision_log::DecisionLog;
use app::directory::Directories;
use app::metrics::Metrics;
use app::sources::Sources;
use app::{App, Inner};
use domain::schema::PolicySchema;

/// The role that internal tokens for this service name as their audience.
pub const ROLE: &str = "policy";
/// The defaults, with a comment for each value.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// What the process provides to the service.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Its database, connected; [`build`] applies the migrations.
    pub store: Store,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The generator of ids.
    pub ids: Arc<dyn IdGen>,
    /// The identity towards other services; the role must be [`ROLE`].
    pub identity: ServiceIdentity,
    /// The catalog, which knows users and groups. Calls are signed here.
    pub catalog: Transport,
    /// The audit service. Calls are signed here.
    pub audit: Transport,
    /// The meter for metrics.
    pub meter: Meter,
    /// Signs page tokens; the same for all replicas.
    pub page_token_key: [u8; 32],
    /// This process among the replicas of the service.
    pub instance: String,
}

/// Applies the migrations that are missing.
pub async fn migrate(store: &Store) -> Result<(), StoreError> {
    pavior_store::migrate::<Migrator>(store).await
}

/// The Cedar schema, as text, that policies are checked against.
///
/// # Errors
/// When the embedded descriptors do not make a schema.
pub fn schema() -> anyhow::Result<String> {
    Ok(policy_schema()?.text)
}

fn policy_schema() -> anyhow::Result<PolicySchema> {
    let actions = app::actions::actions(pavior_rpc::convert::pool())?;
    anyhow::ensure!(!actions.is_empty(), "the API declares no action");
    Ok(PolicySchema::new(actions)?)
}

/// Puts the service together.
///
/// # Errors
/// When the configuration is invalid, or the database cannot be migrated.
pub async fn build(config: Config, deps: Deps) -> anyhow::Result<Component> {
    config.validate().map_err(|problems| anyhow::anyhow!("policy: {}", problems.join("; ")))?;
    let Deps { store, clock, ids, identity, catalog, audit, meter, page_token_key, instance } = deps;
    anyhow::ensure!(identity.role() == ROLE, "the policy service cannot act as `{}`", identity.role());
    migrate(&store).await.context("policy database")?;
    let schema = Arc::new(policy_schema()?);
    let (sources, authority) = (Sources::new(schema.clone()), identity.authority());
    let parts = Parts {
        store: store.clone(),
        schema: schema.clone(),
        sources: sources.clone(),
        authority: authority.clone(),
        clock: clock.clone(),
    };
    let organizations = config.cached_organizations;
    let compilations = Compilations::new(parts, config.policy_max_age_ms, organizations);
    let max_age = config.directory_max_age_ms;
    let directories = Directories::new(identity.clone(), catalog, clock.clone(), max_age, organizations);
    let sink = AuditSink::new(identity.transport(audit, "audit"), &meter);
    let mut outbox = OutboxContext::new(&store, ROLE, instance, clock.clone());
    outbox.limits = config.outbox.limits();
    let relay = outbox_relay(store.clone(), &outbox, sink, &meter, "policy outbox");
    let tokens = PageTokens::new(page_token_key).with_clock(clock.clone());
    let max_page_bytes = MAX_PAGE_BYTES;
    let keeping = Keeping::days(config.deleted_retention_days, config.max_deleted);
    let kernel = Kernel { store: store.clone(), outbox, clock, ids, tokens, max_page_bytes, keeping };
    let app = App {
        inner: Arc::new(Inner {
            kernel,
            decision_log: DecisionLog::new(config.decision_queue),
            metrics: Metrics::new(&meter),
            config,
            authority,
            schema,
            sources,
            directories,
            compilations,
        }),
    };
    let log = app.decision_log.clone();
    let mut tasks = tasks::all(&app);
    tasks.push(relay.task);
    let api = api::Api::new(app);
    let routes = tonic::service::Routes::default()
        .add_service(AccessServiceServer::new(api.clone()))
        .add_service(PolicyServiceServer::new(api.clone()))
        .add_service(ApprovalServiceServer::new(api.clone()))
        .add_service(DecisionServiceServer::new(api.clone()))
        .add_service(OperationApprovalServiceServer::new(api.clone()))
        .add_service(ResourceFactsServiceServer::new(api));
    let closed = store.clone();
    let history = compared_check(&store, "policy history", "nobody is allowed a change");
    let decisions = HealthCheck::new("policy decision log", move || std::future::ready(log.check()));
    let database = HealthCheck::new("policy database", move || {
        let store = store.clone();
        async move { store.check().await }
    });
    Ok(Component {
        name: ROLE,
        routes,
        services: pavior_rpc::governance::services(ROLE),
        tasks,
        checks: vec![database, history, decisions, relay.check],
        closing: vec![Task::new("policy_database", move |_| async move { Ok(closed.close().await?) })],
    })
}

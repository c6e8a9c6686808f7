//! pavior-audit: what happened, provably.
//!
//! Owns one append-only log for each organization and one for the platform: records as canonical bytes, the Merkle
//! tree over them (RFC 6962) in tiles (C2SP tlog-tiles), and the signed checkpoint (C2SP tlog-checkpoint), all of which
//! change in one transaction. Must never change or drop a record, take a record out of its producer's order, answer
//! across organizations, or acknowledge what is not durable and inside the signed tree, or parked for one that is damaged.
//!
//! Entry points: [`build`], [`Config`], [`Deps`]. What it writes is checked by `pavior-audit-verifier`,
//! which shares no code with it.

mod api;
mod app;
mod config;
mod domain;
mod error;
pub mod restore;
mod store;
mod tasks;

use std::sync::Arc;

use opentelemetry::metrics::Meter;
use pavior_core::clock::Clock;
use pavior_core::page::PageTokens;
use pavior_proto::pavior::audit::internal::v1::recorder_service_server::RecorderServiceServer;
use pavior_proto::pavior::audit::v1::audit_service_server::AuditServiceServer;
use pavior_runtime::{Component, HealthCheck, Task};

pub use config::Config;
pub use domain::batch::{Identity, SequenceConflict};
pub use error::{Error, Rollback};

use app::checkpoint_publisher::publisher;
use app::checkpoint_replica::CheckpointReplica;
use app::held_log::HeldLogs;
use app::inspection::inspect;
use app::reader::Reader;
use app::record_checker::{Checker, rechecks};
use app::record_writer::writer;
use app::signer::Signer;
use domain::checkpoint::CheckpointSigner;
use store::AuditStore;

/// The role that internal tokens for this service name as their audience.
pub const ROLE: &str = "audit";
/// The largest request: a batch of 2,000 events with their changes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The defaults, with a comment for each value.
pub const DEFAULTS: &str = include_str!("../config.default.toml");

/// What the service needs of the process that it is in.
#[derive(Debug, Clone)]
pub struct Deps {
    /// Its database, connected; [`build`] applies the migrations.
    pub store: pavior_store::Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics are made.
    pub meter: Meter,
}

/// The verifier key of the installation (C2SP form, named by `origin`): it covers every log of it. Makes the key's file
/// when it does not exist.
///
/// # Errors
/// When the key cannot be used.
pub fn verifier_key(config: &Config) -> Result<String, Error> {
    Ok(Signer::load(config)?.verifier_key())
}

/// Applies the migrations that are missing.
///
/// # Errors
/// When the database cannot be migrated.
pub async fn migrate(store: &pavior_store::Store) -> Result<(), pavior_store::StoreError> {
    store::migrate(store).await
}

/// Brings the tables up to date, checks every log's head, tiles and checkpoint against each other, and puts the service
/// together. A log that was changed from outside must not grow: it is held until it is repaired, and degrades the service.
///
/// # Errors
/// When the configuration makes no sense, the database or key cannot be used, or the database is an older copy: logs do
/// not go on from the checkpoints that are kept outside of it.
pub async fn build(config: Config, deps: Deps) -> anyhow::Result<Component> {
    config.validate()?;
    let signer = Signer::load(&config)?;
    let store = AuditStore::open(deps.store.clone()).await?;
    let mut inspection = inspect(&store, &signer).await?;
    inspection.mark_rolled_back();
    signer.publish(&config)?;
    let (consistent, damaged) = (inspection.consistent.len(), inspection.damaged.len());
    tracing::info!(verifier_key = signer.verifier_key(), consistent, damaged, "audit logs were inspected");
    let tokens = PageTokens::new(signer.page_token_key()).with_clock(deps.clock.clone());
    let mut tasks = Vec::new();
    let mut checks = vec![database_check(store.clone())];
    let mut published = None;
    if let Some(folder) = &config.checkpoints_dir {
        let replica = CheckpointReplica::open(folder, signer.clone())?;
        let found = replica.compare(&store, &mut inspection).await?;
        // Of an older copy of the database nothing may go on; a log that was cut in it stops nobody else.
        if !found.is_empty()
            && (replica.are_all(&found, &inspection)? || store.is_complete_unscoped(&signer).await?)
        {
            return Err(Error::RolledBack(found).into());
        }
        replica.hold_all(&store, &found, &mut inspection).await?;
        replica.publish_all(&store, &mut inspection).await?;
        let (handle, publisher, health) = publisher(replica, store.clone());
        published = Some(Arc::new(handle));
        tasks.push(tasks::checkpoint_publisher(publisher));
        checks.push(HealthCheck::new("audit checkpoints", move || {
            let health = health.check();
            async move { health }
        }));
    }
    let signer: Arc<dyn CheckpointSigner> = Arc::new(signer);
    let held_logs =
        HeldLogs::open(&config, store.clone(), signer.clone(), published, &inspection, &deps.meter).await?;
    checks.push(HealthCheck::watching("audit logs", held_logs.health()).degrades());
    let (appender, writer) = writer(&config, store.clone(), signer.clone(), held_logs, &deps.meter);
    let (rechecks, queue) = rechecks();
    let checker = Checker::new(store.clone(), signer.clone(), config.check_records_per_second, &deps.meter);
    tasks.extend([tasks::record_writer(writer), tasks::record_checker(checker, queue)]);
    let reader = Reader { store: store.clone(), signer, max_page_bytes: config.max_page_bytes, rechecks };
    let api = api::Api::new(&config, &deps, reader, appender, tokens);
    let api = Arc::new(api);
    let reading = AuditServiceServer::from_arc(api.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
    let recording = RecorderServiceServer::from_arc(api).max_decoding_message_size(MAX_REQUEST_BYTES);
    let closed = store.clone();
    Ok(Component {
        name: ROLE,
        routes: tonic::service::Routes::new(reading).add_service(recording),
        services: pavior_rpc::governance::services(ROLE),
        tasks,
        checks,
        closing: vec![Task::new("audit_database", move |_| async move { Ok(closed.close().await?) })],
    })
}

fn database_check(store: AuditStore) -> HealthCheck {
    HealthCheck::new("audit database", move || {
        let store = store.clone();
        async move { store.check().await }
    })
}

//! pavior-gateway: the only public listener of the platform.
//!
//! Owns the way from the outside in: it authenticates callers, asks policy about each call, forwards what is allowed
//! with a signed token, and records refusals and sensitive reads. It also serves `PlatformService`, which asks several
//! services side by side. It must never hold code for a single RPC of another service (its table comes from the
//! descriptors), keep data of its own, or let a call through when policy cannot be asked.
//!
//! Entry points: [`build`], [`Config`], [`Table`].

mod admission;
mod config;
mod error;
mod forward;
mod frame;
mod gateway;
mod metrics;
mod platform;
mod resource;
mod table;
mod trail;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::Meter;
use pavior_auth::{AllowList, InternalVerifier, Peer, Permit, ServiceIdentity, TokenVerifier, authn_layer};
use pavior_core::clock::Clock;
use pavior_core::id::IdGen;
use pavior_proto::pavior::audit::v1 as audit;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::governance::v1::resource_facts_service_client::ResourceFactsServiceClient;
use pavior_proto::pavior::platform::v1::platform_service_server::PlatformServiceServer;
use pavior_proto::pavior::policy::v1::policy_service_client::PolicyServiceClient;
use pavior_rpc::server::{AuthnLayer, StackOptions, stack};
use pavior_rpc::{BoxError, RetrySafe, Stack, Transport, local, methods};
use pavior_runtime::{Component, HealthCheck, Task};
use tonic::service::Routes;

pub use config::Config;
pub use error::Error;
pub use gateway::Gateway;
pub use table::{Field, Method, ResourceKind, Table};

use gateway::Engine;
use metrics::Metrics;
use platform::Platform;
use trail::{Row, Ship, Trail};

/// The role of the gateway itself: the issuer of its tokens.
pub const ROLE: &str = "gateway";
/// The role of the service that the gateway serves itself.
const PLATFORM_ROLE: &str = "platform";
const POLICY_ROLE: &str = "policy";
const AUDIT_ROLE: &str = "audit";
const CATALOG_ROLE: &str = "catalog";

/// What the gateway needs from the process that it runs in.
#[derive(Clone)]
pub struct Deps {
    /// Its own identity, with the role [`ROLE`].
    pub identity: ServiceIdentity,
    /// Who verifies the tokens of callers.
    pub tokens: TokenVerifier,
    /// The services by role, without any token: the gateway signs what it sends.
    pub upstreams: BTreeMap<String, Transport>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdGen>,
    /// Where metrics go.
    pub meter: Meter,
    /// The encoded descriptors that the table is built from: [`pavior_proto::DESCRIPTORS`].
    pub descriptors: &'static [u8],
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("upstreams", &self.upstreams.keys()).finish_non_exhaustive()
    }
}

/// Builds the gateway.
///
/// # Errors
/// A public method without proper governance (all of them are named), a role that methods are routed to without an
/// upstream, or a configuration that cannot work.
pub fn build(config: &Config, deps: Deps) -> Result<Component, Error> {
    config.validate()?;
    let table = Table::build(deps.descriptors)?;
    let needed: BTreeSet<String> =
        table.roles().into_iter().chain([POLICY_ROLE.to_owned(), AUDIT_ROLE.to_owned()]).collect();
    let missing: Vec<String> = needed
        .into_iter()
        .filter(|role| role != PLATFORM_ROLE && !deps.upstreams.contains_key(role))
        .collect();
    if !missing.is_empty() {
        return Err(Error::NoUpstream(missing));
    }
    let services = served(&table);
    let metrics = Metrics::new(&deps.meter);
    let trail = Arc::new(Trail::new(
        config.audit_queue,
        time::Duration::seconds(i64::from(config.refusal_window_seconds)),
        deps.clock.clone(),
        deps.ids.clone(),
        metrics.audit_dropped.clone(),
    ));
    let shipper = shipper(config, &deps, trail.clone());
    let tokens = deps.tokens.clone();
    let engine = engine(config, deps, table, metrics, trail)?;
    let gateway = Gateway { engine };
    let keys = HealthCheck::new("token issuers", move || {
        let tokens = tokens.clone();
        async move { tokens.ready().await }
    });
    Ok(Component {
        name: ROLE,
        routes: Routes::from(axum::Router::new().fallback_service(gateway)),
        services,
        tasks: shipper.into_iter().collect(),
        checks: vec![keys],
        closing: Vec::new(),
    })
}

/// The names of the services that are public, as they live in the descriptors.
fn served(table: &Table) -> Vec<&'static str> {
    let mut services: Vec<&'static str> = table
        .methods()
        .filter_map(|method| methods::method(&method.path))
        .map(|method| method.service.as_str())
        .collect();
    services.sort_unstable();
    services.dedup();
    services
}

fn engine(
    config: &Config,
    deps: Deps,
    table: Table,
    metrics: Metrics,
    trail: Arc<Trail>,
) -> Result<Arc<Engine>, Error> {
    let Deps { identity, tokens, upstreams, clock, ids, meter, .. } = deps;
    let signed = |role: &str| upstreams.get(role).map(|raw| identity.peer(raw.clone(), role));
    let policy = signed(POLICY_ROLE).ok_or_else(|| Error::NoUpstream(vec![POLICY_ROLE.to_owned()]))?;
    let owners = upstreams
        .keys()
        .filter_map(|role| Some((role.clone(), ResourceFactsServiceClient::new(signed(role)?))))
        .collect();
    let catalog = signed(CATALOG_ROLE);
    // The platform service stands behind the same door as every other: it believes only a signed token.
    let verifier = InternalVerifier::new([(identity.role().to_owned(), identity.public())], clock.clone())?;
    let allow = AllowList::new().allow(identity.role(), ["pavior.platform.v1.PlatformService/*"]);
    let options = StackOptions {
        name: PLATFORM_ROLE,
        max_message_bytes: config.max_message_bytes,
        authn: Some(AuthnLayer::new(authn_layer(verifier, PLATFORM_ROLE, allow))),
        meter: Some(meter),
        ids: ids.clone(),
        ..StackOptions::default()
    };
    Ok(Arc::new_cyclic(|engine| {
        let platform = Platform::new(engine.clone(), identity.clone(), catalog);
        let platform = local(stack(Routes::new(PlatformServiceServer::new(platform)), options));
        let mut upstreams: std::collections::HashMap<String, Transport> = upstreams.into_iter().collect();
        upstreams.insert(PLATFORM_ROLE.to_owned(), platform);
        Engine {
            table,
            tokens,
            identity,
            upstreams,
            policy: PolicyServiceClient::new(policy),
            owners,
            trail,
            metrics,
            clock,
            ids,
            max_message_bytes: config.max_message_bytes,
            max_stream: Duration::from_secs(config.max_stream_seconds),
            decision_timeout: config.decision_timeout(),
        }
    }))
}

/// The task that ships audit records.
fn shipper(config: &Config, deps: &Deps, trail: Arc<Trail>) -> Option<Task> {
    let audit = deps.identity.peer(deps.upstreams.get(AUDIT_ROLE)?.clone(), AUDIT_ROLE);
    let client = AuditServiceClient::new(audit);
    let identity = deps.identity.clone();
    let epoch = deps.ids.uuid().to_string();
    let instance = if config.instance.is_empty() { epoch.clone() } else { config.instance.clone() };
    let producer = audit::Producer { service: ROLE.to_owned(), instance, epoch };
    let permit = Permit::for_system(&identity.authority(), resource::PLATFORM_ID);
    let ship: Ship = Arc::new(move |rows| {
        let (client, producer) = (client.clone(), producer.clone());
        let (identity, permit) = (identity.clone(), permit.clone());
        Box::pin(async move { append(client, &identity, &permit, producer, rows).await })
    });
    Some(Task::new("audit_shipper", move |cancel| trail.run(ship, cancel)))
}

async fn append(
    mut client: AuditServiceClient<Peer>,
    identity: &ServiceIdentity,
    permit: &Permit,
    producer: audit::Producer,
    rows: Vec<Row>,
) -> Result<(), BoxError> {
    let last = rows.last().map_or(0, |row| row.sequence);
    let events = rows.into_iter().map(|row| audit::SequencedEvent {
        organization: row.organization,
        sequence: row.sequence,
        event: Some(pavior_rpc::audit::encode(row.event)),
    });
    let message = audit::AppendRecordsRequest { producer: Some(producer), events: events.collect() };
    let mut request = identity.request(permit, message);
    request.extensions_mut().insert(RetrySafe);
    let acknowledged = client.append_records(request).await?.into_inner().acknowledged_sequence;
    if acknowledged < last {
        return Err(format!("the audit service acknowledged {acknowledged} of {last}").into());
    }
    Ok(())
}

/// Puts health, reflection and gRPC-Web around the gateway's stack, as its configuration says. `health` is for the
/// services in [`Component::services`].
///
/// # Errors
/// Descriptors that reflection cannot serve.
pub fn front(
    config: &Config,
    component: &Component,
    options: StackOptions,
    health: &pavior_rpc::Health,
) -> Result<Stack, Error> {
    let mut beside = health.add_to(Routes::default());
    if config.reflection {
        beside = pavior_rpc::reflection::reflection(beside, &component.services)
            .map_err(|error| Error::Descriptors(error.to_string()))?;
    }
    let options = StackOptions { name: ROLE, max_message_bytes: config.max_message_bytes, ..options };
    Ok(stack(component.routes.clone(), options).beside(beside).web(&config.web_origins))
}

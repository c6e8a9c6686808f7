//! pavior-gateway: the only public listener of the platform.
//!
//! Owns the way from the outside in: it authenticates callers, asks policy about each call, forwards what is allowed
//! with a signed token, and records refusals and sensitive reads. It takes gRPC, gRPC-Web, the Connect protocol and HTTP with
//! JSON, all of them as the same gRPC request (`web`). It also serves `PlatformService`, which asks several
//! services side by side. It must never hold code for a single RPC of another service (its table comes from the
//! descriptors), keep data of its own, or let a call through when policy cannot be asked.
//!
//! Entry points: [`build`], [`Config`], [`RouteTable`].

mod actions;
mod admission;
mod after;
mod audit_queue;
mod audit_record;
mod config;
mod denied_status;
mod error;
mod field;
mod forward;
mod gateway;
mod message;
mod metrics;
mod platform;
mod resource;
mod routes;
mod upstreams;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::Meter;
use pavior_auth::{CallRules, InternalVerifier, ServiceIdentity, TokenVerifier, authn_layer};
use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_client::ResourceFactsServiceClient;
use pavior_proto::pavior::platform::v1::platform_service_server::PlatformServiceServer;
use pavior_proto::pavior::policy::internal::v1::decision_service_client::DecisionServiceClient;
use pavior_rpc::audit::{AuditSink, Producer};
use pavior_rpc::server::{AuthnLayer, StackOptions, stack};
use pavior_rpc::{Stack, Transport, governance, local, methods};
use pavior_runtime::{Component, HealthCheck, Task};
use tonic::service::Routes;

pub use config::Config;
pub use error::Error;
pub use routes::{Binding, Field, Method, Repeatable, ResourceKind, RouteTable, Target};

use admission::Admission;
use audit_queue::{AuditQueue, Ship};
use forward::Forwarder;
use gateway::{Gateway, GatewayService};
use metrics::Metrics;
use platform::Platform;
use web::Web;

/// The role of the gateway itself: the issuer of its tokens.
pub const ROLE: &str = pavior_core::principal::GATEWAY;
/// The defaults, with a comment for each value.
pub const DEFAULTS: &str = include_str!("../config.default.toml");
/// The role of the service that the gateway serves itself.
const PLATFORM_ROLE: &str = "platform";
const POLICY_ROLE: &str = "policy";
const AUDIT_ROLE: &str = "audit";
const CATALOG_ROLE: &str = "catalog";
const PROVISIONING_ROLE: &str = "provisioning";

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
    let table = RouteTable::build(deps.descriptors)?;
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
    let audit_queue = Arc::new(AuditQueue::new(
        config.audit_queue,
        time::Duration::seconds(i64::from(config.refusal_window_seconds)),
        deps.clock.clone(),
        deps.ids.clone(),
        metrics.audit_dropped.clone(),
    ));
    let shipper = shipper(config, &deps, audit_queue.clone());
    let records = {
        let audit_queue = audit_queue.clone();
        HealthCheck::new("gateway audit records", move || std::future::ready(audit_queue.check()))
    };
    let tokens = deps.tokens.clone();
    let (answering, watcher) = upstreams::watch(&deps.upstreams);
    let gateway = GatewayService { gateway: gateway(config, deps, table, metrics, audit_queue)? };
    let mut checks = issuers(&tokens);
    checks.push(records);
    checks.extend(answering);
    Ok(Component {
        name: ROLE,
        routes: Routes::from(axum::Router::new().fallback_service(gateway)),
        services,
        tasks: shipper.into_iter().chain([watcher]).collect(),
        checks,
        closing: Vec::new(),
    })
}

/// The roles whose health decides whether a call of each public service would work.
///
/// # Errors
/// As [`build`].
pub fn needs(descriptors: &[u8]) -> Result<BTreeMap<&'static str, BTreeSet<String>>, Error> {
    Ok(upstreams::needs(&RouteTable::build(descriptors)?))
}

/// Without the keys of any issuer nobody gets in; without those of one of several, the callers of that one do not.
fn issuers(tokens: &TokenVerifier) -> Vec<HealthCheck> {
    let any = tokens.clone();
    let mut checks = vec![HealthCheck::new("token issuers", move || {
        let tokens = any.clone();
        async move { tokens.any_ready().await }
    })];
    let names = tokens.issuers();
    for name in names.iter().filter(|_| names.len() > 1) {
        let (tokens, name) = (tokens.clone(), name.clone());
        let check = HealthCheck::new(format!("token issuer {name}"), move || {
            let (tokens, name) = (tokens.clone(), name.clone());
            async move { tokens.ready(&name).await }
        });
        checks.push(check.degrades());
    }
    checks
}

/// The names of the services that are public, as they live in the descriptors.
fn served(table: &RouteTable) -> Vec<&'static str> {
    let mut services: Vec<&'static str> = table
        .methods()
        .filter_map(|method| methods::method(&method.path))
        .map(|method| method.service.as_str())
        .collect();
    services.sort_unstable();
    services.dedup();
    services
}

fn gateway(
    config: &Config,
    deps: Deps,
    table: RouteTable,
    metrics: Metrics,
    audit_queue: Arc<AuditQueue>,
) -> Result<Arc<Gateway>, Error> {
    let Deps { identity, tokens, upstreams, clock, ids, meter, .. } = deps;
    let signed = |role: &str| upstreams.get(role).map(|raw| identity.peer(raw.clone(), role));
    let policy = signed(POLICY_ROLE).ok_or_else(|| Error::NoUpstream(vec![POLICY_ROLE.to_owned()]))?;
    let owners = upstreams
        .keys()
        .filter_map(|role| Some((role.clone(), ResourceFactsServiceClient::new(signed(role)?))))
        .collect();
    let catalog = signed(CATALOG_ROLE);
    // The platform service has the same server stack as every other: it accepts only signed tokens.
    let verifier = InternalVerifier::new([(identity.role().to_owned(), identity.public())], clock.clone())?;
    let rules = CallRules::of(&governance::services(PLATFORM_ROLE))?;
    let options = StackOptions {
        name: PLATFORM_ROLE,
        max_message_bytes: config.max_message_bytes,
        authn: Some(AuthnLayer::new(authn_layer(verifier, PLATFORM_ROLE, rules))),
        meter: Some(meter),
        ids: ids.clone(),
        ..StackOptions::default()
    };
    Ok(Arc::new_cyclic(|gateway| {
        let platform = Platform::new(gateway.clone(), identity.clone(), catalog);
        let platform = local(stack(Routes::new(PlatformServiceServer::new(platform)), options));
        let mut upstreams: std::collections::HashMap<String, Transport> = upstreams.into_iter().collect();
        upstreams.insert(PLATFORM_ROLE.to_owned(), platform);
        Gateway {
            routes: table,
            tokens,
            admission: Admission {
                identity: identity.clone(),
                decisions: DecisionServiceClient::new(policy),
                owners,
                decision_timeout: config.decision_timeout(),
            },
            forwarder: Forwarder {
                identity,
                upstreams,
                clock: clock.clone(),
                max_stream: Duration::from_secs(config.max_stream_seconds),
            },
            audit_queue,
            metrics,
            clock,
            ids,
            max_message_bytes: config.max_message_bytes,
        }
    }))
}

/// The task that ships audit records.
fn shipper(config: &Config, deps: &Deps, audit_queue: Arc<AuditQueue>) -> Option<Task> {
    let audit = deps.identity.transport(deps.upstreams.get(AUDIT_ROLE)?.clone(), AUDIT_ROLE);
    let sink = AuditSink::new(audit, &deps.meter);
    let epoch = deps.ids.uuid().to_string();
    let instance = if config.instance.is_empty() { epoch.clone() } else { config.instance.clone() };
    let producer = Producer { service: ROLE.to_owned(), instance, epoch };
    let ship: Ship = Arc::new(move |line, rows| {
        let (sink, mut producer) = (sink.clone(), producer.clone());
        if line > 0 {
            producer.epoch = format!("{}-{line}", producer.epoch);
        }
        Box::pin(async move { sink.ship(&producer, rows).await })
    });
    Some(Task::new("audit_shipper", move |cancel| audit_queue.run(ship, cancel)))
}

/// Puts health, reflection, gRPC-Web and HTTP with JSON around the gateway's stack, as its configuration says. `health` is for the
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
    // The gateway reads the message itself, once the caller is authenticated.
    let options = StackOptions {
        name: ROLE,
        max_message_bytes: config.max_message_bytes,
        reads_message: false,
        ..options
    };
    let drain = options.drain.clone();
    let grpc = stack(component.routes.clone(), options).beside(beside, drain);
    let table = RouteTable::build(pavior_proto::DESCRIPTORS)?;
    let web = Web::new(table, config.max_message_bytes, config.reflection)?;
    Ok(web.around(grpc).cors(&config.web_origins))
}

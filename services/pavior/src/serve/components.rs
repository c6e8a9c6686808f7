//! Puts the requested services together: each gets its database, its identity and its peers, and a stack around it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pavior_auth::{CallRules, TokenVerifier, authn_layer};
use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id_gen::{IdGen, SystemIds};
use pavior_core::principal::INSTALLATION;
use pavior_drivers::{DriversConfig, DriversKey};
use pavior_provisioning::SealingKey;
use pavior_rpc::server::{AuthnLayer, Drain, Stack, StackOptions, stack};
use pavior_rpc::{Health, Transport, local, remote};
use pavior_runtime::telemetry::Guard;
use pavior_runtime::{Component, HealthCheck, Task};
use pavior_store::Store;

use super::config::{Config, DEV_OPERATOR, dev_issuer_directory, drivers_directory};
use super::installation::Installation;
use super::keys::{self, Secrets, Trust};
use super::remote_drivers;
use super::role::Role;

/// The stack of a role that is served on a listener of its own.
pub(super) struct Listener {
    pub(super) role: Role,
    pub(super) stack: Stack,
}

/// Everything that runs in a process.
pub(super) struct Assembly {
    /// The health service of each listener, and of the process as a whole.
    pub(super) health: Vec<Health>,
    pub(super) listeners: Vec<Listener>,
    pub(super) tasks: Vec<Task>,
    pub(super) checks: Vec<HealthCheck>,
    pub(super) closing: Vec<Task>,
    pub(super) git: Option<axum::Router>,
    /// The signal by which every stack ends its calls.
    pub(super) drain: Drain,
}

/// What all components of a process share while it is put together.
struct Builder<'a> {
    config: &'a Config,
    roles: BTreeSet<Role>,
    telemetry: &'a Guard,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    trust: Trust,
    secrets: Secrets,
    /// The databases of the roles, connected and found to be theirs.
    stores: BTreeMap<Role, Store>,
    /// Names this process among the replicas of its services.
    instance: String,
    /// The services of this process that are built already, for those that call them.
    built: BTreeMap<Role, Transport>,
    /// The signal by which every stack ends its calls.
    drain: Drain,
    assembly: Parts,
}

#[derive(Default)]
struct Parts {
    listeners: Vec<Listener>,
    tasks: Vec<Task>,
    checks: Vec<HealthCheck>,
    closing: Vec<Task>,
    health: Vec<Health>,
    gateway: Option<Component>,
    git: Option<axum::Router>,
}

/// Builds the requested roles, in the order in which they depend on each other.
pub(super) async fn assemble(
    config: &Config,
    roles: &[Role],
    telemetry: &Guard,
    addresses: &BTreeMap<&'static str, SocketAddr>,
) -> anyhow::Result<Assembly> {
    config.own_data_folder()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdGen> = Arc::new(SystemIds);
    let installation = Installation::survey(config, roles, ids.as_ref()).await?;
    installation.check_owners()?;
    installation.check_losses()?;
    let secrets = keys::secrets(config, roles, installation.first_start)?;
    installation.check_keys(&secrets.checks)?;
    let trust = Trust::load(config, roles, installation.first_start, &clock, &ids)?;
    installation.claim(config, &secrets.checks).await?;
    let mut builder = Builder {
        config,
        roles: roles.iter().copied().collect(),
        telemetry,
        trust,
        secrets,
        stores: installation.stores,
        instance: ids.uuid().to_string(),
        clock,
        ids,
        built: BTreeMap::new(),
        drain: Drain::default(),
        assembly: Parts::default(),
    };
    for role in Role::ALL.into_iter().filter(|role| roles.contains(role)) {
        let name = role.name();
        match role {
            Role::Audit => builder.audit().await,
            Role::Catalog => builder.catalog().await,
            Role::Policy => builder.policy().await,
            Role::Provisioning => builder.provisioning(addresses).await,
            Role::Gateway => builder.gateway(),
        }
        .with_context(|| format!("the {name} service cannot start"))?;
    }
    builder.finish().await
}

impl Builder<'_> {
    fn store(&self, role: Role) -> anyhow::Result<Store> {
        self.stores.get(&role).cloned().context("its database is not open")
    }

    /// A peer: in place when it runs in this process, else over the network. Calls are not signed yet.
    fn peer(&self, role: Role) -> anyhow::Result<Transport> {
        if let Some(transport) = self.built.get(&role) {
            return Ok(transport.clone());
        }
        let name = role.name();
        let endpoint = self
            .config
            .peers
            .get(name)
            .with_context(|| format!("`peers.{name}` is not set and {name} is not here"))?;
        pavior_rpc::transport::check_endpoint(endpoint, None).with_context(|| format!("`peers.{name}`"))?;
        Ok(remote(endpoint, None))
    }

    fn limits(&self, name: &'static str) -> StackOptions {
        let limits = &self.config.limits;
        StackOptions {
            name,
            max_concurrency: limits.max_concurrency,
            default_deadline: Duration::from_millis(limits.default_deadline_ms),
            max_deadline: Duration::from_millis(limits.max_deadline_ms),
            max_message_bytes: limits.max_message_bytes,
            drain: self.drain.clone(),
            meter: Some(self.telemetry.meter(name)),
            ids: self.ids.clone(),
            ..StackOptions::default()
        }
    }

    /// Puts the stack around a service and makes it callable: for its peers here, and on a listener when it is apart.
    ///
    /// # Errors
    /// Methods that do not say who may call them.
    async fn add(
        &mut self,
        role: Role,
        component: Component,
        max_message_bytes: usize,
    ) -> anyhow::Result<()> {
        let rules = CallRules::of(&component.services)?;
        let authn = authn_layer(self.trust.verifier(), role.name(), rules);
        let options = StackOptions {
            authn: Some(AuthnLayer::new(authn)),
            max_message_bytes,
            ..self.limits(role.name())
        };
        // A service reports its own health only: the health of its peers is for whoever calls both to see.
        let needs = component
            .services
            .iter()
            .map(|service| ((*service).to_owned(), BTreeSet::from([role.name().to_owned()])));
        let health = Health::needing(needs).await;
        let beside = health.add_to(tonic::service::Routes::default());
        let stack = stack(component.routes, options).beside(beside, self.drain.clone());
        self.built.insert(role, local(stack.clone()));
        self.assembly.health.push(health);
        if self.roles.len() < Role::ALL.len() {
            self.assembly.listeners.push(Listener { role, stack });
        }
        self.assembly.tasks.extend(component.tasks);
        self.assembly.checks.extend(component.checks.into_iter().map(|check| check.of(role.name())));
        self.assembly.closing.extend(component.closing);
        Ok(())
    }

    async fn audit(&mut self) -> anyhow::Result<()> {
        let deps = pavior_audit::Deps {
            store: self.store(Role::Audit)?,
            clock: self.clock.clone(),
            meter: self.telemetry.meter("audit"),
        };
        let component = pavior_audit::build(self.config.audit.clone(), deps).await?;
        self.add(Role::Audit, component, pavior_audit::MAX_REQUEST_BYTES).await
    }

    async fn catalog(&mut self) -> anyhow::Result<()> {
        let deps = pavior_catalog::Deps {
            store: self.store(Role::Catalog)?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            identity: self.trust.identity(Role::Catalog)?,
            audit: self.peer(Role::Audit)?,
            page_token_key: self.secrets.page_token,
            meter: self.telemetry.meter("catalog"),
            instance: self.instance.clone(),
        };
        let component = pavior_catalog::build(&self.config.catalog, deps).await?;
        let limit = self.config.limits.max_message_bytes;
        self.add(Role::Catalog, component, limit).await
    }

    async fn policy(&mut self) -> anyhow::Result<()> {
        let deps = pavior_policy::Deps {
            store: self.store(Role::Policy)?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            identity: self.trust.identity(Role::Policy)?,
            catalog: self.peer(Role::Catalog)?,
            audit: self.peer(Role::Audit)?,
            page_token_key: self.secrets.page_token,
            meter: self.telemetry.meter("policy"),
            instance: self.instance.clone(),
        };
        let component = pavior_policy::build(self.config.policy.clone(), deps).await?;
        let limit = self.config.limits.max_message_bytes;
        self.add(Role::Policy, component, limit).await
    }

    async fn provisioning(&mut self, addresses: &BTreeMap<&'static str, SocketAddr>) -> anyhow::Result<()> {
        let sealing_key = self.secrets.sealing.context("no sealing key")?;
        let drivers = self.drivers(addresses, DriversKey::derive(&sealing_key))?;
        let remote = &self.config.drivers.remote;
        let (checks, connector) =
            remote_drivers::connect(remote, &drivers.registry, &self.clock, &self.ids).await?;
        self.assembly.checks.extend(checks);
        self.assembly.tasks.push(connector);
        let deps = pavior_provisioning::Deps {
            store: self.store(Role::Provisioning)?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            identity: self.trust.identity(Role::Provisioning)?,
            catalog: self.peer(Role::Catalog)?,
            policy: self.peer(Role::Policy)?,
            audit: self.peer(Role::Audit)?,
            drivers: drivers.registry.clone(),
            sealing_key: SealingKey::new(sealing_key),
            page_token_key: self.secrets.page_token,
            meter: self.telemetry.meter("provisioning"),
            instance: self.instance.clone(),
        };
        let pushes = pavior_provisioning::push_recorder(&self.config.provisioning, &deps);
        let component = pavior_provisioning::build(self.config.provisioning.clone(), deps).await?;
        let limit = self.config.limits.max_message_bytes;
        self.add(Role::Provisioning, component, limit).await?;
        self.assembly.git = Some(drivers.git_router(pushes));
        self.assembly.tasks.push(Task::new("workload_keeper", move |cancel| async move {
            drivers.run(cancel).await;
            Ok(())
        }));
        Ok(())
    }

    fn drivers(
        &self,
        addresses: &BTreeMap<&'static str, SocketAddr>,
        key: DriversKey,
    ) -> anyhow::Result<pavior_drivers::Drivers> {
        let settings = &self.config.drivers;
        // Only `pavior` has the shim command. Any other program, such as a test, would start itself again.
        let program = settings.program.clone().context("`drivers.program` is not set")?;
        let shim = match &settings.shim {
            Some(command) => command.iter().map(|part| part.clone().into_os_string()).collect(),
            None => vec![program.clone().into_os_string(), "__shim".into()],
        };
        let mut environment = pavior_drivers::inherited(&|name| std::env::var(name).ok(), &settings.inherit);
        // The SQL client that skeletons use, so that they need no driver of their own.
        environment.insert("PAVIOR_SQL".to_owned(), program.display().to_string());
        let mut config = DriversConfig::new(drivers_directory(&self.config.data_dir), shim, environment, key);
        config.git.skeleton_roots = settings.skeleton_roots.clone();
        config.git.public_url = match (settings.git_public_url.as_str(), addresses.get("git")) {
            ("", Some(address)) => format!("http://{address}"),
            (url, _) => url.trim_end_matches('/').to_owned(),
        };
        config.git.request_timeout = Duration::from_millis(settings.git_request_timeout_ms);
        config.git.max_push_bytes = settings.git_max_push_bytes;
        config.git.max_repository_bytes = settings.git_max_repository_bytes;
        config.postgres_url = settings.postgres_url.clone();
        Ok(pavior_drivers::build(&config)?)
    }

    fn gateway(&mut self) -> anyhow::Result<()> {
        let mut config = self.config.gateway.clone();
        if self.config.development.issuer {
            let directory = dev_issuer_directory(&self.config.data_dir);
            let issuer = pavior_auth::DevIssuer::open(&directory, self.clock.clone(), self.ids.clone())?;
            tracing::warn!("tokens of the development issuer are accepted");
            let organizations = self.config.development.organizations.iter().cloned();
            let organizations = organizations.chain([INSTALLATION.to_owned()]).collect();
            let operator = format!("organizations/{INSTALLATION}/users/{DEV_OPERATOR}");
            config.issuers.push(issuer.config(organizations, vec![operator]));
        }
        anyhow::ensure!(
            !config.issuers.is_empty(),
            "no token issuer is configured: set `gateway.issuers`, or `development.issuer` on a machine of your own"
        );
        let mut upstreams = BTreeMap::new();
        for role in [Role::Audit, Role::Catalog, Role::Policy, Role::Provisioning] {
            upstreams.insert(role.name().to_owned(), self.peer(role)?);
        }
        let deps = pavior_gateway::Deps {
            identity: self.trust.identity(Role::Gateway)?,
            tokens: TokenVerifier::new(config.issuers.clone(), self.clock.clone())?,
            upstreams,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            meter: self.telemetry.meter("gateway"),
            descriptors: pavior_proto::DESCRIPTORS,
        };
        let mut component = pavior_gateway::build(&config, deps)?;
        self.assembly.tasks.append(&mut component.tasks);
        // A service of this process reports its health itself. A check of it through the gateway would wait for this one.
        let here = |check: &HealthCheck| self.built.keys().any(|role| role.name() == check.role);
        let checks = std::mem::take(&mut component.checks).into_iter().filter(|check| !here(check));
        let checks: Vec<_> = checks.map(|check| check.of(Role::Gateway.name())).collect();
        self.assembly.checks.extend(checks);
        self.assembly.closing.append(&mut component.closing);
        self.assembly.gateway = Some(component);
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<Assembly> {
        if let Some(component) = self.assembly.gateway.take() {
            let needs = pavior_gateway::needs(pavior_proto::DESCRIPTORS)?.into_iter();
            let needs = needs.map(|(service, mut roles)| {
                roles.insert(Role::Gateway.name().to_owned());
                (service.to_owned(), roles)
            });
            let health = Health::needing(needs).await;
            let options = self.limits("gateway");
            let stack = pavior_gateway::front(&self.config.gateway, &component, options, &health)?;
            self.assembly.listeners.push(Listener { role: Role::Gateway, stack });
            self.assembly.health.push(health);
        }
        let Parts { listeners, tasks, checks, closing, health, git, .. } = self.assembly;
        Ok(Assembly { health, listeners, tasks, checks, closing, git, drain: self.drain })
    }
}

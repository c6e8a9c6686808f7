//! Puts the requested services together: each gets its database, its identity and its peers, and a stack around it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pavior_auth::{AllowList, TokenVerifier, authn_layer};
use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id::{IdGen, SystemIds};
use pavior_driver::{Driver as _, Registry};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions};
use pavior_drivers::DriversConfig;
use pavior_provisioning::SealingKey;
use pavior_rpc::server::{AuthnLayer, Stack, StackOptions, stack};
use pavior_rpc::{ClientTls, Health, Transport, local, remote};
use pavior_runtime::telemetry::Guard;
use pavior_runtime::{Component, HealthCheck, Task};
use pavior_store::{DatabaseConfig, Store};
use tokio_util::sync::CancellationToken;

use super::keys::{self, Trust};
use super::{Config, DEV_OPERATOR, Role, dev_issuer_directory, drivers_directory};

/// A stack to be served on a role's own listener.
pub(super) struct Door {
    pub(super) role: Role,
    pub(super) stack: Stack,
}

/// Everything that runs in a process.
pub(super) struct Assembly {
    pub(super) health: Health,
    pub(super) doors: Vec<Door>,
    pub(super) tasks: Vec<Task>,
    pub(super) checks: Vec<HealthCheck>,
    pub(super) closing: Vec<Task>,
    pub(super) git: Option<axum::Router>,
    /// To be cancelled when draining begins, so that streams end and do not hold it up.
    pub(super) drain: CancellationToken,
}

/// Applies the migrations of a role's database.
pub(super) async fn migrate(role: Role, store: &Store) -> anyhow::Result<()> {
    match role {
        Role::Audit => pavior_audit::migrate(store).await?,
        Role::Catalog => pavior_catalog::migrate(store).await?,
        Role::Policy => pavior_policy::migrate(store).await?,
        Role::Provisioning => pavior_provisioning::migrate(store).await?,
        Role::Gateway => {}
    }
    Ok(())
}

/// What all components of a process share while it is put together.
struct Builder<'a> {
    config: &'a Config,
    roles: BTreeSet<Role>,
    telemetry: &'a Guard,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    trust: Trust,
    page_token_key: [u8; 32],
    /// Names this process among the replicas of its services.
    instance: String,
    /// The services of this process that are built already, for those that call them.
    built: BTreeMap<Role, Transport>,
    /// Cancelled when draining begins.
    drain: CancellationToken,
    assembly: Parts,
}

#[derive(Default)]
struct Parts {
    doors: Vec<Door>,
    tasks: Vec<Task>,
    checks: Vec<HealthCheck>,
    closing: Vec<Task>,
    services: Vec<&'static str>,
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
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdGen> = Arc::new(SystemIds);
    let whole = roles.len() == Role::ALL.len();
    let page_token_file = config.keys.page_token_file.as_deref().context("no file for the page token key")?;
    let mut builder = Builder {
        config,
        roles: roles.iter().copied().collect(),
        telemetry,
        trust: Trust::load(config, roles, &clock, &ids)?,
        page_token_key: keys::secret_file(page_token_file, whole)?,
        instance: ids.uuid().to_string(),
        clock,
        ids,
        built: BTreeMap::new(),
        drain: CancellationToken::new(),
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
    async fn store(&self, role: Role, database: &DatabaseConfig) -> anyhow::Result<Store> {
        std::fs::create_dir_all(&self.config.data_dir)
            .with_context(|| format!("cannot make `{}`", self.config.data_dir.display()))?;
        Store::connect(database, role.name()).await.context("its database")
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
            meter: Some(self.telemetry.meter(name)),
            ids: self.ids.clone(),
            ..StackOptions::default()
        }
    }

    /// Puts the stack around a service and makes it callable: for its peers here, and on a listener when it is apart.
    fn add(&mut self, role: Role, component: Component, allow: AllowList, max_message_bytes: usize) {
        let authn = authn_layer(self.trust.verifier(), role.name(), allow);
        let options = StackOptions {
            authn: Some(AuthnLayer::new(authn)),
            max_message_bytes,
            ..self.limits(role.name())
        };
        let stack = stack(component.routes, options);
        self.built.insert(role, local(stack.clone()));
        if self.roles.len() < Role::ALL.len() {
            self.assembly.doors.push(Door { role, stack });
            self.assembly.services.extend(component.services);
        }
        self.assembly.tasks.extend(component.tasks);
        self.assembly.checks.extend(component.checks);
        self.assembly.closing.extend(component.closing);
    }

    async fn audit(&mut self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.config.data_dir)?;
        let deps = pavior_audit::Deps {
            clock: self.clock.clone(),
            meter: self.telemetry.meter("audit"),
            drain: self.drain.clone(),
        };
        let component = pavior_audit::build(self.config.audit.clone(), deps).await?;
        self.add(Role::Audit, component, pavior_audit::allow_list(), pavior_audit::MAX_REQUEST_BYTES);
        Ok(())
    }

    async fn catalog(&mut self) -> anyhow::Result<()> {
        let deps = pavior_catalog::Deps {
            store: self.store(Role::Catalog, &self.config.catalog.database).await?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            identity: self.trust.identity(Role::Catalog)?,
            audit: self.peer(Role::Audit)?,
            page_token_key: self.page_token_key,
            instance: self.instance.clone(),
        };
        let component = pavior_catalog::build(&self.config.catalog, deps).await?;
        let limit = self.config.limits.max_message_bytes;
        self.add(Role::Catalog, component, pavior_catalog::allow_list(), limit);
        Ok(())
    }

    async fn policy(&mut self) -> anyhow::Result<()> {
        let deps = pavior_policy::Deps {
            store: self.store(Role::Policy, &self.config.policy.database).await?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            identity: self.trust.identity(Role::Policy)?,
            catalog: self.peer(Role::Catalog)?,
            audit: self.peer(Role::Audit)?,
            page_token_key: self.page_token_key,
            meter: self.telemetry.meter("policy"),
            instance: self.instance.clone(),
        };
        let component = pavior_policy::build(self.config.policy.clone(), deps).await?;
        let limit = self.config.limits.max_message_bytes;
        self.add(Role::Policy, component, pavior_policy::allow_list(), limit);
        Ok(())
    }

    async fn provisioning(&mut self, addresses: &BTreeMap<&'static str, SocketAddr>) -> anyhow::Result<()> {
        let sealing_file = self.config.keys.sealing_file.as_deref().context("no file for the sealing key")?;
        let whole = self.roles.len() == Role::ALL.len();
        let drivers = self.drivers(addresses)?;
        let deps = pavior_provisioning::Deps {
            store: self.store(Role::Provisioning, &self.config.provisioning.database).await?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            identity: self.trust.identity(Role::Provisioning)?,
            catalog: self.peer(Role::Catalog)?,
            policy: self.peer(Role::Policy)?,
            audit: self.peer(Role::Audit)?,
            drivers: self.registry(&drivers.registry).await?,
            sealing_key: SealingKey::new(keys::secret_file(sealing_file, whole)?),
            page_token_key: self.page_token_key,
            meter: self.telemetry.meter("provisioning"),
            instance: self.instance.clone(),
        };
        let component = pavior_provisioning::build(self.config.provisioning.clone(), deps).await?;
        let limit = self.config.limits.max_message_bytes;
        self.add(Role::Provisioning, component, pavior_provisioning::allow_list(), limit);
        self.assembly.git = Some(drivers.git_router.clone());
        self.assembly.tasks.push(Task::new("workload_keeper", move |cancel| async move {
            drivers.run(cancel).await;
            Ok(())
        }));
        Ok(())
    }

    /// The built-in drivers with those in other processes. One that cannot be reached stops the start: what it made
    /// could neither be changed nor taken down without it.
    async fn registry(&self, built_in: &Registry) -> anyhow::Result<Registry> {
        let mut registry = built_in.clone();
        for remote in &self.config.drivers.remote {
            let tls = match &remote.ca_file {
                Some(path) => Some(ClientTls {
                    ca_pem: std::fs::read(path)
                        .with_context(|| format!("cannot read `{}`", path.display()))?,
                    identity: None,
                    domain: None,
                }),
                None => None,
            };
            let options = RemoteOptions {
                clock: self.clock.clone(),
                ids: self.ids.clone(),
                ..RemoteOptions::default()
            };
            let driver = RemoteDriver::connect_endpoint(&remote.endpoint, tls, options)
                .await
                .with_context(|| format!("the driver at `{}`", remote.endpoint))?;
            let id = driver.info().id;
            anyhow::ensure!(registry.get(&id).is_none(), "there are two drivers `{id}`");
            tracing::info!(driver = id, endpoint = remote.endpoint, "remote driver connected");
            registry = registry.with(Arc::new(driver));
        }
        Ok(registry)
    }

    fn drivers(
        &self,
        addresses: &BTreeMap<&'static str, SocketAddr>,
    ) -> anyhow::Result<pavior_drivers::Drivers> {
        let settings = &self.config.drivers;
        let program = match &settings.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("cannot find this program's own file")?,
        };
        let shim = match &settings.shim {
            Some(command) => command.iter().map(|part| part.clone().into_os_string()).collect(),
            None => vec![program.clone().into_os_string(), "__shim".into()],
        };
        let mut environment = pavior_drivers::inherited(&|name| std::env::var(name).ok(), &settings.inherit);
        // The SQL client that skeletons use, so that they need no driver of their own.
        environment.insert("PAVIOR_SQL".to_owned(), program.display().to_string());
        let mut config = DriversConfig::new(drivers_directory(&self.config.data_dir), shim, environment);
        config.git.skeleton_roots = settings.skeleton_roots.clone();
        config.git.public_url = match (settings.git_public_url.as_str(), addresses.get("git")) {
            ("", Some(address)) => format!("http://{address}"),
            (url, _) => url.trim_end_matches('/').to_owned(),
        };
        config.postgres_url = settings.postgres_url.clone();
        Ok(pavior_drivers::build(&config)?)
    }

    fn gateway(&mut self) -> anyhow::Result<()> {
        let mut config = self.config.gateway.clone();
        if self.config.development.issuer {
            let directory = dev_issuer_directory(&self.config.data_dir);
            let issuer = pavior_auth::DevIssuer::open(&directory, self.clock.clone(), self.ids.clone())?;
            tracing::warn!("tokens of the development issuer are accepted");
            config.issuers.push(issuer.config(vec![DEV_OPERATOR.to_owned()]));
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
        self.assembly.checks.append(&mut component.checks);
        self.assembly.closing.append(&mut component.closing);
        self.assembly.services.extend(component.services.iter().copied());
        self.assembly.gateway = Some(component);
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<Assembly> {
        self.assembly.services.sort_unstable();
        self.assembly.services.dedup();
        let health = Health::new(&self.assembly.services).await;
        let gateway_options = self.limits("gateway");
        let Parts { doors, tasks, checks, closing, gateway, git, .. } = self.assembly;
        let mut all = Vec::new();
        for door in doors {
            let beside = health.add_to(tonic::service::Routes::default());
            all.push(Door { role: door.role, stack: door.stack.beside(beside) });
        }
        if let Some(component) = gateway {
            let stack = pavior_gateway::front(&self.config.gateway, &component, gateway_options, &health)?;
            all.push(Door { role: Role::Gateway, stack });
        }
        Ok(Assembly { health, doors: all, tasks, checks, closing, git, drain: self.drain })
    }
}

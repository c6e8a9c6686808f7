//! The configuration of a process: documented defaults, a file, the environment, the command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pavior_runtime::config::Validate;
use pavior_runtime::telemetry::TelemetryConfig;
use pavior_store::DatabaseConfig;
use secrecy::SecretString;
use serde::Deserialize;

use super::role::Role;
use crate::cli::args::ConfigArgs;

/// Every setting with its default.
pub(super) const DEFAULTS: &str = include_str!("config.default.toml");

/// The platform's own user whom the development issuer may speak for: it may act on the platform itself.
pub const DEV_OPERATOR: &str = "operator";

/// Variables that belong to the client commands and to the tests.
const NOT_CONFIGURATION: &[&str] = &[
    "PAVIOR_CONFIG",
    "PAVIOR_SERVER",
    "PAVIOR_TOKEN",
    "PAVIOR_TOKEN_FILE",
    "PAVIOR_ORGANIZATION",
    "PAVIOR_CA_FILE",
    "PAVIOR_DATA",
    "PAVIOR_SQL",
    "PAVIOR_PROTO_BASE",
    "PAVIOR_QUICKSTART_*",
    "PAVIOR_TEST_*",
];

/// The configuration of a process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept that no database holds.
    pub data_dir: PathBuf,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Where services of other processes are.
    pub peers: BTreeMap<String, String>,
    /// TLS of the gateway's listener.
    #[serde(default)]
    pub tls: Tls,
    /// Keys by which services believe each other.
    #[serde(default)]
    pub internal: Internal,
    /// Other keys.
    #[serde(default)]
    pub keys: Keys,
    /// What is for development only.
    pub development: Development,
    /// Limits of every listener.
    pub limits: Limits,
    /// Times of the shutdown.
    pub shutdown: Shutdown,
    /// The built-in drivers.
    pub drivers: Drivers,
    /// Logs, traces, metrics.
    pub telemetry: TelemetryConfig,
    /// The gateway.
    pub gateway: pavior_gateway::Config,
    /// The audit service.
    pub audit: pavior_audit::Config,
    /// The catalog.
    pub catalog: pavior_catalog::Config,
    /// Policy.
    pub policy: pavior_policy::Config,
    /// Provisioning.
    pub provisioning: pavior_provisioning::Config,
}

/// Addresses to listen on; port 0 takes a free one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Callers.
    pub gateway: SocketAddr,
    /// Operators: metrics, liveness, readiness.
    pub admin: SocketAddr,
    /// Repositories over smart HTTP.
    pub git: SocketAddr,
    /// The audit service, when it runs apart.
    pub audit: SocketAddr,
    /// The catalog, when it runs apart.
    pub catalog: SocketAddr,
    /// Policy, when it runs apart.
    pub policy: SocketAddr,
    /// Provisioning, when it runs apart.
    pub provisioning: SocketAddr,
}

/// PEM files of the gateway's listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The authority whose certificates callers must have.
    pub client_ca_file: Option<PathBuf>,
}

/// Where the keys are by which services believe each other.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Internal {
    /// Holds `{role}.pem` of the roles in this process.
    pub private_key_dir: Option<PathBuf>,
    /// Holds `{role}.pub.pem` of every role.
    pub public_key_dir: Option<PathBuf>,
}

/// Files of 32 bytes in hexadecimal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Seals secret outputs.
    pub sealing_file: Option<PathBuf>,
    /// Protects page tokens.
    pub page_token_file: Option<PathBuf>,
}

/// What is for development only.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Development {
    /// Accepts tokens of the issuer whose key lies in the data folder.
    pub issuer: bool,
    /// The organizations that this issuer may speak for.
    pub organizations: Vec<String>,
}

/// Limits of every listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Calls worked on at once in a service.
    pub max_concurrency: usize,
    /// The limit of a unary call that brings none.
    pub default_deadline_ms: u64,
    /// The longest limit of a unary call.
    pub max_deadline_ms: u64,
    /// The largest request message.
    pub max_message_bytes: usize,
}

/// Times of the shutdown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// From NOT_SERVING until no more connections are taken.
    pub notice_ms: u64,
    /// For calls in progress; those that are not answered by then get UNAVAILABLE and can be repeated.
    pub grace_ms: u64,
    /// For background work to end.
    pub task_grace_ms: u64,
}

/// The built-in drivers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drivers {
    /// Folders with skeletons.
    pub skeleton_roots: Vec<PathBuf>,
    /// Where repositories are reachable; the git listener when empty.
    pub git_public_url: String,
    /// The longest that one fetch or push may take.
    pub git_request_timeout_ms: u64,
    /// The most bytes that a push may bring.
    pub git_max_push_bytes: u64,
    /// The most bytes of a repository; a push that would make it larger is refused.
    pub git_max_repository_bytes: u64,
    /// Variables of this process that pipelines and workloads may see.
    pub inherit: Vec<String>,
    /// A PostgreSQL server for `sql-database` resources.
    pub postgres_url: Option<SecretString>,
    /// Drivers in processes of their own.
    #[serde(default)]
    pub remote: Vec<RemoteDriver>,
    /// The command that runs the shim; `program` when absent.
    pub shim: Option<Vec<PathBuf>>,
    /// The program `pavior`: the shim, and what workloads find as `PAVIOR_SQL`. The one that runs when absent.
    pub program: Option<PathBuf>,
}

/// A driver in a process of its own that speaks `pavior.driver.v1`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteDriver {
    /// Where it listens, `http://host:port` or `https://host:port`.
    pub endpoint: String,
    /// PEM certificates that its certificate is checked against; needed for `https`.
    pub ca_file: Option<PathBuf>,
}

/// The file of a service's SQLite database in a data folder.
pub fn database_file(data_dir: &Path, role: &str) -> PathBuf {
    data_dir.join(format!("{role}.db"))
}

/// Where the development issuer keeps its key.
pub fn dev_issuer_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("dev-issuer")
}

/// Where the built-in drivers keep what they make.
pub fn drivers_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("platform")
}

impl Config {
    /// The configuration of everything in one process, on SQLite below `data_dir`, on free ports, with the
    /// development issuer. Takes nothing from the environment. `program` is the program `pavior`, which drivers start as
    /// their shim.
    pub fn embedded(data_dir: &Path, program: &Path) -> anyhow::Result<Self> {
        let free = "127.0.0.1:0".to_owned();
        let mut overrides = vec![
            ("data_dir".to_owned(), data_dir.display().to_string()),
            ("development.issuer".to_owned(), "true".to_owned()),
            ("shutdown.notice_ms".to_owned(), "0".to_owned()),
            ("drivers.program".to_owned(), program.display().to_string()),
        ];
        for listener in ["gateway", "admin", "git", "audit", "catalog", "policy", "provisioning"] {
            overrides.push((format!("listen.{listener}"), free.clone()));
        }
        load_from(None, Vec::new(), &overrides)
    }

    /// Each role that has a database, with the database.
    pub fn databases(&self) -> [(Role, &DatabaseConfig); 4] {
        [
            (Role::Audit, &self.audit.database),
            (Role::Catalog, &self.catalog.database),
            (Role::Policy, &self.policy.database),
            (Role::Provisioning, &self.provisioning.database),
        ]
    }

    /// Makes the data folder for its owner alone, and refuses one that others may enter.
    pub(super) fn own_data_folder(&self) -> anyhow::Result<()> {
        pavior_files::own_directory(&self.data_dir)
            .with_context(|| format!("the data folder `{}` cannot be used", self.data_dir.display()))
    }

    /// What an operator wants to see at a glance; no secret stands in it.
    pub fn summary(&self) -> String {
        let mut lines = vec![
            format!("data_dir = {}", self.data_dir.display()),
            format!("listen.gateway = {}", self.listen.gateway),
            format!("listen.admin = {}", self.listen.admin),
            format!("tls = {}", if self.tls.certificate_file.is_some() { "on" } else { "off" }),
            format!("development.issuer = {}", self.development.issuer),
            format!(
                "gateway.issuers = {}",
                self.gateway.issuers.iter().map(|i| i.issuer.as_str()).collect::<Vec<_>>().join(", ")
            ),
        ];
        for (role, database) in self.databases() {
            let kind = if database.url.expose().starts_with("sqlite") { "SQLite" } else { "PostgreSQL" };
            lines.push(format!("{}.database = {kind}", role.name()));
        }
        lines.join("\n")
    }

    /// Fills in what follows from the data folder.
    fn complete(&mut self) -> anyhow::Result<()> {
        self.data_dir = std::path::absolute(&self.data_dir)?;
        let data_dir = self.data_dir.clone();
        for (role, database) in [
            ("audit", &mut self.audit.database),
            ("catalog", &mut self.catalog.database),
            ("policy", &mut self.policy.database),
            ("provisioning", &mut self.provisioning.database),
        ] {
            if database.url.expose().is_empty() {
                database.url =
                    format!("sqlite://{}?mode=rwc", database_file(&data_dir, role).display()).as_str().into();
            }
        }
        if self.audit.signing_key_file.is_none() && self.audit.signing_key_pem.is_none() {
            self.audit.signing_key_file = Some(data_dir.join("keys").join("audit-signing.pem"));
        }
        if self.audit.checkpoints_dir.is_none() {
            self.audit.checkpoints_dir = Some(data_dir.join("checkpoints"));
        }
        let folder = |given: &Option<PathBuf>, name: &str| {
            Some(given.clone().unwrap_or_else(|| data_dir.join("keys").join(name)))
        };
        self.internal.private_key_dir = folder(&self.internal.private_key_dir, "private");
        self.internal.public_key_dir = folder(&self.internal.public_key_dir, "public");
        self.keys.sealing_file = folder(&self.keys.sealing_file, "sealing");
        self.keys.page_token_file = folder(&self.keys.page_token_file, "page-token");
        Ok(())
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            problems
                .push("`tls.certificate_file` and `tls.key_file` must both be set, or neither".to_owned());
        }
        if self.tls.client_ca_file.is_some() && self.tls.certificate_file.is_none() {
            problems.push("`tls.client_ca_file` needs `tls.certificate_file`".to_owned());
        }
        for peer in self.peers.keys() {
            if !Role::ALL.iter().any(|role| role.name() == peer && *role != Role::Gateway) {
                problems.push(format!("`peers.{peer}` is no service"));
            }
        }
        if self.limits.default_deadline_ms > self.limits.max_deadline_ms {
            problems
                .push("`limits.default_deadline_ms` must not be above `limits.max_deadline_ms`".to_owned());
        }
        for (role, database) in self.databases() {
            // One that is not named is a SQLite file in the data folder.
            let url = match database.url.expose() {
                "" => "sqlite://data".into(),
                _ => database.url.clone(),
            };
            if let Err(error) = (DatabaseConfig { url, ..database.clone() }).validate() {
                problems.push(format!("`{}.database`: {error}", role.name()));
            }
        }
        if let Err(error) = self.gateway.validate() {
            problems.push(format!("`gateway`: {error}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// Loads the configuration of a process.
pub(super) fn load(args: &ConfigArgs) -> anyhow::Result<Config> {
    let mut overrides = Vec::new();
    for set in &args.set {
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| anyhow::anyhow!("`--set {set}` is not of the form KEY=VALUE"))?;
        overrides.push((key.to_owned(), value.to_owned()));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut config = load_from(args.config.as_deref(), environment, &overrides)?;
    if config.drivers.program.is_none() {
        config.drivers.program = Some(this_program()?);
    }
    Ok(config)
}

/// The file of this program.
pub(crate) fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

fn load_from(
    file: Option<&Path>,
    env: Vec<(String, String)>,
    overrides: &[(String, String)],
) -> anyhow::Result<Config> {
    let mut config: Config = pavior_runtime::config::load_from(&pavior_runtime::config::Sources {
        defaults: DEFAULTS,
        file,
        env,
        env_prefix: "PAVIOR_",
        env_ignored: NOT_CONFIGURATION,
        overrides,
    })?;
    config.complete()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_complete() {
        let config = load_from(None, Vec::new(), &[]).unwrap();
        assert!(config.data_dir.is_absolute());
        for (role, database) in config.databases() {
            assert!(database.url.expose().contains(role.name()), "{}", role.name());
        }
        assert!(!config.development.issuer);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest() {
        let overrides = [("listen.gatway".to_owned(), "127.0.0.1:1".to_owned())];
        let error = load_from(None, Vec::new(), &overrides).unwrap_err().to_string();
        assert!(error.contains("listen.gateway"), "{error}");
    }

    #[test]
    fn a_database_of_another_kind_is_refused() {
        let overrides = [("catalog.database.url".to_owned(), "mysql://u:hunter2@h/d".to_owned())];
        let error = load_from(None, Vec::new(), &overrides).unwrap_err().to_string();
        assert!(error.contains("`catalog.database`"), "{error}");
        assert!(error.contains("`url` must begin with `sqlite://` or `postgres://`"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn half_of_tls_is_refused() {
        let overrides = [("tls.key_file".to_owned(), "k".to_owned())];
        assert!(load_from(None, Vec::new(), &overrides).is_err());
    }

    #[test]
    fn client_variables_are_no_configuration() {
        let env = vec![
            ("PAVIOR_SERVER".to_owned(), "http://x".to_owned()),
            ("PAVIOR_LISTEN__GATEWAY".to_owned(), "127.0.0.1:9".to_owned()),
        ];
        assert_eq!(load_from(None, env, &[]).unwrap().listen.gateway.port(), 9);
    }
}

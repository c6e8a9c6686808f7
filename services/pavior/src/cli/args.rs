//! The command line.

mod artifact;
mod group;
mod operation;
mod operator;
mod plan;
mod project;
mod template;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use artifact::{ArtifactCommand, RunArg};
pub use group::GroupCommand;
pub use operation::{OpCommand, OperationArg, VoteArgs};
pub use operator::{
    ConfigArgs, ConfigCommand, DoctorArgs, DriverCommand, DriverTestArgs, QuickstartArgs, RestoreArgs,
    ServeArgs, TokenArgs,
};
pub use plan::{PlanCommand, Planned};
pub use project::{
    DeploySpec, EnvChange, EnvCommand, EnvRemoval, EnvSpec, Executed, OrphanRemoval, ProjectChange,
    ProjectCommand, ProjectRemoval, ProjectRepair, ProjectSpec, PromoteSpec, ResourceCommand, RunSpec,
    WaitArgs,
};
pub use template::TemplateCommand;

use super::client::request_id;
use super::exit;

/// Pavior: self-service on golden paths, through one governed API.
#[derive(Debug, Parser)]
#[command(name = "pavior", version, after_help = after_help())]
pub struct Cli {
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = GLOBAL)]
    pub output: Format,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(subcommand)]
    pub command: Command,
}

const OPERATIONS: &str =
    "For those who run a platform: docs/operations.md says how to back up, restore and upgrade.";

const GLOBAL: &str = "Global options";

/// In the place of an id: all that there are.
pub(super) const ALL: &str = "-";

fn after_help() -> String {
    format!("Exit codes:\n{}\n{OPERATIONS}", exit::help())
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// JSON for scripts: the API's own messages.
    Json,
}

/// Where the server is and who calls; each can also stand in the file that `pavior login` writes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = GLOBAL)]
pub struct ConnectionArgs {
    /// The gateway's address, for example http://127.0.0.1:7410.
    #[arg(long, global = true, env = "PAVIOR_SERVER", hide_env_values = true, value_name = "URL")]
    pub server: Option<String>,
    /// A file that holds the token. PAVIOR_TOKEN may hold the token itself.
    #[arg(long, global = true, env = "PAVIOR_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The organization that short names belong to.
    #[arg(long, global = true, env = "PAVIOR_ORGANIZATION", hide_env_values = true, value_name = "ID")]
    pub organization: Option<String>,
    /// PEM certificates to trust besides the system's.
    #[arg(long, global = true, env = "PAVIOR_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts everything in one process and tells the whole story of a golden path.
    Quickstart(QuickstartArgs),
    /// Runs services: all of them in this process, or the ones named.
    Serve(ServeArgs),
    /// Brings databases to the current schema and ends.
    #[command(after_help = OPERATIONS)]
    Migrate(ConfigArgs),
    /// Goes on after a database was set back to an older copy or lost. Stop the services first.
    #[command(after_help = OPERATIONS)]
    Restore(RestoreArgs),
    /// Checks the configuration, or prints its defaults.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Makes the keys by which services that run apart believe each other.
    Keys {
        /// The folder to put them into. What is there already is kept.
        #[arg(long)]
        directory: PathBuf,
    },
    /// Looks for what is wrong with a running platform, and says what to do about each thing.
    Doctor(DoctorArgs),
    /// For those who write drivers.
    #[command(subcommand)]
    Driver(DriverCommand),
    /// Makes a token of the development issuer. Never for production.
    Token(TokenArgs),
    /// Remembers a server and a token.
    Login(LoginArgs),
    /// Shows who you are.
    Whoami,
    /// Lists what you may do with a resource.
    Allowed {
        /// The resource, for example projects/hello or groups/storefront, or by its whole name; the organization when
        /// absent. It need not exist.
        #[arg(default_value = "", hide_default_value = true)]
        resource: String,
    },
    /// Lists groups, and says who belongs to them.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Lists, shows and publishes golden paths.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Shows what would happen, and what policy says to it, and changes nothing.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Makes, lists, shows, changes and deletes projects.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Makes, lists, shows, changes and deletes environments.
    #[command(subcommand)]
    Env(EnvCommand),
    /// Lists and shows what was made for projects and environments: repositories, databases, workloads.
    #[command(subcommand)]
    Resource(ResourceCommand),
    /// Runs a project's pipeline.
    Run(Executed<RunSpec>),
    /// Lists runs, the newest first unless --order-by says otherwise.
    Runs {
        /// The project, for example hello, or one of its pipelines, for example hello/pipeline; all projects when absent.
        #[arg(default_value = ALL, hide_default_value = true)]
        pipeline: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Lists and downloads what runs made.
    #[command(subcommand)]
    Artifact(ArtifactCommand),
    /// Deploys a run into an environment.
    Deploy(Executed<DeploySpec>),
    /// Puts what runs in one environment into another.
    Promote(Executed<PromoteSpec>),
    /// Lists deployments, the newest first unless --order-by says otherwise.
    Deployments {
        /// The project, for example hello, or one of its environments, for example hello/development; all projects when
        /// absent.
        #[arg(default_value = ALL, hide_default_value = true)]
        environment: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Lists, follows, waits for, cancels, retries and deletes long-running operations.
    #[command(subcommand)]
    Op(OpCommand),
    /// Lists approvals.
    Approvals(ListArgs),
    /// Says yes to an approval.
    Approve(VoteArgs),
    /// Says no to an approval.
    Deny(VoteArgs),
    /// Lists what policy decided: denials, what needed approvals, and changes that were allowed.
    Decisions(ListArgs),
    /// Shows a decision, with the policies that spoke.
    Decision {
        /// The decision, by id or resource name, as an error names it.
        decision: String,
    },
    /// Lists the audit log, and proves that it is whole.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Brings the organization to what YAML files say.
    Apply(ApplyArgs),
    /// Imports the Backstage catalog-info.yaml files below a folder.
    Import(ImportArgs),
    /// Runs SQL from standard input against DATABASE_URL and prints rows as JSON lines.
    Sql,
    /// Prints a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `pavior login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Reads the token from standard input.
    #[arg(long)]
    pub token_stdin: bool,
}

/// What lists have in common.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// An AIP-160 filter, for example 'FIELD = "value" AND FIELD:*'. A field that the list does not have is answered with
    /// those that it has.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Fields to order by, for example 'create_time desc'.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub order_by: String,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: usize,
}

/// The id under which a change is asked for.
#[derive(Debug, Clone, Args)]
pub struct RequestArgs {
    /// Makes the call repeatable: the same id (a UUID) with the same request gives the first answer.
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<String>,
}

impl RequestArgs {
    /// The id that was given, or a fresh one.
    pub fn id(&self) -> String {
        self.request_id.clone().unwrap_or_else(request_id)
    }
}

/// Audit commands.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Lists records, the newest first unless --order-by says otherwise.
    List(ListArgs),
    /// Checks an audit database without the server and without its code, and names the first bad record.
    Verify(VerifyArgs),
}

/// `pavior audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The database: a SQLite file or a postgres:// URL.
    pub database: String,
    /// A verifier key in C2SP form (name+id+base64). May be repeated; the database's own is used when absent, which
    /// proves less.
    #[arg(long)]
    pub key: Vec<String>,
    /// A file with a signed checkpoint that was seen before: the log must still begin with what it says. May be
    /// repeated.
    #[arg(long)]
    pub checkpoint: Vec<PathBuf>,
    /// Also compares every SQLite index with its table, which takes longer than all the rest.
    #[arg(long)]
    pub indexes: bool,
}

/// `pavior apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Files or folders of YAML documents.
    #[arg(short = 'f', long = "filename", required = true)]
    pub paths: Vec<PathBuf>,
}

/// `pavior import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The folder below which every catalog-info.yaml is taken, or one such file of any name.
    pub directory: PathBuf,
    /// Checks everything and changes nothing.
    #[arg(long)]
    pub validate_only: bool,
}

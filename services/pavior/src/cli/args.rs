//! The command line.

mod group;
mod operator;
mod template;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use group::GroupCommand;
pub use operator::{
    ConfigArgs, ConfigCommand, DoctorArgs, DriverCommand, DriverTestArgs, QuickstartArgs, RestoreArgs,
    ServeArgs, TokenArgs,
};
pub use template::TemplateCommand;

/// Pavior: self-service on golden paths, through one governed API.
#[derive(Debug, Parser)]
#[command(name = "pavior", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = GLOBAL)]
    pub output: Format,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(subcommand)]
    pub command: Command,
}

const GLOBAL: &str = "Global options";

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or request, 3 not logged in or not allowed, \
4 does not exist, 5 conflict, state or policy forbids, 6 waits for approval, 7 cannot be reached, \
130 interrupted while watching (the operation goes on).";

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
    Migrate(ConfigArgs),
    /// Goes on after a database was set back to an older copy or lost. Stop the services first.
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
    /// Lists groups, and says who belongs to them.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Lists, shows and publishes golden paths.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Shows what would happen, and what policy says to it, and changes nothing.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Makes, lists, shows and deletes projects.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Makes, lists, shows and deletes environments.
    #[command(subcommand)]
    Env(EnvCommand),
    /// Runs a project's pipeline.
    Run(RunArgs),
    /// Deploys a run into an environment.
    Deploy(DeployArgs),
    /// Puts what runs in one environment into another.
    Promote(PromoteArgs),
    /// Lists, follows, cancels and retries long-running operations.
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

/// What long-running calls have in common.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Comes back at once with the operation's name.
    #[arg(long)]
    pub no_wait: bool,
    /// Makes the call repeatable: the same id with the same request gives the first answer.
    #[arg(long)]
    pub request_id: Option<String>,
}

/// What a project is made from.
#[derive(Debug, Clone, Args)]
pub struct ProjectSpec {
    /// The project's id, for example hello.
    pub project: String,
    /// The golden path, for example web-service or web-service@1.0.0; its channel `stable` when no version is given.
    #[arg(long)]
    pub template: String,
    /// The group that will own it, for example storefront.
    #[arg(long)]
    pub owner: String,
    /// A parameter, for example language=rust. May be repeated; values are YAML.
    #[arg(short, long = "parameter", value_name = "KEY=VALUE")]
    pub parameters: Vec<String>,
}

/// What an environment is made from.
#[derive(Debug, Clone, Args)]
pub struct EnvSpec {
    /// The environment, for example hello/staging.
    pub environment: String,
    /// Its class; the environment's id when absent.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub class: String,
    /// A parameter that differs from the project's. May be repeated; values are YAML.
    #[arg(short, long = "parameter", value_name = "KEY=VALUE")]
    pub parameters: Vec<String>,
    /// How long it lives, in minutes.
    #[arg(long)]
    pub ttl_minutes: Option<u32>,
}

/// What becomes of a plan.
#[derive(Debug, Args)]
pub struct KeepArgs {
    /// Keeps the plan, for `pavior plan execute`.
    #[arg(long)]
    pub keep: bool,
}

/// Plans.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Plans a project.
    Project {
        #[command(flatten)]
        spec: ProjectSpec,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// Plans an environment.
    Env {
        #[command(flatten)]
        spec: EnvSpec,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// Plans a deployment.
    Deploy {
        #[command(flatten)]
        spec: DeploySpec,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// Plans taking an environment down.
    DeleteEnv {
        /// The environment, for example hello/staging.
        environment: String,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// Plans taking a project down.
    DeleteProject {
        /// The project, for example hello.
        project: String,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        keep: KeepArgs,
    },
    /// Shows a plan that was kept, or carried out.
    Show {
        /// The plan's id or name.
        plan: String,
    },
    /// Carries a plan out that was kept, if nothing that decides what is done has changed since.
    Execute {
        /// The plan's id or name.
        plan: String,
        /// The digest of the plan that was seen; that of the plan as it was kept when absent.
        #[arg(long, default_value = "", hide_default_value = true)]
        digest: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// Whether what is in a project goes with it.
#[derive(Debug, Clone, Copy, Args)]
pub struct ForceArgs {
    /// Takes its environments down with it. Without this, a project that has any is not deleted.
    #[arg(long)]
    pub force: bool,
}

/// Project commands.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Makes a project from a golden path.
    Create {
        #[command(flatten)]
        spec: ProjectSpec,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Lists projects.
    List(ListArgs),
    /// Shows a project with what belongs to it.
    Show {
        /// The project, for example hello.
        project: String,
    },
    /// Takes a project down.
    Delete {
        /// The project, for example hello.
        project: String,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// Environment commands.
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Makes an environment.
    Create {
        #[command(flatten)]
        spec: EnvSpec,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Lists the environments of a project.
    List {
        /// The project, for example hello.
        project: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Shows an environment and its resources.
    Show {
        /// The environment, for example hello/development.
        environment: String,
    },
    /// Takes an environment down.
    Delete {
        /// The environment, for example hello/staging.
        environment: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// `pavior run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The project, for example hello.
    pub project: String,
    /// The pipeline's id.
    #[arg(long, default_value = "pipeline")]
    pub pipeline: String,
    /// The commit, branch or tag; the default branch when empty.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub revision: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What is deployed, and where.
#[derive(Debug, Clone, Args)]
pub struct DeploySpec {
    /// The environment, for example hello/development.
    pub environment: String,
    /// The run, by resource name or as PIPELINE/RUN; the newest successful one when empty.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub run: String,
}

/// `pavior deploy`.
#[derive(Debug, Args)]
pub struct DeployArgs {
    #[command(flatten)]
    pub spec: DeploySpec,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `pavior promote`.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// The project, for example hello.
    pub project: String,
    /// The environment whose deployment is taken; ENVIRONMENT/DEPLOYMENT where several run in it.
    #[arg(long)]
    pub from: String,
    /// The environment to put it into.
    #[arg(long)]
    pub to: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Operation commands.
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// Lists operations.
    List(ListArgs),
    /// Shows an operation and its steps.
    Show {
        /// The operation, by id or resource name.
        operation: String,
    },
    /// Follows an operation until it is done, or stuck.
    Watch {
        /// The operation, by id or resource name.
        operation: String,
    },
    /// Stops an operation and undoes what it made.
    Cancel {
        /// The operation, by id or resource name.
        operation: String,
    },
    /// Takes up an operation that is stuck.
    Retry {
        /// The operation, by id or resource name.
        operation: String,
    },
}

/// A vote.
#[derive(Debug, Args)]
pub struct VoteArgs {
    /// The approval, by id or resource name.
    pub approval: String,
    /// Why.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
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

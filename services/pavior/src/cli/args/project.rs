//! Projects and what is in them: `pavior project`, `env`, `resource`, `run`, `deploy` and `promote`.

use clap::{Args, Subcommand};

use super::{ALL, ListArgs, RequestArgs};

/// Something that is carried out.
#[derive(Debug, Args)]
pub struct Executed<S: Args> {
    #[command(flatten)]
    pub spec: S,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What long-running calls have in common.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Comes back at once with the operation's name.
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub request: RequestArgs,
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

/// What changes of a project. What is not named stays as it is.
#[derive(Debug, Clone, Args)]
pub struct ProjectChange {
    /// The project, for example hello.
    pub project: String,
    /// The name to show.
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// A label, for example tier=1. May be repeated.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// A label to take away. May be repeated.
    #[arg(long = "unset-label", value_name = "KEY")]
    pub unset: Vec<String>,
}

/// A project to take down.
#[derive(Debug, Clone, Args)]
pub struct ProjectRemoval {
    /// The project, for example hello.
    pub project: String,
    /// Takes its environments down with it. Without this, a project that has any is not deleted.
    #[arg(long)]
    pub force: bool,
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

/// What changes of an environment. What is not named stays as it is.
#[derive(Debug, Clone, Args)]
pub struct EnvChange {
    /// The environment, for example hello/staging.
    pub environment: String,
    /// The name to show.
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// A parameter that differs from the project's. May be repeated; values are YAML.
    #[arg(short, long = "parameter", value_name = "KEY=VALUE")]
    pub parameters: Vec<String>,
    /// A parameter that is the project's again. May be repeated.
    #[arg(long = "unset", value_name = "KEY")]
    pub unset: Vec<String>,
    /// How long it lives from when the operation ends, in minutes.
    #[arg(long)]
    pub ttl_minutes: Option<u32>,
    /// It no longer expires.
    #[arg(long, conflicts_with = "ttl_minutes")]
    pub no_expiry: bool,
}

/// An environment to take down.
#[derive(Debug, Clone, Args)]
pub struct EnvRemoval {
    /// The environment, for example hello/staging.
    pub environment: String,
}

/// A project to mend.
#[derive(Debug, Clone, Args)]
pub struct ProjectRepair {
    /// The project, for example hello.
    pub project: String,
}

/// What a driver has and no resource declares, to remove.
#[derive(Debug, Clone, Args)]
pub struct OrphanRemoval {
    /// The driver that has it.
    pub driver: String,
    /// The driver's name of it.
    pub external_id: String,
}

/// What is run.
#[derive(Debug, Clone, Args)]
pub struct RunSpec {
    /// The project, for example hello.
    pub project: String,
    /// The pipeline's id.
    #[arg(long, default_value = "pipeline")]
    pub pipeline: String,
    /// The commit, branch or tag; the default branch when empty.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub revision: String,
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

/// What is promoted, and where to.
#[derive(Debug, Clone, Args)]
pub struct PromoteSpec {
    /// The project, for example hello.
    pub project: String,
    /// The environment whose deployment is taken; ENVIRONMENT/DEPLOYMENT where several run in it.
    #[arg(long)]
    pub from: String,
    /// The environment to put it into.
    #[arg(long)]
    pub to: String,
}

/// Project commands.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Makes a project from a golden path.
    Create(Executed<ProjectSpec>),
    /// Lists projects.
    List(ListArgs),
    /// Shows a project with what belongs to it.
    Show {
        /// The project, for example hello.
        project: String,
    },
    /// Changes what is said about a project.
    Update {
        #[command(flatten)]
        change: ProjectChange,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Makes anew what a project has itself (repository, pipeline, entry of the catalog) and is gone or differs from its
    /// record.
    Repair(Executed<ProjectRepair>),
    /// Takes a project down.
    Delete(Executed<ProjectRemoval>),
}

/// Environment commands.
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Makes an environment.
    Create(Executed<EnvSpec>),
    /// Lists the environments of a project, or of all.
    List {
        /// The project, for example hello; all projects when absent.
        #[arg(default_value = ALL, hide_default_value = true)]
        project: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Shows an environment and its resources.
    Show {
        /// The environment, for example hello/development.
        environment: String,
    },
    /// Changes parameters or lifetime of an environment. Whatever of it is gone or differs from its record is made anew,
    /// even when nothing is named.
    Update(Executed<EnvChange>),
    /// Takes an environment down.
    Delete(Executed<EnvRemoval>),
}

/// Resource commands.
#[derive(Debug, Subcommand)]
pub enum ResourceCommand {
    /// Lists the resources of a project or of an environment, or of all.
    List {
        /// The project, for example hello, or the environment, for example hello/development. A `-` stands for all of them:
        /// `-` for what belongs to projects themselves, `-/-` or hello/- for what belongs to environments.
        #[arg(allow_hyphen_values = true)]
        parent: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Shows a resource and what its driver answered, such as the address of a repository. Secrets are never shown.
    Show {
        /// The resource, for example hello/repository or hello/development/database.
        resource: String,
    },
    /// Removes something that a driver has and no resource declares, as `pavior doctor` names it. What was in it is lost.
    DeleteOrphan(Executed<OrphanRemoval>),
}

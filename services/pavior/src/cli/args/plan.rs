//! `pavior plan`.

use clap::{Args, Subcommand};

use super::project::{
    DeploySpec, EnvChange, EnvRemoval, EnvSpec, OrphanRemoval, ProjectRemoval, ProjectRepair, ProjectSpec,
    PromoteSpec, RunSpec, WaitArgs,
};
use super::{ListArgs, RequestArgs};

/// Something that is planned.
#[derive(Debug, Args)]
pub struct Planned<S: Args> {
    #[command(flatten)]
    pub spec: S,
    /// Keeps the plan, for `pavior plan execute`.
    #[arg(long)]
    pub keep: bool,
    #[command(flatten)]
    pub request: RequestArgs,
}

/// Plan commands.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Plans a project.
    Project(Planned<ProjectSpec>),
    /// Plans an environment.
    Env(Planned<EnvSpec>),
    /// Plans the change of an environment.
    UpdateEnv(Planned<EnvChange>),
    /// Plans a run of a project's pipeline.
    Run(Planned<RunSpec>),
    /// Plans a deployment.
    Deploy(Planned<DeploySpec>),
    /// Plans putting what runs in one environment into another.
    Promote(Planned<PromoteSpec>),
    /// Plans taking an environment down.
    DeleteEnv(Planned<EnvRemoval>),
    /// Plans mending what a project has itself.
    RepairProject(Planned<ProjectRepair>),
    /// Plans taking a project down.
    DeleteProject(Planned<ProjectRemoval>),
    /// Plans removing what a driver has and no resource declares.
    DeleteOrphan(Planned<OrphanRemoval>),
    /// Lists plans that were kept, or carried out.
    List(ListArgs),
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

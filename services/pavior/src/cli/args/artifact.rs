//! `pavior artifact`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Names a run.
#[derive(Debug, Clone, Args)]
pub struct RunArg {
    /// The run, for example hello/run-3, or hello/release/run-3 of another pipeline than `pipeline`, or by resource name.
    pub run: String,
}

/// Artifact commands.
#[derive(Debug, Subcommand)]
pub enum ArtifactCommand {
    /// Lists what a run made.
    List(RunArg),
    /// Downloads what a run made, and checks that it is just that.
    Download {
        #[command(flatten)]
        run: RunArg,
        /// Which of what it made, as `pavior artifact list` names it.
        artifact: String,
        /// The file to write, which must not exist; when absent, as the artifact is called, in this folder. A folder that
        /// a run made is written as a tar archive.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

//! `pavior template`.

use std::path::PathBuf;

use clap::Subcommand;

use super::ListArgs;

/// Golden path commands.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Lists golden paths.
    List(ListArgs),
    /// Shows a version and its parameters.
    Show {
        /// The golden path, for example web-service or web-service@1.0.0.
        template: String,
    },
    /// Creates a version, the golden path too when it is the first, and points channels at it. A channel that points at a
    /// newer version stays there.
    Publish {
        /// The golden path's YAML document.
        file: PathBuf,
        /// Channels to point at it. May be repeated.
        #[arg(long, default_value = "stable")]
        channel: Vec<String>,
    },
    /// Points a channel at a version; makes the channel when it is not there.
    Channel {
        /// The golden path, with the version to point at: for example web-service@1.0.0.
        template: String,
        /// The channel, for example stable.
        channel: String,
    },
    /// Takes a channel away. Projects that were made from it keep their versions.
    RemoveChannel {
        /// The golden path, for example web-service.
        template: String,
        /// The channel, for example beta.
        channel: String,
        /// That the channel is not there is as good.
        #[arg(long)]
        allow_missing: bool,
    },
}

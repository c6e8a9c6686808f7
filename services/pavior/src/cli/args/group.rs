//! `pavior group`.

use clap::Subcommand;

use super::ListArgs;

/// Group commands.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Lists groups.
    List(ListArgs),
    /// Lists who belongs to a group directly.
    Members {
        /// The group, for example storefront; `-` for all of them.
        group: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Makes a user a member of a group.
    Add {
        /// The group, for example storefront.
        group: String,
        /// The user, for example alice.
        user: String,
    },
    /// Ends a membership.
    Remove {
        /// The group, for example storefront.
        group: String,
        /// The user, for example alice.
        user: String,
    },
}

//! `pavior op`, `approve` and `deny`.

use clap::{Args, Subcommand};

use super::{ListArgs, RequestArgs};

/// Names an operation.
#[derive(Debug, Args)]
pub struct OperationArg {
    /// The operation, by id or resource name.
    pub operation: String,
}

/// Operation commands.
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// Lists operations.
    List(ListArgs),
    /// Shows an operation and its steps.
    Show(OperationArg),
    /// Follows an operation until it is done, or stuck.
    Watch(OperationArg),
    /// Waits until an operation is done, or stuck, and prints only how it ended.
    Wait {
        #[command(flatten)]
        operation: OperationArg,
        /// Gives up after so many seconds; the operation goes on.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
        timeout: Option<u32>,
    },
    /// Stops an operation and undoes what it made. What a restore has held up is given up: everything stays as it is.
    Cancel(OperationArg),
    /// Takes up an operation that is stuck where it stands: of what had failed, and of what a restore has held
    /// up while it was undone, the undo goes on; a deletion goes on, and so does everything else that a restore has held up,
    /// over what is there by now.
    Retry {
        #[command(flatten)]
        operation: OperationArg,
        #[command(flatten)]
        request: RequestArgs,
    },
    /// Deletes the record of an operation that is done.
    Delete(OperationArg),
}

/// A vote.
#[derive(Debug, Args)]
pub struct VoteArgs {
    /// The approval, by id or resource name.
    pub approval: String,
    /// Why.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    #[command(flatten)]
    pub request: RequestArgs,
}

//! The client commands: everything that a developer or an operator does at a terminal, through the public API only.

pub mod apply;
mod approval;
pub mod args;
mod artifact;
pub(crate) mod audit;
mod caller;
pub mod client;
mod decision;
mod doctor;
mod document;
mod driver;
mod dynamic;
mod environment;
pub mod exit;
pub mod failure;
mod group;
mod import;
mod operation;
pub mod output;
mod page;
mod parameters;
mod plan;
pub mod progress;
mod project;
mod publication;
pub(crate) mod requests;
mod retry;
mod settings;
mod sql;
mod template;
mod token;

use clap::CommandFactory as _;
use pavior_proto::pavior::policy::v1::approval::Choice;

use args::{AuditCommand, Cli, Command, ConnectionArgs, DriverCommand};
use client::Client;
use output::Printer;

/// Carries out a command.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let printer = Printer::new(cli.output);
    let connection = cli.connection;
    match cli.command {
        Command::Quickstart(args) => crate::quickstart::run(args).await,
        Command::Serve(args) => crate::serve::run(args).await,
        Command::Migrate(args) => crate::serve::migrate(&args).await,
        Command::Restore(args) => crate::serve::restore(&args, printer).await,
        Command::Config(command) => crate::serve::config_command(command),
        Command::Keys { directory } => crate::serve::generate_keys(&directory),
        Command::Doctor(args) => doctor::run(printer, &connection, &args).await,
        Command::Driver(DriverCommand::Test(args)) => driver::test(printer, &connection, &args).await,
        Command::Token(args) => token::token(&args, &connection).await,
        Command::Sql => sql::run().await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pavior", &mut script);
            output::say(String::from_utf8(script)?.trim_end())
        }
        Command::Audit(AuditCommand::Verify(args)) => audit::verify(printer, &args).await,
        Command::Login(args) => caller::login(printer, &connection, &args).await,
        command => remote(printer, &connection, command).await,
    }
}

async fn remote(printer: Printer, connection: &ConnectionArgs, command: Command) -> anyhow::Result<()> {
    let connection = settings::connection(connection)?;
    let client = Client::new(&connection)?;
    call(&client, printer, command).await.map_err(|error| failure::at_server(error, &connection.server))
}

async fn call(client: &Client, printer: Printer, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Whoami => caller::whoami(client, printer).await,
        Command::Allowed { resource } => caller::allowed(client, printer, &resource).await,
        Command::Group(command) => group::group(client, printer, command).await,
        Command::Template(command) => template::template(client, printer, command).await,
        Command::Plan(command) => plan::plan(client, printer, command).await,
        Command::Project(command) => project::project(client, printer, command).await,
        Command::Env(command) => environment::environment(client, printer, command).await,
        Command::Resource(command) => environment::resource(client, printer, command).await,
        Command::Run(asked) => operation::execute(client, printer, asked).await,
        Command::Runs { pipeline, list } => artifact::runs(client, printer, &pipeline, &list).await,
        Command::Artifact(command) => artifact::artifact(client, printer, command).await,
        Command::Deploy(asked) => operation::execute(client, printer, asked).await,
        Command::Promote(asked) => operation::execute(client, printer, asked).await,
        Command::Deployments { environment, list } => {
            environment::deployments(client, printer, &environment, &list).await
        }
        Command::Op(command) => operation::operation(client, printer, command).await,
        Command::Approvals(list) => approval::list(client, printer, &list).await,
        Command::Approve(args) => approval::vote(client, printer, args, Choice::Approve).await,
        Command::Deny(args) => approval::vote(client, printer, args, Choice::Deny).await,
        Command::Decisions(list) => decision::list(client, printer, &list).await,
        Command::Decision { decision } => decision::show(client, printer, &decision).await,
        Command::Audit(AuditCommand::List(list)) => audit::list(client, printer, &list).await,
        Command::Apply(args) => apply::files(client, printer, &args).await,
        Command::Import(args) => import::import(client, printer, &args).await,
        Command::Quickstart(_)
        | Command::Serve(_)
        | Command::Migrate(_)
        | Command::Restore(_)
        | Command::Config(_)
        | Command::Keys { .. }
        | Command::Doctor(_)
        | Command::Driver(_)
        | Command::Token(_)
        | Command::Sql
        | Command::Completion { .. }
        | Command::Audit(AuditCommand::Verify(_))
        | Command::Login(_) => anyhow::bail!("this command needs no server"),
    }
}

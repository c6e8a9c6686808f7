//! The client commands: everything that a developer or an operator does at a terminal, through the public API only.

pub mod apply;
pub mod args;
pub mod client;
mod decisions;
mod doctor;
mod driver;
mod dynamic;
pub mod failure;
mod groups;
pub(crate) mod lists;
mod local;
pub mod output;
mod parameters;
pub mod progress;
pub(crate) mod requests;
mod retry;
mod settings;
mod sql;
mod work;

use anyhow::Context as _;
use clap::CommandFactory as _;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::policy::v1::approval::Choice;
use serde_json::{Value, json};

use args::{
    ApplyArgs, AuditCommand, Cli, Command, ConnectionArgs, DriverCommand, ImportArgs, LoginArgs,
    TemplateCommand,
};
use client::{Client, request_id};
use failure::OrUsage as _;
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
        Command::Token(args) => local::token(&args, &connection),
        Command::Sql => sql::run().await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "pavior", &mut script);
            output::say(String::from_utf8(script)?.trim_end())
        }
        Command::Audit(AuditCommand::Verify(args)) => local::verify(printer, &args).await,
        Command::Login(args) => login(printer, &connection, &args).await,
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
        Command::Whoami => whoami(client, printer).await,
        Command::Group(command) => groups::group(client, printer, command).await,
        Command::Template(TemplateCommand::List(list)) => lists::templates(client, printer, &list).await,
        Command::Template(TemplateCommand::Show { template }) => {
            lists::template(client, printer, requests::template_version(client, &template)?).await
        }
        Command::Template(TemplateCommand::Channel { template, channel }) => {
            point(client, printer, &template, &channel).await
        }
        Command::Template(TemplateCommand::RemoveChannel { template, channel, allow_missing }) => {
            remove_channel(client, printer, &template, &channel, allow_missing).await
        }
        Command::Template(TemplateCommand::Publish { file, channel }) => {
            publish(client, printer, &file, &channel).await
        }
        Command::Plan(command) => work::plan(client, printer, command).await,
        Command::Project(command) => work::project(client, printer, command).await,
        Command::Env(command) => work::environment(client, printer, command).await,
        Command::Run(args) => work::run(client, printer, args).await,
        Command::Deploy(args) => work::deploy(client, printer, args).await,
        Command::Promote(args) => work::promote(client, printer, args).await,
        Command::Op(command) => lists::operation(client, printer, command).await,
        Command::Approvals(list) => lists::approvals(client, printer, &list).await,
        Command::Approve(args) => lists::vote(client, printer, args, Choice::Approve).await,
        Command::Deny(args) => lists::vote(client, printer, args, Choice::Deny).await,
        Command::Decisions(list) => decisions::list(client, printer, &list).await,
        Command::Decision { decision } => decisions::show(client, printer, &decision).await,
        Command::Audit(AuditCommand::List(list)) => lists::audit_records(client, printer, &list).await,
        Command::Apply(args) => apply_files(client, printer, &args).await,
        Command::Import(args) => import(client, printer, &args).await,
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

async fn login(printer: Printer, args: &ConnectionArgs, login: &LoginArgs) -> anyhow::Result<()> {
    let mut connection = settings::connection(args)?;
    if login.token_stdin {
        let mut token = String::new();
        std::io::stdin().read_line(&mut token).context("cannot read the token from standard input")?;
        connection.token = Some(token.trim().to_owned());
    }
    if connection.token.as_deref().is_none_or(str::is_empty) {
        return Err(failure::wrong_usage("no token: give --token-stdin, --token-file or PAVIOR_TOKEN"));
    }
    let me = Client::new(&connection)?
        .platform()
        .who_am_i(platform::WhoAmIRequest {})
        .await
        .map_err(|status| failure::at_server(status.into(), &connection.server))?
        .into_inner();
    let principal = me.principal.clone().unwrap_or_default();
    let saved = settings::Settings {
        server: Some(connection.server.clone()),
        token: connection.token,
        organization: connection.organization.or(Some(principal.organization_id)).filter(|o| !o.is_empty()),
    };
    let path = saved.save()?;
    printer.one(
        &me,
        &[("you are", principal.name), ("at", connection.server), ("kept in", path.display().to_string())],
    )
}

async fn whoami(client: &Client, printer: Printer) -> anyhow::Result<()> {
    let me = client.platform().who_am_i(platform::WhoAmIRequest {}).await?.into_inner();
    let principal = me.principal.clone().unwrap_or_default();
    printer.one(
        &me,
        &[
            ("you are", principal.name),
            ("email", principal.email),
            ("groups", me.groups.iter().map(|g| output::id(g)).collect::<Vec<_>>().join(", ")),
        ],
    )
}

async fn publish(
    client: &Client,
    printer: Printer,
    file: &std::path::Path,
    channels: &[String],
) -> anyhow::Result<()> {
    let text = apply::read_file(file)?.text;
    let document =
        pavior_expr::yaml::parse(&text).with_context(|| format!("in `{}`", file.display())).or_usage()?;
    let field = |key: &str| {
        let value = document.get(key).and_then(|v| v.as_str());
        value.ok_or_else(|| failure::wrong_usage(format!("`{}` has no `{key}`", file.display())))
    };
    let (name, change) =
        apply::publish(client, field("template")?, field("version")?, &text, channels).await?;
    if printer.is_json() {
        return printer.value(&json!({"name": name, "change": change.to_string()}));
    }
    output::say(&format!("{name}: {change}"))
}

async fn point(client: &Client, printer: Printer, template: &str, channel: &str) -> anyhow::Result<()> {
    let Some((template, version)) = template.split_once('@').filter(|(_, version)| !version.is_empty())
    else {
        let message = format!("say which version, as in `{}@1.0.0`", template.trim_end_matches('@'));
        return Err(failure::wrong_usage(message));
    };
    let name = client.full_name(template, &["templates"])?;
    let version = format!("{name}/versions/{version}");
    let changed = apply::move_channel(client, &name, channel, &version).await?;
    if printer.is_json() {
        return printer.one(&changed, &[]);
    }
    output::say(&format!("{channel}: {}", output::within(&version)))
}

async fn remove_channel(
    client: &Client,
    printer: Printer,
    template: &str,
    channel: &str,
    allow_missing: bool,
) -> anyhow::Result<()> {
    let request = catalog::RemoveTemplateChannelRequest {
        name: client.full_name(template, &["templates"])?,
        channel_id: channel.to_owned(),
        allow_missing,
        request_id: request_id(),
        ..Default::default()
    };
    let changed = client.templates().remove_template_channel(request).await?.into_inner();
    if printer.is_json() {
        return printer.one(&changed, &[]);
    }
    output::say(&format!("{channel}: removed"))
}

async fn apply_files(client: &Client, printer: Printer, args: &ApplyArgs) -> anyhow::Result<()> {
    let sources = apply::read(&args.paths)?;
    if sources.is_empty() {
        return Err(failure::wrong_usage("there is no YAML file there"));
    }
    let mut changes = Vec::new();
    let mut written = Ok(());
    let counts = apply::apply(client, &sources, |name, change| {
        if printer.is_json() {
            changes.push(json!({"name": name, "change": change.to_string()}));
        } else if written.is_ok() {
            written = output::say(&format!("{name}: {change}"));
        }
    })
    .await;
    if printer.is_json() {
        // What was done before something was refused is told as well.
        printer.value(&Value::Array(changes))?;
    }
    written?;
    let summary: Vec<String> = counts?.iter().map(|(change, n)| format!("{n} {change}")).collect();
    eprintln!("{}", summary.join(", "));
    Ok(())
}

/// Sends the documents in messages well below the limit of 4 MiB.
async fn import(client: &Client, printer: Printer, args: &ImportArgs) -> anyhow::Result<()> {
    const BATCH_BYTES: usize = 1 << 20;
    let named = |path: &std::path::Path| {
        path.file_name().is_some_and(|name| name == "catalog-info.yaml" || name == "catalog-info.yml")
    };
    let sources = apply::read_matching(std::slice::from_ref(&args.directory), named)?;
    if sources.is_empty() {
        let directory = args.directory.display();
        return Err(failure::wrong_usage(format!("there is no catalog-info.yaml below `{directory}`")));
    }
    let mut total = catalog::ImportEntitiesResponse::default();
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut sources = sources.into_iter().peekable();
    while let Some(source) = sources.next() {
        bytes += source.text.len();
        batch.push(catalog::import_entities_request::Document {
            origin: format!("file:{}", source.origin),
            content: source.text,
        });
        if bytes < BATCH_BYTES && sources.peek().is_some() {
            continue;
        }
        let origins: Vec<String> = batch.iter().map(|document| document.origin.clone()).collect();
        let request = catalog::ImportEntitiesRequest {
            parent: client.organization()?,
            documents: std::mem::take(&mut batch),
            request_id: request_id(),
            validate_only: args.validate_only,
        };
        bytes = 0;
        let done = client.catalog().import_entities(request).await;
        let done = done.map_err(|status| failure::name_documents(status, &origins))?.into_inner();
        total.created_count += done.created_count;
        total.updated_count += done.updated_count;
        total.unchanged_count += done.unchanged_count;
    }
    printer.one(
        &total,
        &[
            ("created", total.created_count.to_string()),
            ("updated", total.updated_count.to_string()),
            ("unchanged", total.unchanged_count.to_string()),
        ],
    )
}

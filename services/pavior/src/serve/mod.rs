//! Assembly: from a configuration and a set of roles to a running system. The same function runs everything in one
//! process and one service alone; what differs is only whether a peer is called in place or over the network.

mod components;
mod config;
mod defaults;
mod installation;
mod keys;
mod operator;
mod remote_drivers;
mod restore;
mod role;
mod standing;
mod system;

use anyhow::Context as _;

use crate::cli::args::{ConfigArgs, ConfigCommand, ServeArgs};
use crate::cli::failure::wrong_usage;

pub(crate) use config::this_program;
pub use config::{Config, DEV_OPERATOR, Listen, database_file, dev_issuer_directory, drivers_directory};
pub use keys::generate as generate_keys;
pub(crate) use restore::divergences;
pub use restore::run as restore;
pub use role::Role;
pub use system::System;

/// `pavior serve`.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let roles = if args.all { Role::ALL.to_vec() } else { args.roles };
    if roles.is_empty() {
        let names = Role::ALL.map(Role::name).join(", ");
        return Err(wrong_usage(format!("say --all to run everything in this process, or which of {names}")));
    }
    let config = config::load(&args.config)?;
    let telemetry = pavior_runtime::telemetry::init(&config.telemetry)?;
    let system = System::start_with(config, &roles, telemetry).await?;
    for (name, address) in system.addresses() {
        eprintln!("{name} listens on {address}");
    }
    let announced = standing::announce(system.readiness(), system.admin(), args.config.command("restore"));
    let announced = tokio::spawn(announced);
    let ended = system.run_until_signal().await;
    announced.abort();
    ended
}

/// The configuration, for a command that looks at a platform from beside it.
pub fn load_config(args: &ConfigArgs) -> anyhow::Result<Config> {
    config::load(args)
}

/// `pavior migrate`: every service migrates when it is built, so building and dropping them is all there is to do.
pub async fn migrate(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = config::load(args)?;
    config.own_data_folder()?;
    for (role, url) in config.databases() {
        let store = pavior_store::Store::connect(url, role.name())
            .await
            .with_context(|| format!("the database of {}", role.name()))?;
        role.migrate(&store).await.with_context(|| format!("the database of {}", role.name()))?;
        eprintln!("{}: up to date", role.name());
    }
    Ok(())
}

/// `pavior config`.
pub fn config_command(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check(args) => {
            let config = config::load(&args)?;
            println!("{}", config.summary());
            eprintln!("the configuration is valid");
        }
        ConfigCommand::Defaults => print!("{}", defaults::text()),
    }
    Ok(())
}

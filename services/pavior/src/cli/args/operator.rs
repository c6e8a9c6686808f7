//! What those who run a platform may say.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pavior_core::text::is_hidden;

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML).
    #[arg(short, long, env = "PAVIOR_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Sets one key, for example --set listen.gateway=0.0.0.0:7410. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Another command with the same configuration, to be copied. A value of --set may be secret, so that none but the
    /// data folder's is shown.
    pub(crate) fn command(&self, command: &str) -> String {
        let mut out = format!("pavior {command}");
        if let Some(file) = &self.config {
            out.push_str(&format!(" --config {}", file.display()));
        }
        for set in &self.set {
            match set.split_once('=') {
                Some(("data_dir", _)) | None => out.push_str(&format!(" --set {set}")),
                Some((key, _)) => out.push_str(&format!(" --set {key}=...")),
            }
        }
        out
    }
}

/// How the doctor gets at the platform. Folders and keys are looked at where this command runs.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The admin listener of each process; `listen.admin` of the configuration by default. May be repeated.
    #[arg(long, value_name = "URL")]
    pub admin: Vec<String>,
}

/// `pavior restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Says what is found and what would be done, and changes nothing; ends with 1 when there is something to do.
    #[arg(long)]
    pub dry_run: bool,
    /// Goes on with the keys that are there, and makes those that are missing: what the lost ones protected stays closed
    /// for ever.
    #[arg(long)]
    pub accept_keys: bool,
    /// Goes on although records are gone that the audit log had, which then says so itself: only where no newer copy of
    /// the audit database exists.
    #[arg(long, requires = "reason")]
    pub accept_lost_records: bool,
    /// Why, for the record: at most 500 characters.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
}

/// Most characters of a reason.
const MAX_REASON: usize = 500;

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("say why in words".to_owned()),
        1..=MAX_REASON if !text.contains(is_hidden) => Ok(text.to_owned()),
        1..=MAX_REASON => {
            Err("control characters, line breaks and invisible formatting are not taken".to_owned())
        }
        length => Err(format!("{length} characters are more than {MAX_REASON}")),
    }
}

/// Configuration commands.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says whether the configuration is valid, and what it comes to.
    Check(ConfigArgs),
    /// Prints every key with its default.
    Defaults,
}

/// `pavior serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Runs every service in this process.
    #[arg(long, conflicts_with = "roles")]
    pub all: bool,
    /// The services to run, where it is not all of them.
    #[arg(value_enum)]
    pub roles: Vec<crate::serve::Role>,
}

/// `pavior quickstart`.
#[derive(Debug, Clone, Args)]
pub struct QuickstartArgs {
    /// Takes everything down again when the story is told, checks that nothing is left, and ends.
    #[arg(long)]
    pub exit: bool,
    /// Where to keep everything; a folder of its own under the system's temporary one when absent.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: std::net::SocketAddr,
    /// The language of the project that is made.
    #[arg(long, default_value = "rust", value_parser = ["rust", "python"])]
    pub language: String,
    /// A PostgreSQL server for the projects' databases; SQLite files when absent.
    #[arg(long, env = "PAVIOR_QUICKSTART_POSTGRES_URL", hide_env_values = true)]
    pub postgres: Option<String>,
}

/// `pavior token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Says that this is for development: the issuer's key lies on this machine.
    #[arg(long)]
    pub dev: bool,
    /// Whom the token is for, for example alice. A user whom the organization does not have is refused, as far as the
    /// server can be asked.
    #[arg(long = "as", value_name = "USER")]
    pub subject: String,
    /// The organization of the user; what --organization says, or acme, when absent.
    #[arg(id = "in", long = "in", value_name = "ORGANIZATION")]
    pub organization: Option<String>,
    /// The folder in which the server keeps its data.
    #[arg(long, env = "PAVIOR_DATA", hide_env_values = true)]
    pub data: PathBuf,
    /// Groups that the token claims, for a user whom only an identity provider knows. May be repeated.
    #[arg(long)]
    pub group: Vec<String>,
    /// How long it is valid, in minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub minutes: u32,
}

/// `pavior driver`.
#[derive(Debug, Subcommand)]
pub enum DriverCommand {
    /// Holds a running driver against the contract. It makes things and removes them again: give it a place for that.
    Test(DriverTestArgs),
}

/// `pavior driver test`.
#[derive(Debug, Args)]
pub struct DriverTestArgs {
    /// Where the driver listens, for example http://127.0.0.1:7450; with https and --ca-file over TLS.
    #[arg(value_name = "URL")]
    pub endpoint: String,
    /// The resource type to make.
    #[arg(long = "type", value_name = "TYPE")]
    pub resource_type: String,
    /// Inputs as JSON; `{case}` in a text becomes the name of the check, so that each makes things of its own.
    #[arg(long, value_name = "JSON")]
    pub inputs: String,
    /// Inputs that differ and can be applied in place; without them updates are not checked.
    #[arg(long, value_name = "JSON")]
    pub changed: Option<String>,
    /// Inputs whose apply fails after it has begun; without them what a failure leaves is not checked.
    #[arg(long, value_name = "JSON")]
    pub failing: Option<String>,
    /// A text in the inputs that is a secret and must never be echoed. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub secret: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_to_copy_has_the_same_configuration_and_no_secret() {
        let set = ["data_dir=/srv/pavior", "audit.database.url=postgres://pavior:hunter2@db/audit"];
        let args = ConfigArgs { config: Some("/etc/pavior.toml".into()), set: set.map(str::to_owned).into() };
        assert_eq!(
            args.command("restore"),
            "pavior restore --config /etc/pavior.toml --set data_dir=/srv/pavior --set audit.database.url=..."
        );
        assert_eq!(ConfigArgs { config: None, set: Vec::new() }.command("restore"), "pavior restore");
    }
}

//! `pavior quickstart`: the whole platform in one process, and the story of a golden path told on it, every step
//! through the gateway with a real token.

mod narrator;
mod story;
mod teardown;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use pavior_auth::{DevClaims, DevIssuer};
use pavior_core::clock::SystemClock;
use pavior_core::id_gen::SystemIds;
use pavior_core::principal::INSTALLATION;

use crate::cli::apply;
use crate::cli::args::QuickstartArgs;
use crate::cli::client::{Client, Connection};
use crate::serve::{self, Config, System};
use crate::starter::{self, Databases};
use narrator::Narrator;

/// A token for a person of the starter kit lives this long.
const TOKEN_LIFETIME: time::Duration = time::Duration::hours(8);

/// The people of the story, all with real tokens of the development issuer.
#[derive(Debug, Clone)]
pub(crate) struct Personas {
    /// Looks after the installation; loads the starter kit.
    operator: Client,
    /// A developer of the group storefront.
    alice: Client,
    /// A developer of another group.
    bob: Client,
    /// A platform engineer.
    pia: Client,
    /// An auditor.
    vera: Client,
}

/// Runs the quickstart.
pub async fn run(args: QuickstartArgs) -> anyhow::Result<()> {
    need("git", "--version")?;
    match args.language.as_str() {
        "rust" => need("cargo", "--version")?,
        _ => need("python3", "--version")?,
    }
    let (directory, temporary) = data_directory(args.data.as_deref())?;
    let mut narrator = Narrator::new();
    narrator.chapter("Starting every service in this process, on SQLite");
    let mut config = Config::embedded(&directory, &serve::this_program()?)?;
    config.listen.gateway = args.listen;
    let skeletons = starter::write_skeletons(&directory)?;
    config.drivers.skeleton_roots = vec![skeletons.clone()];
    let databases = if let Some(url) = &args.postgres {
        config.drivers.postgres_url = Some(url.clone().into());
        Databases::Postgres
    } else {
        Databases::Sqlite
    };
    let system = System::start(config, &serve::Role::ALL).await?;
    narrator.fact("gateway", &system.server());
    narrator.fact("metrics and health", &format!("http://{}", system.admin()));
    narrator.fact("data", &directory.display().to_string());

    let told = tell(&mut narrator, &args, &system, &directory, databases).await;
    match (told, args.exit) {
        (Ok(people), true) => {
            let told = teardown::run(&mut narrator, &people, &directory).await;
            system.stop().await?;
            told?;
            teardown::check_log(&mut narrator, &directory).await?;
            narrator.chapter("Done: the main job works, and nothing is left behind");
        }
        (Ok(_), false) => {
            // What is thrown away at the end cannot be gone on with.
            let kept = temporary.is_none().then(|| settings(&args, &system, &directory, &skeletons));
            addresses(&system, &directory, kept.transpose()?.as_deref());
            system.run_until_signal().await?;
        }
        (Err(error), _) => {
            // Stopping the system stops the workloads with it, so that a story that broke off leaves nothing running.
            system.stop().await?;
            eprintln!("the data is kept in {}", temporary.map_or(directory, |t| t.keep()).display());
            return Err(error);
        }
    }
    Ok(())
}

async fn tell(
    narrator: &mut Narrator,
    args: &QuickstartArgs,
    system: &System,
    directory: &Path,
    databases: Databases,
) -> anyhow::Result<Personas> {
    let people = personas(&system.server(), directory)?;
    narrator.chapter("Loading the starter kit through the public API");
    let counts = apply::apply(&people.operator, &starter::documents(databases)?, |_, _| {}).await?;
    for (change, count) in counts {
        narrator.fact(&change.to_string(), &count.to_string());
    }
    story::run(narrator, &people, directory, &args.language).await?;
    Ok(people)
}

fn personas(server: &str, directory: &Path) -> anyhow::Result<Personas> {
    let person = |subject: &str| -> anyhow::Result<Client> {
        let token = mint(directory, subject, starter::ORGANIZATION, &[], TOKEN_LIFETIME)?;
        Client::new(&Connection {
            server: server.to_owned(),
            token: Some(token),
            organization: Some(starter::ORGANIZATION.to_owned()),
            ca_pem: None,
        })
    };
    Ok(Personas {
        operator: person(serve::DEV_OPERATOR)?,
        alice: person("alice")?,
        bob: person("bob")?,
        pia: person("pia")?,
        vera: person("vera")?,
    })
}

/// Mints a token of the development issuer whose key lies in a data directory. The operator is the platform's own and
/// belongs to no organization.
pub fn mint(
    directory: &Path,
    subject: &str,
    organization: &str,
    groups: &[String],
    lifetime: time::Duration,
) -> anyhow::Result<String> {
    let issuer =
        DevIssuer::open(&serve::dev_issuer_directory(directory), Arc::new(SystemClock), Arc::new(SystemIds))?;
    let organization = if subject == serve::DEV_OPERATOR { INSTALLATION } else { organization };
    let claims = DevClaims {
        subject: subject.to_owned(),
        organization: organization.to_owned(),
        groups: groups.to_vec(),
        ..DevClaims::default()
    };
    Ok(issuer.mint(&claims, lifetime)?)
}

fn need(program: &str, argument: &str) -> anyhow::Result<()> {
    match Command::new(program).arg(argument).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => bail!("`{program} {argument}` fails; the quickstart needs a working {program}"),
        Err(_) => bail!("{program} is not in the PATH; the quickstart needs it"),
    }
}

fn data_directory(given: Option<&Path>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    match given {
        Some(path) => {
            pavior_files::private_directory(path)
                .with_context(|| format!("cannot make `{}`", path.display()))?;
            Ok((path.canonicalize()?, None))
        }
        None => {
            let temporary = pavior_files::temporary_directory("pavior-")?;
            Ok((temporary.path().canonicalize()?, Some(temporary)))
        }
    }
}

/// Writes the settings with which `pavior serve` goes on with a data folder, and returns where they are.
fn settings(
    args: &QuickstartArgs,
    system: &System,
    directory: &Path,
    skeletons: &Path,
) -> anyhow::Result<PathBuf> {
    let whole = |path: &Path| anyhow::Ok(std::path::absolute(path)?.display().to_string());
    let listen: toml::Table = ["gateway", "admin", "git"]
        .map(|listener| (listener.to_owned(), system.address(listener).to_string().into()))
        .into_iter()
        .collect();
    let mut drivers = toml::Table::new();
    drivers.insert("skeleton_roots".to_owned(), vec![whole(skeletons)?].into());
    if let Some(url) = &args.postgres {
        drivers.insert("postgres_url".to_owned(), url.clone().into());
    }
    let development: toml::Table = [("issuer".to_owned(), true.into())].into_iter().collect();
    let settings: toml::Table = [
        ("data_dir".to_owned(), whole(directory)?.into()),
        ("development".to_owned(), development.into()),
        ("listen".to_owned(), listen.into()),
        ("drivers".to_owned(), drivers.into()),
    ]
    .into_iter()
    .collect();
    let path = directory.join("pavior.toml");
    pavior_files::write(&path, toml::to_string(&settings)?.as_bytes())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

fn addresses(system: &System, directory: &Path, settings: Option<&Path>) {
    let server = system.server();
    let address = server.trim_start_matches("http://");
    let data = directory.display();
    let resume = settings.map_or_else(String::new, |settings| {
        let settings = settings.display();
        format!(
            "Once it is stopped, `pavior serve --all --config {settings}` goes on, on the same addresses.\n\n"
        )
    });
    println!(
        "
Everything keeps running; Ctrl-C stops it. To go on in another terminal:

  export PAVIOR_SERVER={server} PAVIOR_ORGANIZATION=acme
  export PAVIOR_TOKEN=$(pavior token --dev --as alice --data {data})     # or bob, pia, vera
  pavior project show hello
  pavior plan env hello/review --class staging
  PAVIOR_TOKEN=$(pavior token --dev --as vera --data {data}) pavior audit list

{resume}With grpcurl:

  grpcurl -plaintext {address} list
  grpcurl -plaintext {address} describe pavior.provisioning.v1.ProjectService
  grpcurl -plaintext -H \"authorization: Bearer $PAVIOR_TOKEN\" \\
    -d '{{\"parent\": \"organizations/acme\"}}' {address} pavior.provisioning.v1.ProjectService/ListProjects
"
    );
}

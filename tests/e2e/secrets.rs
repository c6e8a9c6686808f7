//! A secret that is really used, in a golden path that does its worst to let it out: nothing that stays behind or is
//! answered holds it in the clear.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply::{self, Source};
use pavior::cli::client::request_id;
use pavior::serve::DEV_OPERATOR;
use pavior::starter::Databases;
use pavior_proto::google::longrunning::Operation;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db;
use pavior_tests::{Person, Processes};
use sqlx::Row as _;

const SERVICES: [&str; 4] = ["audit", "catalog", "policy", "provisioning"];
/// Says its secret to both streams, whole, within a line and in part; one of two then fails, so that its last lines are told.
const LEAKY: &str = r#"
template: leaky
version: 1.0.0
parameters:
  type: object
  additionalProperties: false
  properties: { then: { type: string } }
environments:
  development:
    create: with_project
    resources:
      database: { type: sql-database, inputs: { size: small } }
    workload:
      inputs:
        command: ["/bin/sh", "-c", "echo $DATABASE_URL; echo \"url=$DATABASE_URL;\" >&2; echo ${DATABASE_URL#*:*:} >&2; ${{ parameters.then }}"]
        variables: { DATABASE_URL: "${{ resources.database.url }}" }
        health: { path: /, timeout: 20s }
"#;

struct Leaky {
    processes: Processes,
    databases: Vec<db::TestDb>,
    log: PathBuf,
}

impl Leaky {
    /// The whole in one process; its databases and those of projects are PostgreSQL's. Nothing without one.
    async fn start(postgres: bool) -> Result<Option<Self>> {
        let Some(projects) = db::postgres().await else { return Ok(None) };
        let mut settings = vec![("drivers.postgres_url".to_owned(), projects.url.clone())];
        let mut databases = Vec::new();
        if postgres {
            for role in SERVICES {
                let database = db::postgres().await.context("a second database")?;
                settings.push((format!("{role}.database.url"), database.url.clone()));
                databases.push(database);
            }
        }
        databases.push(projects);
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut processes = Processes::new(&settings)?;
        let log = processes.data().with_extension("log");
        processes.log_to(log.clone());
        processes.start("all", &["--all"], &[])?;
        processes.load_starter_kit(Databases::Postgres).await?;
        let document = Source { origin: "leaky".to_owned(), text: LEAKY.to_owned() };
        apply::apply(&*processes.person(DEV_OPERATOR)?, &[document], |_, _| {}).await?;
        Ok(Some(Self { processes, databases, log }))
    }

    async fn project(&self, person: &Person, id: &str, then: &str) -> Result<Operation> {
        let parameters = serde_json::json!({ "then": then });
        let request = pb::CreateProjectRequest {
            parent: "organizations/acme".to_owned(),
            project_id: id.to_owned(),
            project: Some(pb::Project {
                owner: "organizations/acme/groups/storefront".to_owned(),
                template_version: "organizations/acme/templates/leaky/versions/1.0.0".to_owned(),
                parameters: pavior_rpc::convert::to_struct(&parameters).ok(),
                ..Default::default()
            }),
            request_id: request_id(),
            validate_only: false,
            ..Default::default()
        };
        let operation = person.projects().create_project(request).await?.into_inner();
        person.finish(&operation).await
    }

    /// Where something with these bytes lies: files of the data folder, the log, rows.
    async fn holding(&self, secret: &str) -> Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        let files = walkdir::WalkDir::new(self.processes.data()).into_iter().filter_map(Result::ok);
        let files = files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path);
        for file in files.chain([self.log.clone()]) {
            if contains(&std::fs::read(&file).unwrap_or_default(), secret.as_bytes()) {
                found.push(file.display().to_string());
            }
        }
        for database in self.databases.iter().filter(|database| database.url.starts_with("postgres")) {
            found.extend(rows_with(&database.url, secret).await?);
        }
        Ok(found)
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The tables of a database that have the text somewhere in a row, in bytes too.
async fn rows_with(url: &str, text: &str) -> Result<Vec<String>> {
    let pool = sqlx::PgPool::connect(url).await?;
    let tables =
        sqlx::query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'");
    let mut found = Vec::new();
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    for row in tables.fetch_all(&pool).await? {
        let table: String = row.try_get(0)?;
        // The name comes from the database itself.
        let count = format!(
            "SELECT count(*) FROM \"{table}\" t WHERE strpos(t::text, $1) > 0 OR strpos(t::text, $2) > 0"
        );
        let count = sqlx::query(sqlx::AssertSqlSafe(count)).bind(text).bind(&hex);
        if count.fetch_one(&pool).await?.try_get::<i64, _>(0)? > 0 {
            found.push(table);
        }
    }
    pool.close().await;
    Ok(found)
}

/// The password in the environment of the workload of a project.
fn password(data: &Path) -> Result<String> {
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Ok(directory) = std::fs::read_link(process.path().join("cwd")) else { continue };
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        let variables = String::from_utf8_lossy(&environment).into_owned();
        let url = variables.split('\0').find_map(|variable| variable.strip_prefix("DATABASE_URL="));
        let Some(url) = url.filter(|_| directory.starts_with(data)) else { continue };
        let (_, rest) = url.split_once("://").context("a URL")?;
        let (credentials, _) = rest.rsplit_once('@').context("credentials")?;
        return Ok(credentials.split_once(':').context("a password")?.1.to_owned());
    }
    anyhow::bail!("no workload with a database runs in {}", data.display())
}

async fn nothing_holds_a_secret(postgres: bool) -> Result<()> {
    let Some(mut leaky) = Leaky::start(postgres).await? else { return Ok(()) };
    let alice = leaky.processes.person("alice")?;
    let good = leaky.project(&alice, "good", "exec python3 -m http.server $PORT --bind $HOST").await?;
    pavior::cli::progress::conclude(&good)?;
    let secret = password(&leaky.processes.data().canonicalize()?)?;
    ensure!(secret.len() >= 16, "no password worth the name");
    let said = workload_log(leaky.processes.data())?;
    ensure!(said.contains("url="), "the workload has said nothing: {said}");

    // What failed is told with the last lines of its output.
    let bad = leaky.project(&alice, "bad", "exit 3").await?;
    let told = format!("{bad:?}");
    ensure!(told.contains("did not start"), "{told}");
    ensure!(told.contains("url=") && !told.contains("postgres://"), "the URL is told: {told}");

    let found = leaky.holding(&secret).await?;
    ensure!(found.is_empty(), "in the clear in {found:?}");
    leaky.processes.stop("all")?;
    let found = leaky.holding(&secret).await?;
    ensure!(found.is_empty(), "in the clear after the end in {found:?}");
    std::fs::remove_file(&leaky.log)?;
    Ok(())
}

fn workload_log(data: &Path) -> Result<String> {
    let mut said = String::new();
    for entry in walkdir::WalkDir::new(data).into_iter().filter_map(Result::ok) {
        if entry.file_name() == "output.log" {
            said.push_str(&std::fs::read_to_string(entry.path())?);
        }
    }
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_holds_a_secret_on_sqlite() -> Result<()> {
    nothing_holds_a_secret(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_holds_a_secret_on_postgresql() -> Result<()> {
    nothing_holds_a_secret(true).await
}

//! Databases and a data folder that outlive the systems that run over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use pavior::cli::apply::{self, Source};
use pavior::cli::progress::{self, Until};
use pavior::serve::{Config, DEV_OPERATOR, Role, System};
use pavior::starter::{self, Databases};
use pavior_proto::pavior::audit::v1 as audit;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as provisioning;
use pavior_proto::pavior::r#type::v1::principal::Kind;
use pavior_testkit::db::{self, TestDb};
use pavior_tests::{Person, binary};
use serde_json::Value;

pub(crate) const ROLES: [&str; 4] = ["audit", "catalog", "policy", "provisioning"];
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How an operator accepts that records are gone.
pub(crate) const ACCEPT: [&str; 3] = ["--accept-lost-records", "--reason", "the newest copy is gone"];

/// A golden path that makes a repository and nothing else.
const SMALL: &str = r#"
template: small
version: 1.0.0
project:
  repository:
    type: git-repository
    inputs: { skeleton: web-service/python, parameters: { name: "${{ project.id }}" } }
environments:
  production:
    resources:
      database: { type: sql-database, inputs: {} }
"#;

/// Databases and a data folder, over which a system runs now and then.
pub(crate) struct Site {
    pub(crate) data: tempfile::TempDir,
    pub(crate) databases: BTreeMap<&'static str, TestDb>,
}

impl Site {
    /// On SQLite or PostgreSQL, with the starter kit; nothing when there is no PostgreSQL.
    pub(crate) async fn new(postgres: bool) -> Result<Option<Self>> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut databases = BTreeMap::new();
        for role in ROLES {
            let database = if postgres { db::postgres().await } else { Some(db::sqlite()) };
            let Some(database) = database else { return Ok(None) };
            databases.insert(role, database);
        }
        let data = pavior_files::temporary_directory("pavior-e2e-")?;
        let site = Self { data, databases };
        let system = site.start().await?;
        let operator = site.person(&system, DEV_OPERATOR)?;
        let mut documents = starter::documents(Databases::Sqlite)?;
        documents.push(source(SMALL));
        apply::apply(&operator, &documents, |_, _| {}).await?;
        site.change(&system, 0).await?;
        system.stop().await?;
        Ok(Some(site))
    }

    pub(crate) fn config(&self) -> Result<Config> {
        let mut config = Config::embedded(self.data.path(), &binary()?)?;
        config.drivers.skeleton_roots = vec![pavior_tests::starter().join("skeletons").canonicalize()?];
        for (role, database) in [
            ("audit", &mut config.audit.database),
            ("catalog", &mut config.catalog.database),
            ("policy", &mut config.policy.database),
            ("provisioning", &mut config.provisioning.database),
        ] {
            database.url = self.databases.get(role).context("a database")?.url.as_str().into();
        }
        Ok(config)
    }

    pub(crate) async fn start(&self) -> Result<System> {
        System::start(self.config()?, &Role::ALL).await
    }

    /// Why the system does not start.
    pub(crate) async fn refused(&self) -> Result<String> {
        match self.start().await {
            Ok(system) => {
                system.stop().await?;
                bail!("the system starts")
            }
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    pub(crate) fn person(&self, system: &System, name: &str) -> Result<Person> {
        Person::new(&system.server(), self.data.path(), name, starter::ORGANIZATION)
    }

    /// Something in every service that keeps a database, recorded.
    pub(crate) async fn change(&self, system: &System, n: usize) -> Result<()> {
        let (operator, alice) = (self.person(system, DEV_OPERATOR)?, self.person(system, "alice")?);
        apply::apply(&operator, &[template(n), role(n)], |_, _| {}).await?;
        let request = small_project(&alice, &format!("project-{n}"))?;
        let operation = alice.projects().create_project(request).await?.into_inner();
        pavior::cli::progress::conclude(&alice.finish(&operation).await?)?;
        for object in
            [format!("templates/note-{n}"), format!("roles/note-{n}"), format!("projects/project-{n}")]
        {
            let filter = format!(
                "event.target.name = \"organizations/acme/{object}\" AND event.outcome.status = SUCCEEDED"
            );
            self.wait_for_record(system, "acme", &filter).await?;
        }
        Ok(())
    }

    /// What people are asked about and have not answered, by the name of the approval.
    pub(crate) async fn ask(&self, system: &System, n: usize) -> Result<String> {
        let alice = self.person(system, "alice")?;
        let request = provisioning::CreateEnvironmentRequest {
            parent: format!("organizations/acme/projects/project-{n}"),
            environment_id: "production".to_owned(),
            environment: Some(provisioning::Environment::default()),
            ..Default::default()
        };
        let operation = alice.projects().create_environment(request).await?.into_inner();
        let asked = progress::follow(&alice, &operation.name, Until::Approval, true).await?;
        let request = progress::metadata(&asked)?.approval;
        ensure!(!request.is_empty(), "nobody is asked: {asked:?}");
        Ok(request)
    }

    /// Nobody answers what nobody asks any more, and an operator ended it.
    pub(crate) async fn is_void(&self, system: &System, name: &str) -> Result<()> {
        let request = policy::GetApprovalRequest { name: name.to_owned() };
        let found = self.person(system, "alice")?.approvals().get_approval(request).await?.into_inner();
        ensure!(found.state() == policy::approval::State::Invalidated, "{found:?}");
        let filter = format!("event.target.name = \"{name}\" AND event.action = \"platform.restore\"");
        self.wait_for_record(system, "acme", &filter).await?;
        let records = self.records(system, "acme", &filter).await?;
        ensure!(records.len() == 1, "{records:?}");
        let who = records[0].event.as_ref().and_then(|event| event.principal.as_ref());
        let who = who.context("a principal")?;
        ensure!(
            who.kind() == Kind::Operator && who.name.starts_with("organizations/pavior/operators/"),
            "{who:?}"
        );
        Ok(())
    }

    pub(crate) async fn records(
        &self,
        system: &System,
        log: &str,
        filter: &str,
    ) -> Result<Vec<audit::AuditRecord>> {
        let request = audit::ListAuditRecordsRequest {
            parent: format!("organizations/{log}"),
            filter: filter.to_owned(),
            ..Default::default()
        };
        let person = self.person(system, DEV_OPERATOR)?;
        Ok(person.audit().list_audit_records(request).await?.into_inner().audit_records)
    }

    pub(crate) async fn wait_for_record(&self, system: &System, log: &str, filter: &str) -> Result<()> {
        let until = Instant::now() + LIMIT;
        while self.records(system, log, filter).await?.is_empty() {
            ensure!(Instant::now() < until, "no record with {filter}");
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// A command of an operator, with the configuration of this site.
    pub(crate) fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        let mut set = |key: &str, value: &str| {
            command.arg("--set").arg(format!("{key}={value}"));
        };
        set("data_dir", &self.data.path().display().to_string());
        for (role, database) in &self.databases {
            set(&format!("{role}.database.url"), &database.url);
        }
        Ok(command)
    }

    /// Runs `pavior restore` as an operator does.
    pub(crate) fn restore(&self, extra: &[&str]) -> Result<(Output, Value)> {
        let arguments = [&["-o", "json", "restore"], extra].concat();
        let output = self.command(&arguments)?.output()?;
        let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok((output, said))
    }

    /// A token of the development issuer, as `pavior token` gives it.
    pub(crate) fn token(&self, person: &str) -> Result<String> {
        let mut command = Command::new(binary()?);
        command.args(["token", "--dev", "--as", person, "--data"]).arg(self.data.path());
        Ok(String::from_utf8(command.output()?.stdout)?.trim().to_owned())
    }

    pub(crate) async fn verify(&self) -> Result<()> {
        let url = &self.databases.get("audit").context("a database")?.url;
        pavior_audit_verifier::verify_database(url, None).await?;
        Ok(())
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.data.path().join(path)
    }
}

/// A project of the small golden path.
pub(crate) fn small_project(person: &Person, id: &str) -> Result<provisioning::CreateProjectRequest> {
    let mut request = person.project(id);
    let project = request.project.as_mut().context("a project")?;
    project.template_version = "organizations/acme/templates/small/versions/stable".to_owned();
    project.parameters = None;
    Ok(request)
}

pub(crate) fn source(text: &str) -> Source {
    Source { origin: "test".to_owned(), text: text.to_owned() }
}

pub(crate) fn template(n: usize) -> Source {
    source(&SMALL.replace("template: small", &format!("template: note-{n}")))
}

pub(crate) fn role(n: usize) -> Source {
    source(&format!(
        "type: policy.pavior.dev/Role\nname: organizations/acme/roles/note-{n}\ndescription: Note {n}.\n\
         actions: [identity.groups.get]\n"
    ))
}

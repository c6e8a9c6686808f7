//! The end of `pavior quickstart --exit`: everything is taken down through the API.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pavior_proto::pavior::provisioning::v1 as pb;

use super::Personas;
use super::narrator::Narrator;
use crate::cli::client::request_id;
use crate::cli::progress::{self, Until};
use crate::serve;

const PROJECT: &str = "organizations/acme/projects/hello";

/// Takes the project down as the platform engineer, and checks that it is gone.
pub(crate) async fn run(narrator: &mut Narrator, people: &Personas, directory: &Path) -> anyhow::Result<()> {
    narrator.chapter("pia takes the project down with everything in it");
    let parent = PROJECT.to_owned();
    let request = pb::ListEnvironmentsRequest { parent, page_size: 100, ..Default::default() };
    let environments = people.pia.projects().list_environments(request).await?.into_inner().environments;
    let request = pb::DeleteProjectRequest {
        name: PROJECT.to_owned(),
        force: true,
        request_id: request_id(),
        ..Default::default()
    };
    let operation = people.pia.projects().delete_project(request).await?.into_inner();
    narrator.fact("operation", &operation.name);
    let operation = progress::follow(&people.pia, &operation.name, Until::End, false).await?;
    progress::conclude(&operation)?;

    let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
    for endpoint in environments.iter().flat_map(|environment| &environment.endpoints) {
        ensure!(http.get(&endpoint.url).send().await.is_err(), "`{}` still answers", endpoint.url);
    }
    let gone = people
        .pia
        .projects()
        .get_project(pb::GetProjectRequest { name: PROJECT.to_owned(), ..Default::default() })
        .await;
    ensure!(gone.is_err_and(|s| s.code() == tonic::Code::NotFound), "the project is still known");
    for left in ["repositories", "databases", "workloads"] {
        let path = serve::drivers_directory(directory).join(left);
        ensure!(is_empty(&path)?, "something is left in `{}`", path.display());
    }
    narrator.fact("left behind", "nothing");
    Ok(())
}

/// True when no regular file stands below a folder.
fn is_empty(path: &Path) -> anyhow::Result<bool> {
    if !path.exists() {
        return Ok(true);
    }
    for entry in walkdir::WalkDir::new(path) {
        if entry?.file_type().is_file() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Verifies the audit database with the verifier, which shares no code with the service that wrote it.
pub(crate) async fn check_log(narrator: &mut Narrator, directory: &Path) -> anyhow::Result<()> {
    narrator.chapter("Verifying the audit log, offline, with code of its own");
    let path = serve::database_file(directory, "audit");
    let path = path.to_str().context("the path is not UTF-8")?;
    let report = pavior_audit_verifier::verify_database(path, None).await?;
    ensure!(report.records() > 0, "the audit log is empty");
    for log in report.logs {
        narrator.fact(&log.log, &format!("{} records, root {}", log.records, hex::encode(log.root)));
    }
    Ok(())
}

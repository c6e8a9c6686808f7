//! What callers were told about environments, and whether it is true of the world.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pavior::cli::client::request_id;
use pavior::cli::progress;
use pavior_proto::google::longrunning::{CancelOperationRequest, GetOperationRequest, Operation};
use pavior_proto::pavior::provisioning::v1::{self as pb, operation_metadata::State};
use pavior_tests::Person;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::ledger::is_passing;
use crate::world::World;

const PARENT: &str = "organizations/acme";
/// Databases that an environment of the golden path has.
const DATABASES: usize = 2;

/// The operations that were accepted. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environments {
    accepted: Arc<Mutex<Vec<String>>>,
}

/// The figures of a check.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settled {
    pub(crate) operations: usize,
    pub(crate) cancelled: usize,
    pub(crate) live: usize,
}

/// Makes a project of the golden path `chaos`.
pub(crate) async fn make_project(person: &Person, id: &str) -> Result<()> {
    let request = pb::CreateProjectRequest {
        parent: PARENT.to_owned(),
        project_id: id.to_owned(),
        project: Some(pb::Project {
            owner: format!("{PARENT}/groups/storefront"),
            template_version: format!("{PARENT}/templates/chaos/versions/1.0.0"),
            ..Default::default()
        }),
        request_id: request_id(),
        validate_only: false,
        ..Default::default()
    };
    let operation = person.projects().create_project(request).await?.into_inner();
    progress::conclude(&person.finish(&operation).await?)
}

impl Environments {
    pub(crate) fn accept(&self, operation: &Operation) {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).push(operation.name.clone());
    }

    fn accepted(&self) -> Vec<String> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes environments of a project one after the other; cancels some on the way and deletes some, until `stop`.
    pub(crate) async fn churn(
        &self,
        person: Person,
        project: String,
        mut random: fastrand::Rng,
        stop: CancellationToken,
    ) -> Result<()> {
        let mut count = 0;
        while !stop.is_cancelled() {
            count += 1;
            let id = format!("e{count}-{}", random.u32(..));
            let mut request = person.environment(&project, &id);
            if let Some(environment) = &mut request.environment {
                environment.environment_class_id = "box".to_owned();
            }
            let created = person.projects().create_environment(request).await;
            let Some(operation) = passing(created, "creating an environment")? else { continue };
            self.accept(&operation);
            if random.u8(..3) == 0 {
                tokio::time::sleep(Duration::from_micros(random.u64(..20_000))).await;
                cancel(&person, &operation.name).await?;
            } else if random.bool() && finished(&person, &operation.name, &stop).await? {
                self.delete(&person, &project, &id).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, person: &Person, project: &str, id: &str) -> Result<()> {
        let name = format!("{PARENT}/projects/{project}/environments/{id}");
        let request = pb::DeleteEnvironmentRequest { name, request_id: request_id(), ..Default::default() };
        match person.projects().delete_environment(request).await {
            Ok(operation) => self.accept(operation.get_ref()),
            // It was never made.
            Err(status) if status.code() == Code::NotFound || is_passing(&status) => {}
            Err(status) => bail!("deleting an environment: {status}"),
        }
        Ok(())
    }

    /// Waits until every accepted operation is done; none may be stuck.
    pub(crate) async fn settle(&self, person: &Person) -> Result<Settled> {
        let mut settled = Settled::default();
        for name in self.accepted() {
            let operation = person.until(&name, progress::rests).await?;
            let state = progress::metadata(&operation)?.state();
            ensure!(state != State::Stuck, "STUCK: `{name}`: {:?}", progress::metadata(&operation)?);
            settled.operations += 1;
            settled.cancelled += usize::from(state == State::Compensated);
        }
        Ok(settled)
    }

    /// Waits until every accepted operation has ended, and compares what is declared with what drivers have made.
    pub(crate) async fn check(&self, world: &World, person: &Person, projects: &[String]) -> Result<Settled> {
        let mut settled = self.settle(person).await?;
        for project in projects {
            for environment in at_rest(person, project).await? {
                let state = environment.state().as_str_name().to_owned();
                ensure!(state.ends_with("ACTIVE"), "`{}` is left as {state}", environment.name);
                settled.live += 1;
            }
        }
        let files = world.database_files();
        ensure!(
            files.len() == settled.live * DATABASES,
            "ORPHANS OR LOST: {} environments have {} databases: {files:?}",
            settled.live,
            files.len()
        );
        Ok(settled)
    }
}

/// The environments once nothing works on them: also an operation whose caller got no answer may have been accepted.
async fn at_rest(person: &Person, project: &str) -> Result<Vec<pb::Environment>> {
    loop {
        let found = listed(person, project).await?;
        let Some(busy) = found.iter().find(|environment| !environment.active_operation.is_empty()) else {
            return Ok(found);
        };
        let operation = person.until(&busy.active_operation, progress::rests).await?;
        let state = progress::metadata(&operation)?.state();
        ensure!(state != State::Stuck, "STUCK: `{}`", busy.active_operation);
    }
}

async fn listed(person: &Person, project: &str) -> Result<Vec<pb::Environment>> {
    let mut request = pb::ListEnvironmentsRequest {
        parent: format!("{PARENT}/projects/{project}"),
        page_size: 1_000,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = person.projects().list_environments(request.clone()).await?.into_inner();
        found.extend(page.environments);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// The answer; nothing when trying again later is what a client does.
pub(crate) fn passing<T>(
    answer: Result<tonic::Response<T>, Status>,
    what: &'static str,
) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if is_passing(&status) => Ok(None),
        Err(status) => Err(status).context(what),
    }
}

pub(crate) async fn cancel(person: &Person, name: &str) -> Result<()> {
    let request = CancelOperationRequest { name: name.to_owned() };
    match person.operations().cancel_operation(request).await {
        Ok(_) => Ok(()),
        // It cannot be stopped any more.
        Err(status) if status.code() == Code::FailedPrecondition || is_passing(&status) => Ok(()),
        Err(status) => Err(status).context("cancelling an operation"),
    }
}

/// Whether an operation came to rest before `stop`.
pub(crate) async fn finished(person: &Person, name: &str, stop: &CancellationToken) -> Result<bool> {
    while !stop.is_cancelled() {
        let request = GetOperationRequest { name: name.to_owned() };
        let answer = person.operations().get_operation(request).await;
        if passing(answer, "reading an operation")?.is_some_and(|operation| progress::rests(&operation)) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(false)
}

//! Somebody who calls the platform through the gateway, with a real token.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use pavior::cli::client::{Client, Connection, request_id};
use pavior::cli::progress;
use pavior_proto::google::longrunning::{Operation, WaitOperationRequest};
use pavior_proto::pavior::provisioning::v1 as pb;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// The longest that any operation of a test may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Somebody who calls the platform.
#[derive(Debug, Clone)]
pub struct Person {
    client: Client,
    organization: String,
}

impl std::ops::Deref for Person {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Person {
    /// A person of an organization, with a token of the development issuer whose key lies in `data`.
    pub fn new(server: &str, data: &Path, name: &str, organization: &str) -> anyhow::Result<Self> {
        let token = pavior::quickstart::mint(data, name, organization, &[], time::Duration::hours(1))?;
        Self::with_token(server, Some(token), organization)
    }

    /// Somebody with a token of one's own, or with none.
    pub fn with_token(server: &str, token: Option<String>, organization: &str) -> anyhow::Result<Self> {
        let client = Client::new(&Connection {
            server: server.to_owned(),
            token,
            organization: Some(organization.to_owned()),
            ca_pem: None,
        })?;
        Ok(Self { client, organization: organization.to_owned() })
    }

    /// A request for a project in Python, whose pipeline takes a second.
    pub fn project(&self, id: &str) -> pb::CreateProjectRequest {
        let parameters = serde_json::json!({ "language": "python" });
        pb::CreateProjectRequest {
            parent: format!("organizations/{}", self.organization),
            project_id: id.to_owned(),
            project: Some(pb::Project {
                owner: format!("organizations/{}/groups/storefront", self.organization),
                template_version: format!(
                    "organizations/{}/templates/web-service/versions/stable",
                    self.organization
                ),
                parameters: pavior_rpc::convert::to_struct(&parameters).ok(),
                ..Default::default()
            }),
            request_id: request_id(),
            validate_only: false,
            ..Default::default()
        }
    }

    /// A request for an environment of a project.
    pub fn environment(&self, project: &str, id: &str) -> pb::CreateEnvironmentRequest {
        pb::CreateEnvironmentRequest {
            parent: format!("organizations/{}/projects/{project}", self.organization),
            environment_id: id.to_owned(),
            environment: Some(pb::Environment::default()),
            request_id: request_id(),
            validate_only: false,
            ..Default::default()
        }
    }

    /// Waits until an operation is done or stuck, over breaks of the connection, and returns it.
    pub async fn finish(&self, operation: &Operation) -> anyhow::Result<Operation> {
        self.until(&operation.name, progress::rests).await
    }

    /// Waits until an operation is as wanted, and returns it.
    pub async fn until(
        &self,
        name: &str,
        mut wanted: impl FnMut(&Operation) -> bool,
    ) -> anyhow::Result<Operation> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let mut last = String::new();
        while tokio::time::Instant::now() < deadline {
            let timeout = Some(pavior_rpc::convert::to_duration(Duration::from_millis(500)));
            let request = WaitOperationRequest { name: name.to_owned(), timeout };
            match self.client.operations().wait_operation(request).await {
                Ok(answer) => {
                    let operation = answer.into_inner();
                    if wanted(&operation) {
                        return Ok(operation);
                    }
                    last = format!("{:?}", progress::metadata(&operation)?.state());
                }
                // The system is being restarted by the test; a long poll that ends is asked again.
                Err(status)
                    if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded) =>
                {
                    last = status.message().to_owned();
                    tokio::task::yield_now().await;
                }
                Err(status) => return Err(status.into()),
            }
        }
        anyhow::bail!("`{name}` did not get there within {LIMIT:?}: {last}")
    }

    /// Creates a project and waits until it runs.
    pub async fn create_project(&self, id: &str) -> anyhow::Result<pb::Project> {
        let operation = self.client.projects().create_project(self.project(id)).await?.into_inner();
        let operation = self.finish(&operation).await?;
        progress::conclude(&operation)?;
        let name = format!("organizations/{}/projects/{id}", self.organization);
        Ok(self
            .client
            .projects()
            .get_project(pb::GetProjectRequest { name, ..Default::default() })
            .await?
            .into_inner())
    }

    /// The page of an environment.
    pub async fn page(&self, project: &str, environment: &str) -> anyhow::Result<String> {
        let name =
            format!("organizations/{}/projects/{project}/environments/{environment}", self.organization);
        let environment = self
            .client
            .projects()
            .get_environment(pb::GetEnvironmentRequest { name, ..Default::default() })
            .await?
            .into_inner();
        let endpoint = environment.endpoints.first();
        let url = &endpoint.with_context(|| format!("`{}` answers nowhere", environment.name))?.url;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        Ok(http.get(url).send().await?.error_for_status()?.text().await?)
    }
}

/// The details of a refusal, with its reason.
pub fn details(status: &Status) -> (String, ErrorDetails) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    (reason, details)
}

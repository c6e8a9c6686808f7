//! The connection of the client commands: one channel to the gateway, the caller's token on every call.

use std::time::Duration;

use anyhow::Context as _;
use pavior_proto::google::longrunning::operations_client::OperationsClient;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient;
use pavior_proto::pavior::catalog::v1::resource_type_service_client::ResourceTypeServiceClient;
use pavior_proto::pavior::catalog::v1::template_service_client::TemplateServiceClient;
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_proto::pavior::platform::v1::platform_service_client::PlatformServiceClient;
use pavior_proto::pavior::policy::v1::access_service_client::AccessServiceClient;
use pavior_proto::pavior::policy::v1::approval_service_client::ApprovalServiceClient;
use pavior_proto::pavior::policy::v1::policy_service_client::PolicyServiceClient;
use pavior_proto::pavior::provisioning::v1::deployment_service_client::DeploymentServiceClient;
use pavior_proto::pavior::provisioning::v1::operation_service_client::OperationServiceClient;
use pavior_proto::pavior::provisioning::v1::pipeline_service_client::PipelineServiceClient;
use pavior_proto::pavior::provisioning::v1::plan_service_client::PlanServiceClient;
use pavior_proto::pavior::provisioning::v1::project_service_client::ProjectServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::failure::{OrUsage as _, wrong_usage};

/// Puts the bearer token on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(…)")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A channel that carries the caller's token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// Where the gateway is and who calls.
#[derive(Clone)]
pub struct Client {
    channel: Authorized,
    organization: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("organization", &self.organization).finish_non_exhaustive()
    }
}

/// What a [`Client`] needs to know.
#[derive(Clone, Default)]
pub struct Connection {
    /// The gateway, `http://host:port` or `https://host:port`.
    pub server: String,
    /// The bearer token; none for calls that need none.
    pub token: Option<String>,
    /// The organization that short names are completed with.
    pub organization: Option<String>,
    /// PEM certificates to trust besides those of the system.
    pub ca_pem: Option<Vec<u8>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client; the connection is made at the first call.
    pub fn new(connection: &Connection) -> anyhow::Result<Self> {
        let endpoint = ["http://", "https://"].iter().any(|scheme| connection.server.starts_with(scheme));
        let endpoint = endpoint.then(|| Endpoint::from_shared(connection.server.clone()).ok()).flatten();
        let mut endpoint = endpoint
            .with_context(|| format!("`{}` is not an address like http://127.0.0.1:7410", connection.server))
            .or_usage()?
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .user_agent(concat!("pavior/", env!("CARGO_PKG_VERSION")))?;
        if connection.server.starts_with("https://") {
            let mut tls = ClientTlsConfig::new();
            if let Some(pem) = &connection.ca_pem {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls)?;
        }
        let bearer = match &connection.token {
            Some(token) => {
                let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
                    .parse()
                    .map_err(|_| wrong_usage("the token holds characters that no token has"))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let channel = InterceptedService::new(endpoint.connect_lazy(), Bearer(bearer));
        Ok(Self { channel, organization: connection.organization.clone() })
    }

    /// The raw channel, for calls whose types are known only at run time.
    pub fn channel(&self) -> Authorized {
        self.channel.clone()
    }

    /// Calls about organizations, groups, users and memberships.
    pub fn identity(&self) -> IdentityServiceClient<Authorized> {
        IdentityServiceClient::new(self.channel())
    }

    /// Calls about kinds and entities.
    pub fn catalog(&self) -> CatalogServiceClient<Authorized> {
        CatalogServiceClient::new(self.channel())
    }

    /// Calls about golden paths.
    pub fn templates(&self) -> TemplateServiceClient<Authorized> {
        TemplateServiceClient::new(self.channel())
    }

    /// Calls about resource types and definitions.
    pub fn resource_types(&self) -> ResourceTypeServiceClient<Authorized> {
        ResourceTypeServiceClient::new(self.channel())
    }

    /// Calls about roles and their bindings.
    pub fn access(&self) -> AccessServiceClient<Authorized> {
        AccessServiceClient::new(self.channel())
    }

    /// Calls about policies and their bindings.
    pub fn policies(&self) -> PolicyServiceClient<Authorized> {
        PolicyServiceClient::new(self.channel())
    }

    /// Calls about approvals.
    pub fn approvals(&self) -> ApprovalServiceClient<Authorized> {
        ApprovalServiceClient::new(self.channel())
    }

    /// Calls about projects, environments and resources.
    pub fn projects(&self) -> ProjectServiceClient<Authorized> {
        ProjectServiceClient::new(self.channel())
    }

    /// Calls about pipelines and runs.
    pub fn pipelines(&self) -> PipelineServiceClient<Authorized> {
        PipelineServiceClient::new(self.channel())
    }

    /// Calls about deployments.
    pub fn deployments(&self) -> DeploymentServiceClient<Authorized> {
        DeploymentServiceClient::new(self.channel())
    }

    /// Calls about plans.
    pub fn plans(&self) -> PlanServiceClient<Authorized> {
        PlanServiceClient::new(self.channel())
    }

    /// Calls about what is followed and taken up of operations.
    pub fn operation_service(&self) -> OperationServiceClient<Authorized> {
        OperationServiceClient::new(self.channel())
    }

    /// Calls to the audit log.
    pub fn audit(&self) -> AuditServiceClient<Authorized> {
        AuditServiceClient::new(self.channel())
    }

    /// Calls to the platform as a whole.
    pub fn platform(&self) -> PlatformServiceClient<Authorized> {
        PlatformServiceClient::new(self.channel())
    }

    /// Calls to long-running operations.
    pub fn operations(&self) -> OperationsClient<Authorized> {
        OperationsClient::new(self.channel())
    }

    /// The organization's resource name, `organizations/{organization}`.
    pub fn organization(&self) -> anyhow::Result<String> {
        let id = self.organization.as_deref().ok_or_else(|| {
            wrong_usage(
                "no organization is known: give --organization, set PAVIOR_ORGANIZATION, or `pavior login`",
            )
        })?;
        Ok(format!("organizations/{id}"))
    }

    /// Completes a name that begins below the organization: `projects/hello` becomes
    /// `organizations/acme/projects/hello`, and nothing becomes the organization. Full names pass.
    pub fn name_within(&self, rest: &str) -> anyhow::Result<String> {
        let parts: Vec<&str> = rest.split('/').collect();
        match rest {
            "" => self.organization(),
            _ if rest.starts_with("organizations/") => Ok(rest.to_owned()),
            _ if parts.len().is_multiple_of(2) && parts.iter().all(|part| !part.is_empty()) => {
                Ok(format!("{}/{rest}", self.organization()?))
            }
            _ => Err(wrong_usage(format!(
                "`{rest}` is not a name like projects/hello or projects/hello/environments/staging"
            ))),
        }
    }

    /// Completes a short name: `hello` becomes `organizations/acme/projects/hello` for `["projects"]`, `hello/dev`
    /// becomes `…/projects/hello/environments/dev` for `["projects", "environments"]`. Full names pass.
    pub fn full_name(&self, short: &str, collections: &[&str]) -> anyhow::Result<String> {
        if short.starts_with("organizations/") {
            return Ok(short.to_owned());
        }
        let ids: Vec<&str> = short.split('/').collect();
        if ids.len() != collections.len() || ids.iter().any(|id| id.is_empty()) {
            let form: Vec<_> = collections.iter().map(|c| c.trim_end_matches('s').to_uppercase()).collect();
            let full: Vec<_> = collections.iter().zip(&form).map(|(c, id)| format!("/{c}/{id}")).collect();
            return Err(wrong_usage(format!(
                "`{short}` is not of the form {} or organizations/ORGANIZATION{}",
                form.join("/"),
                full.concat()
            )));
        }
        let mut name = self.organization()?;
        for (collection, id) in collections.iter().zip(ids) {
            name.push_str(&format!("/{collection}/{id}"));
        }
        Ok(name)
    }
}

/// A fresh id that makes a mutation repeatable.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

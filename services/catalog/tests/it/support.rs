//! The real service behind its whole server stack, called with signed tokens.

use std::sync::Arc;

use pavior_auth::ServiceIdentity;
use pavior_catalog::{Config, Deps, ROLE, build};
use pavior_core::clock::ManualClock;
use pavior_core::principal::{INSTALLATION, Principal};
use pavior_proto::pavior::catalog::internal::v1::registration_service_client::RegistrationServiceClient;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient;
use pavior_proto::pavior::catalog::v1::resource_type_service_client::ResourceTypeServiceClient;
use pavior_proto::pavior::catalog::v1::template_service_client::TemplateServiceClient;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_client::ResourceFactsServiceClient;
use pavior_proto::pavior::identity::internal::v1::directory_service_client::DirectoryServiceClient;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_rpc::{StackOptions, Transport, local, remote};
use pavior_store::{Store, outbox};
use pavior_testkit::db::TestDb;
use pavior_testkit::{Clock, PAGE_TOKEN_KEY, ServiceHarness, meter, service, user};
use prost_types::Struct;
use serde_json::Value as Json;

/// Clients of everything that the role answers, over one transport.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) identity: IdentityServiceClient<Transport>,
    pub(crate) catalog: CatalogServiceClient<Transport>,
    pub(crate) templates: TemplateServiceClient<Transport>,
    pub(crate) resource_types: ResourceTypeServiceClient<Transport>,
    pub(crate) directory: DirectoryServiceClient<Transport>,
    pub(crate) registration: RegistrationServiceClient<Transport>,
}

impl Client {
    fn new(transport: Transport) -> Self {
        Self {
            identity: IdentityServiceClient::new(transport.clone()),
            catalog: CatalogServiceClient::new(transport.clone()),
            templates: TemplateServiceClient::new(transport.clone()),
            resource_types: ResourceTypeServiceClient::new(transport.clone()),
            directory: DirectoryServiceClient::new(transport.clone()),
            registration: RegistrationServiceClient::new(transport.clone()),
        }
    }
}

/// The service on one database, and clients of it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) identity: ServiceIdentity,
    /// Of provisioning, and of policy.
    pub(crate) provisioning: Client,
    pub(crate) policy: Client,
    pub(crate) signed: Transport,
    pub(crate) client: Client,
    pub(crate) facts: ResourceFactsServiceClient<Transport>,
    pub(crate) bare: Client,
    _db: TestDb,
}

pub(crate) fn principal(organization: &str, id: &str) -> Principal {
    Principal { installation_operator: id == "root", ..user(organization, id) }
}

impl World {
    pub(crate) async fn new(db: TestDb) -> Self {
        let harness = ServiceHarness::new(ROLE, &["provisioning", "policy"]);
        let store = db.connect().await;
        let deps = Deps {
            store: store.clone(),
            clock: harness.clock.clone(),
            ids: harness.ids.clone(),
            identity: harness.identity("gateway").clone(),
            audit: remote("http://127.0.0.1:1", None),
            page_token_key: PAGE_TOKEN_KEY,
            meter: meter(),
            instance: "test".to_owned(),
        };
        let component = build(&Config::default(), deps).await.unwrap();
        assert_eq!(component.name, ROLE);
        let bare = local(harness.stack(component.routes, StackOptions::default()));
        let signed = harness.governed(bare.clone());
        Self {
            store,
            clock: harness.clock.clone(),
            provisioning: Client::new(harness.signed_by("provisioning", bare.clone())),
            policy: Client::new(harness.signed_by("policy", bare.clone())),
            identity: harness.identity("gateway").clone(),
            client: Client::new(signed.clone()),
            facts: ResourceFactsServiceClient::new(signed.clone()),
            signed,
            bare: Client::new(bare),
            _db: db,
        }
    }

    /// With the organizations `acme` and `umbrella`.
    pub(crate) async fn ready(db: TestDb) -> Self {
        let world = Self::new(db).await;
        for id in ["acme", "umbrella"] {
            world.organization(id).await;
        }
        world
    }

    pub(crate) async fn organization(&self, id: &str) -> identity_pb::Organization {
        let request = identity_pb::CreateOrganizationRequest {
            organization_id: id.to_owned(),
            organization: Some(identity_pb::Organization {
                display_name: id.to_uppercase(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.client.identity.clone().create_organization(self.root(request)).await.unwrap().into_inner()
    }

    /// As an operator of the installation.
    pub(crate) fn root<T>(&self, message: T) -> tonic::Request<T> {
        self.identity.request_as(&Arc::new(principal(INSTALLATION, "root")), INSTALLATION, message)
    }

    /// As provisioning itself in `acme`.
    pub(crate) fn by_provisioning<T>(&self, message: T) -> tonic::Request<T> {
        self.by_service("provisioning", message)
    }

    /// As a service itself in `acme`.
    pub(crate) fn by_service<T>(&self, role: &str, message: T) -> tonic::Request<T> {
        self.identity.request_as(&Arc::new(service(role)), "acme", message)
    }

    /// As alice of `acme`.
    pub(crate) fn alice<T>(&self, message: T) -> tonic::Request<T> {
        self.in_org("acme", message)
    }

    pub(crate) fn in_org<T>(&self, organization: &str, message: T) -> tonic::Request<T> {
        self.identity.request_as(&Arc::new(principal(organization, "alice")), organization, message)
    }

    /// As alice of an organization, in a call that is about the installation.
    pub(crate) fn on_platform<T>(&self, organization: &str, message: T) -> tonic::Request<T> {
        self.identity.request_as(&Arc::new(principal(organization, "alice")), INSTALLATION, message)
    }

    pub(crate) async fn group(&self, organization: &str, id: &str, parent: &str) -> identity_pb::Group {
        let request = identity_pb::CreateGroupRequest {
            parent: format!("organizations/{organization}"),
            group_id: id.to_owned(),
            group: Some(identity_pb::Group { parent_group: parent.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        self.client
            .identity
            .clone()
            .create_group(self.in_org(organization, request))
            .await
            .unwrap()
            .into_inner()
    }

    /// Makes a user of `acme` a member of one of its groups.
    pub(crate) async fn member(&self, group: &str, user: &str) -> identity_pb::Membership {
        let request = create_membership(group, user);
        self.client.identity.clone().create_membership(self.alice(request)).await.unwrap().into_inner()
    }

    pub(crate) async fn component(&self, organization: &str, id: &str, spec: Json) -> pb::Entity {
        let request = create_component(organization, id, spec);
        self.client
            .catalog
            .clone()
            .create_entity(self.in_org(organization, request))
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn resource_type(&self, id: &str, input: Json, outputs: &[&str]) -> pb::ResourceType {
        let properties: serde_json::Map<String, Json> =
            outputs.iter().map(|output| ((*output).to_owned(), serde_json::json!({}))).collect();
        let request = pb::CreateResourceTypeRequest {
            parent: "organizations/acme".to_owned(),
            resource_type_id: id.to_owned(),
            resource_type: Some(pb::ResourceType {
                input_schema_json: input.to_string(),
                output_schema_json: serde_json::json!({ "properties": properties }).to_string(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.client
            .resource_types
            .clone()
            .create_resource_type(self.alice(request))
            .await
            .unwrap()
            .into_inner()
    }

    /// The events that wait for the audit service.
    pub(crate) async fn audited(&self) -> Vec<pavior_core::audit::AuditEvent> {
        let rows = outbox::pending(&self.store, ROLE, 1_000, usize::MAX).await.unwrap();
        rows.into_iter().map(|row| row.event).collect()
    }

    pub(crate) fn later(&self) {
        self.clock.advance(std::time::Duration::from_secs(1));
        assert!(self.clock.now().unix_timestamp() > 0);
    }
}

pub(crate) fn create_membership(group: &str, user: &str) -> identity_pb::CreateMembershipRequest {
    identity_pb::CreateMembershipRequest {
        parent: format!("organizations/acme/groups/{group}"),
        membership: Some(identity_pb::Membership {
            member: format!("organizations/acme/users/{user}"),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn create_component(organization: &str, id: &str, spec: Json) -> pb::CreateEntityRequest {
    let mut full = serde_json::json!({ "type": "service", "lifecycle": "production" });
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pb::CreateEntityRequest {
        parent: format!("organizations/{organization}/kinds/component"),
        entity_id: id.to_owned(),
        entity: Some(pb::Entity { spec: Some(object(full)), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn object(value: Json) -> Struct {
    pavior_rpc::convert::to_struct(&value).unwrap()
}

pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

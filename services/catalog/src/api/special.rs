//! Methods that are not like the others.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_rpc::paging::Page;
use pavior_rpc::problem::Problem;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::convert_resource::{decode_context, encode_match};
use super::handlers::{Api, PageOf, Rpc, again, answered, asked, call, check_id, checked, encoder};
use super::status::to_status;
use super::wire::{Named, Scope, Wire, named, parent, parse};
use crate::app::{
    Answer, Create, Directory, DirectoryRows, ImportDocument, Imported, Publish, Register, Rules as _,
    Unregister, View,
};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, OrganizationFields, TemplateFields, VersionFields, Violations};
use crate::error::Error;

/// The name of the installation.
const PLATFORM: &str = "organizations/-";
const ORGANIZATION: &str = "organizations/{organization}";
const MAX_BATCH: usize = 1_000;
const MAX_CONTEXTS: usize = 500;

type Answered<M> = Result<Response<M>, Status>;

fn for_platform(platform: &str) -> Result<(), Problem> {
    if platform == PLATFORM {
        return Ok(());
    }
    Err(Problem::invalid_field("platform", format!("must be `{PLATFORM}`")))
}

fn too_many(field: &str, max: usize) -> Status {
    Problem::invalid_field(field, format!("must have at most {max} entries")).into()
}

impl Api {
    pub(super) async fn make_organization(
        &self,
        request: Request<pb::CreateOrganizationRequest>,
        rpc: Rpc,
    ) -> Answered<pb::Organization> {
        let (permit, request) = checked(request)?;
        for_platform(&request.platform)?;
        check_id::<OrganizationFields>(&request.organization_id)?;
        let message = request.organization.clone().unwrap_or_default();
        let scope = Scope { organization: &request.organization_id, parent: "" };
        let fields = OrganizationFields::decode(&message, scope, None)
            .map_err(|violations| to_status(Error::under("organization", violations), rpc.action))?;
        let command = Create { id: request.organization_id.clone(), fields };
        let call = call(&permit, rpc, &request, &request.request_id, request.validate_only);
        answered::<OrganizationFields>(self.app.create_organization(call, encoder(), command).await, rpc)
    }

    pub(super) async fn page_of_organizations(
        &self,
        request: Request<pb::ListOrganizationsRequest>,
        rpc: Rpc,
    ) -> Answered<pb::ListOrganizationsResponse> {
        let (permit, request) = checked(request)?;
        for_platform(&request.platform)?;
        let page = Page::open(&self.tokens, request.page_size, &request.page_token, &[rpc.method])?;
        let listing = self.app.list_organizations(&permit, page.limit(), page.after.clone()).await;
        let listing = listing.map_err(|error| to_status(error, rpc.action))?;
        let views = listing.rows.into_iter().map(|stored| View { stored, relations: Vec::new() });
        let closed = self.close::<OrganizationFields>(&page, views.collect(), &listing.positions);
        let PageOf { items: organizations, next_page_token } = closed;
        Ok(Response::new(pb::ListOrganizationsResponse { organizations, next_page_token }))
    }

    pub(super) async fn entity(
        &self,
        request: Request<pb::GetEntityRequest>,
        rpc: Rpc,
    ) -> Answered<pb::Entity> {
        let (permit, request) = checked(request)?;
        let Named { name, parent, id } = named::<EntityFields>(&permit, "name", &request.name, rpc.action)?;
        let view = self.app.get_entity(&permit, &parent, &id, &name).await;
        Ok(Response::new(EntityFields::encode(&view.map_err(|error| to_status(error, rpc.action))?)))
    }

    pub(super) async fn several_entities(
        &self,
        request: Request<pb::BatchGetEntitiesRequest>,
        rpc: Rpc,
    ) -> Answered<pb::BatchGetEntitiesResponse> {
        let (permit, request) = checked(request)?;
        let kind = parent::<EntityFields>(&permit, "parent", &request.parent, true, rpc.action)?;
        if request.names.len() > MAX_BATCH {
            return Err(too_many("names", MAX_BATCH));
        }
        let mut keys = Vec::with_capacity(request.names.len());
        for (index, name) in request.names.iter().enumerate() {
            let field = format!("names[{index}]");
            let found = named::<EntityFields>(&permit, &field, name, rpc.action)?;
            if kind.as_ref().is_some_and(|kind| *kind != found.parent) {
                let message = format!("`{name}` is not in `{}`", request.parent);
                return Err(Problem::invalid_field(field, message).into());
            }
            keys.push(EntityKey::new(found.parent, found.id));
        }
        let views = self.app.batch_get_entities(&permit, &keys).await;
        let views = views.map_err(|error| to_status(error, rpc.action))?;
        let mut entities = Vec::with_capacity(views.len());
        let mut bytes = 0;
        for view in &views {
            let entity = EntityFields::encode(view);
            bytes += entity.encoded_len();
            // All or nothing, as AIP-231 has it: an answer that clients refuse is nothing.
            if bytes > self.max_page_bytes {
                return Err(Problem::too_large(Some(self.max_page_bytes)).into());
            }
            entities.push(entity);
        }
        Ok(Response::new(pb::BatchGetEntitiesResponse { entities }))
    }

    pub(super) async fn page_of_entities(
        &self,
        request: Request<pb::ListEntitiesRequest>,
        rpc: Rpc,
    ) -> Result<PageOf<pb::Entity>, Status> {
        let (permit, request) = checked(request)?;
        let kind = parent::<EntityFields>(&permit, "parent", &request.parent, true, rpc.action)?;
        let page = self.open(&request, rpc)?;
        let found = self.app.list_entities(&permit, asked(&request, kind.as_deref(), &page)).await;
        let found = found.map_err(|error| to_status(error, rpc.action))?;
        Ok(self.close::<EntityFields>(&page, found.views, &found.positions))
    }

    pub(super) async fn register(
        &self,
        request: Request<pb::RegisterEntityRequest>,
        rpc: Rpc,
    ) -> Answered<pb::Entity> {
        let (permit, request) = checked(request)?;
        let kind = parent::<EntityFields>(&permit, "parent", &request.parent, false, rpc.action)?;
        check_id::<EntityFields>(&request.entity_id)?;
        let scope =
            Scope { organization: permit.organization(), parent: kind.as_deref().unwrap_or_default() };
        let fields = EntityFields::decode(&request.entity.clone().unwrap_or_default(), scope, None)
            .map_err(|violations| to_status(Error::under(EntityFields::FIELD, violations), rpc.action))?;
        let call = call(&permit, rpc, &request, "", false).within(&request.operation)?;
        let pb::RegisterEntityRequest { parent: _, entity_id: id, entity: _, resource, key, operation: _ } =
            request;
        let command = Register { id, fields, resource, key };
        answered::<EntityFields>(self.app.register_entity(call, encoder(), command).await, rpc)
    }

    pub(super) async fn unregister(
        &self,
        request: Request<pb::UnregisterEntityRequest>,
        rpc: Rpc,
    ) -> Answered<()> {
        let (permit, request) = checked(request)?;
        let Named { name, parent, id } = named::<EntityFields>(&permit, "name", &request.name, rpc.action)?;
        let call = call(&permit, rpc, &request, "", false).within(&request.operation)?;
        let command = Unregister { name, kind: parent, id, resource: request.resource };
        let done = self.app.unregister_entity(call, command).await;
        done.map(Response::new).map_err(|error| to_status(error, rpc.action))
    }

    pub(super) async fn import(
        &self,
        request: Request<pb::ImportEntitiesRequest>,
        rpc: Rpc,
    ) -> Answered<pb::ImportEntitiesResponse> {
        let (permit, request) = checked(request)?;
        parse(&permit, "parent", &request.parent, ORGANIZATION, rpc.action)?;
        let call = call(&permit, rpc, &request, &request.request_id, request.validate_only);
        let answer = self.app.import(call, encode_import_bytes, documents(request)).await;
        match answer.map_err(|error| to_status(error, rpc.action))? {
            Answer::New(imported) => Ok(Response::new(encode_import(&imported))),
            Answer::Again(bytes) => again(&bytes).map(Response::new),
        }
    }

    pub(super) async fn version(
        &self,
        request: Request<pb::GetTemplateVersionRequest>,
        rpc: Rpc,
    ) -> Answered<pb::TemplateVersion> {
        let (permit, request) = checked(request)?;
        let Named { name, parent, id } = named::<VersionFields>(&permit, "name", &request.name, rpc.action)?;
        let stored = self.app.get_version(&permit, &parent, &id, &name).await;
        let stored = stored.map_err(|error| to_status(error, rpc.action))?;
        Ok(Response::new(VersionFields::encode(&View { stored, relations: Vec::new() })))
    }

    pub(super) async fn publish(
        &self,
        request: Request<pb::PublishTemplateVersionRequest>,
        rpc: Rpc,
    ) -> Answered<pb::TemplateVersion> {
        let (permit, request) = checked(request)?;
        let template = named::<TemplateFields>(&permit, "parent", &request.parent, rpc.action)?.id;
        let call = call(&permit, rpc, &request, &request.request_id, request.validate_only);
        let pb::PublishTemplateVersionRequest { document, channels, .. } = request;
        let command = Publish { template, document, channels };
        answered::<VersionFields>(self.app.publish(call, encoder(), command).await, rpc)
    }

    pub(super) async fn match_definitions(
        &self,
        request: Request<pb::MatchResourceDefinitionsRequest>,
        rpc: Rpc,
    ) -> Answered<pb::MatchResourceDefinitionsResponse> {
        let (permit, request) = checked(request)?;
        parse(&permit, "parent", &request.parent, ORGANIZATION, rpc.action)?;
        if request.contexts.len() > MAX_CONTEXTS {
            return Err(too_many("contexts", MAX_CONTEXTS));
        }
        let mut violations = Violations::new();
        let contexts = request.contexts.iter().enumerate().map(|(index, context)| {
            let path = format!("contexts.{index}");
            decode_context(context, &path, permit.organization(), &mut violations)
        });
        let contexts: Vec<_> = contexts.collect();
        violations.into_result().map_err(|v| to_status(Error::Invalid(v.into_vec()), rpc.action))?;
        let matches = self.app.match_definitions(&permit, &contexts).await;
        let matches = matches.map_err(|error| to_status(error, rpc.action))?;
        let matches = matches.into_iter().map(encode_match).collect();
        Ok(Response::new(pb::MatchResourceDefinitionsResponse { matches }))
    }

    pub(super) async fn directory(
        &self,
        request: Request<pb::GetDirectoryRequest>,
        rpc: Rpc,
    ) -> Answered<pb::Directory> {
        let (permit, request) = checked(request)?;
        parse(&permit, "organization", &request.organization, ORGANIZATION, rpc.action)?;
        let directory = self.app.directory(&permit, &request.known_revision).await;
        let directory = directory.map_err(|error| to_status(error, rpc.action))?;
        Ok(Response::new(encode_directory(directory, permit.organization())))
    }
}

/// The documents of an import.
pub(super) fn documents(request: pb::ImportEntitiesRequest) -> Vec<ImportDocument> {
    let document = |document| {
        let pb::import_entities_request::Document { origin, content } = document;
        ImportDocument { origin, content }
    };
    request.documents.into_iter().map(document).collect()
}

fn encode_import(imported: &Imported) -> pb::ImportEntitiesResponse {
    let Imported { created, updated, unchanged } = *imported;
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    pb::ImportEntitiesResponse {
        created_count: count(created),
        updated_count: count(updated),
        unchanged_count: count(unchanged),
    }
}

fn encode_import_bytes(imported: &Imported) -> Vec<u8> {
    encode_import(imported).encode_to_vec()
}

fn encode_directory(directory: Directory, organization: &str) -> pb::Directory {
    let Directory { revision, rows } = directory;
    let Some(DirectoryRows { memberships, groups }) = rows else {
        return pb::Directory { revision, unchanged: true, ..Default::default() };
    };
    let group = |id: &str| format!("organizations/{organization}/groups/{id}");
    let memberships = memberships.into_iter().map(|(user, groups)| pb::directory::Membership {
        user: format!("organizations/{organization}/users/{user}"),
        groups: groups.iter().map(|id| group(id)).collect(),
    });
    let memberships = memberships.collect();
    let groups = groups.into_iter().map(|(id, parent)| pb::directory::GroupParent {
        group: group(&id),
        parent_group: parent.map(|id| group(&id)).unwrap_or_default(),
    });
    pb::Directory { revision, unchanged: false, memberships, groups: groups.collect() }
}

//! Methods that are not like the others.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::name::{reserved_in, validate_new_id};
use pavior_proto::pavior::catalog::internal::v1 as registration_pb;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, ChangeContext, Create, Error as ResourceError, Scope, Service as _, Wire as _, close, close_cut,
    decode, list_query, name, open_page, parent, parse, read_request, respond,
};
use pavior_rpc::paging::Page;
use pavior_rpc::problem::Problem;
use prost::Message as _;
use tonic::Request;

use super::Api;
use super::convert_entity::{encode_entity, encode_relation};
use super::convert_resource::{decode_context, encode_match};
use crate::app::{
    CreateVersion, Directory, DirectoryRows, ImportDocument, Imported, MoveChannel, Register, RemoveChannel,
    Unregister,
};
use crate::domain::reference::EntityKey;
use crate::domain::template::channel_problem;
use crate::domain::version::is_version;
use crate::domain::{EntityFields, OrganizationFields, TemplateFields, VersionFields, Violations};
use crate::error::Error;

const ORGANIZATION: &str = "organizations/{organization}";
const MAX_BATCH: usize = 1_000;
const MAX_CONTEXTS: usize = 500;

fn too_many(field: &str, max: usize) -> Error {
    ResourceError::from(Problem::invalid_field(
        field,
        Fault::TooMany,
        format!("must have at most {max} entries"),
    ))
    .into()
}

impl Api {
    pub(super) async fn make_organization(
        &self,
        request: Request<identity_pb::CreateOrganizationRequest>,
    ) -> Answer<identity_pb::Organization> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let identity_pb::CreateOrganizationRequest { organization_id: id, organization, .. } = request;
        validate_new_id("organizations", &id).map_err(|message| {
            let reserved = reserved_in("organizations", &id).is_some();
            let fault = if reserved { Fault::Reserved } else { Fault::Pattern };
            Problem::invalid_field("organization_id", fault, message)
        })?;
        let scope = Scope { service: &self.app, organization: &id, parent: "" };
        let fields = decode::<OrganizationFields>(&organization.unwrap_or_default(), &scope, None);
        let fields = fields.map_err(Problem::from)?;
        let command = Create { id, fields };
        respond(self.app.create_organization(&context, OrganizationFields::encode, command).await)
    }

    pub(super) async fn page_of_organizations(
        &self,
        request: Request<identity_pb::ListOrganizationsRequest>,
    ) -> Answer<identity_pb::ListOrganizationsResponse> {
        type Asked = identity_pb::ListOrganizationsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let page = Page::open(&kernel.tokens, request.page_size, &request.page_token, &[Asked::PATH])?;
        let listing = self.app.list_organizations(&permit, page.limit(), page.after.clone()).await;
        respond(listing.map(|listing| {
            let rows = listing.rows.iter().map(OrganizationFields::encode).zip(listing.positions);
            close::<Asked>(kernel, &page, rows.collect())
        }))
    }

    pub(super) async fn entity(&self, request: Request<pb::GetEntityRequest>) -> Answer<pb::Entity> {
        let (permit, request) = read_request(request)?;
        let action = pb::GetEntityRequest::ACTION;
        let named = name::<EntityFields>(&permit, "name", &request.name, action).map_err(Problem::from)?;
        let view = self.app.get_entity(&permit, &named.parent, &named.id, &named.name).await;
        respond(view.map(|view| encode_entity(&view)))
    }

    pub(super) async fn several_entities(
        &self,
        request: Request<pb::BatchGetEntitiesRequest>,
    ) -> Answer<pb::BatchGetEntitiesResponse> {
        let (permit, request) = read_request(request)?;
        respond(self.batch(&permit, &request).await)
    }

    async fn batch(
        &self,
        permit: &Permit,
        request: &pb::BatchGetEntitiesRequest,
    ) -> Result<pb::BatchGetEntitiesResponse, Error> {
        let action = pb::BatchGetEntitiesRequest::ACTION;
        let kind = parent::<EntityFields>(permit, "parent", &request.parent, true, action)?;
        if request.names.len() > MAX_BATCH {
            return Err(too_many("names", MAX_BATCH));
        }
        let mut keys = Vec::with_capacity(request.names.len());
        for (index, full) in request.names.iter().enumerate() {
            let field = format!("names[{index}]");
            let found = name::<EntityFields>(permit, &field, full, action)?;
            if kind.as_ref().is_some_and(|kind| *kind != found.parent) {
                let message = format!("`{full}` is not in `{}`", request.parent);
                return Err(
                    ResourceError::from(Problem::invalid_field(field, Fault::Pattern, message)).into()
                );
            }
            keys.push(EntityKey::new(found.parent, found.id));
        }
        let views = self.app.batch_get_entities(permit, &keys).await?;
        let max_bytes = self.app.kernel().max_page_bytes;
        let mut entities = Vec::with_capacity(views.len());
        let mut bytes = 0;
        for view in &views {
            let entity = encode_entity(view);
            bytes += entity.encoded_len();
            // All or nothing, as AIP-231 has it: an answer that clients refuse is nothing.
            if bytes > max_bytes {
                return Err(ResourceError::from(Problem::too_large(Some(max_bytes))).into());
            }
            entities.push(entity);
        }
        Ok(pb::BatchGetEntitiesResponse { entities })
    }

    pub(super) async fn page_of_entities(
        &self,
        request: Request<pb::ListEntitiesRequest>,
    ) -> Answer<pb::ListEntitiesResponse> {
        type Asked = pb::ListEntitiesRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            let kind = parent::<EntityFields>(&permit, "parent", &request.parent, true, Asked::ACTION)?;
            let page = open_page(kernel, &request).map_err(ResourceError::from)?;
            let found = self.app.list_entities(&permit, &list_query(&request, kind, &page)?).await?;
            let rows = found.views.iter().map(encode_entity).zip(found.positions);
            Ok::<_, Error>(close_cut::<Asked>(kernel, &page, rows.collect(), found.cut))
        };
        respond(listed.await)
    }

    pub(super) async fn page_of_relations(
        &self,
        request: Request<pb::ListEntityRelationsRequest>,
    ) -> Answer<pb::ListEntityRelationsResponse> {
        type Asked = pb::ListEntityRelationsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            let entity = name::<EntityFields>(&permit, "parent", &request.parent, Asked::ACTION)?;
            let page = open_page(kernel, &request).map_err(ResourceError::from)?;
            let found = self.app.list_relations(&permit, &entity, page.after.as_ref(), page.limit()).await?;
            let encoded =
                found.into_iter().map(|(seen, at)| (encode_relation(&seen, permit.organization()), at));
            Ok::<_, Error>(close::<Asked>(kernel, &page, encoded.collect()))
        };
        respond(listed.await)
    }

    pub(super) async fn register(
        &self,
        request: Request<registration_pb::RegisterEntityRequest>,
    ) -> Answer<pb::Entity> {
        let (permit, request) = read_request(request)?;
        let action = registration_pb::RegisterEntityRequest::ACTION;
        let kind = parent::<EntityFields>(&permit, "parent", &request.parent, false, action);
        let kind = kind.map_err(Problem::from)?.unwrap_or_default();
        if !request.entity_id.is_empty() {
            validate_new_id("entities", &request.entity_id)
                .map_err(|message| Problem::invalid_field("entity_id", Fault::Pattern, message))?;
        }
        let scope = Scope { service: &self.app, organization: permit.organization(), parent: &kind };
        let fields = decode::<EntityFields>(&request.entity.clone().unwrap_or_default(), &scope, None);
        let fields = fields.map_err(Problem::from)?;
        let context = ChangeContext::of(&permit, &request).within(&request.operation_id)?;
        let registration_pb::RegisterEntityRequest {
            parent: _,
            entity_id: id,
            entity: _,
            resource,
            key,
            operation_id: _,
        } = request;
        let command = Register { id, fields, resource, key };
        respond(self.app.register_entity(&context, encode_entity, command).await)
    }

    pub(super) async fn unregister(
        &self,
        request: Request<registration_pb::UnregisterEntityRequest>,
    ) -> Answer<()> {
        let (permit, request) = read_request(request)?;
        let action = registration_pb::UnregisterEntityRequest::ACTION;
        let named = name::<EntityFields>(&permit, "name", &request.name, action).map_err(Problem::from)?;
        let context = ChangeContext::of(&permit, &request).within(&request.operation_id)?;
        let (kind, resource) = (named.parent, request.resource);
        let command = Unregister { name: named.name, kind, id: named.id, resource };
        respond(self.app.unregister_entity(&context, command).await)
    }

    pub(super) async fn dependents(
        &self,
        request: Request<registration_pb::ListDependentsRequest>,
    ) -> Answer<registration_pb::ListDependentsResponse> {
        let (permit, request) = read_request(request)?;
        let action = registration_pb::ListDependentsRequest::ACTION;
        let named = name::<EntityFields>(&permit, "name", &request.name, action).map_err(Problem::from)?;
        let found = self.app.dependents_of(&permit, &named.parent, &named.id, &request.resource).await;
        respond(found.map(|entities| registration_pb::ListDependentsResponse { entities }))
    }

    pub(super) async fn import(
        &self,
        request: Request<pb::ImportEntitiesRequest>,
    ) -> Answer<pb::ImportEntitiesResponse> {
        let (permit, request) = read_request(request)?;
        let action = pb::ImportEntitiesRequest::ACTION;
        parse(&permit, "parent", &request.parent, ORGANIZATION, action).map_err(Problem::from)?;
        let context = ChangeContext::of(&permit, &request);
        respond(self.app.import(&context, encode_import, documents(request)).await)
    }

    pub(super) async fn version(
        &self,
        request: Request<pb::GetTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        let (permit, request) = read_request(request)?;
        let action = pb::GetTemplateVersionRequest::ACTION;
        let named = name::<VersionFields>(&permit, "name", &request.name, action).map_err(Problem::from)?;
        let stored = self.app.get_version(&permit, &named.parent, &named.id, &named.name).await;
        respond(stored.map(|stored| VersionFields::encode(&stored)))
    }

    pub(super) async fn create_version(
        &self,
        request: Request<pb::CreateTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        let (permit, request) = read_request(request)?;
        let action = pb::CreateTemplateVersionRequest::ACTION;
        let named = name::<TemplateFields>(&permit, "parent", &request.parent, action);
        let template = named.map_err(Problem::from)?.id;
        let context = ChangeContext::of(&permit, &request);
        let pb::CreateTemplateVersionRequest { template_version_id: id, template_version, .. } = request;
        let document = template_version.unwrap_or_default().document;
        let command = CreateVersion { template, id, document };
        respond(self.app.create_version(&context, VersionFields::encode, command).await)
    }

    pub(super) async fn move_channel(
        &self,
        request: Request<pb::MoveTemplateChannelRequest>,
    ) -> Answer<pb::Template> {
        let (permit, request) = read_request(request)?;
        let action = pb::MoveTemplateChannelRequest::ACTION;
        let context = ChangeContext::of(&permit, &request);
        let pb::MoveTemplateChannelRequest { name, channel_id, template_version, etag, .. } = request;
        let (template, channel) = channel_of(&permit, &name, channel_id, action)?;
        let version = of_template(&permit, &template, &template_version, action)?;
        let command = MoveChannel { template, channel, version, etag };
        respond(self.app.move_channel(&context, TemplateFields::encode, command).await)
    }

    pub(super) async fn remove_channel(
        &self,
        request: Request<pb::RemoveTemplateChannelRequest>,
    ) -> Answer<pb::Template> {
        let (permit, request) = read_request(request)?;
        let action = pb::RemoveTemplateChannelRequest::ACTION;
        let context = ChangeContext::of(&permit, &request);
        let pb::RemoveTemplateChannelRequest { name, channel_id, etag, allow_missing, .. } = request;
        let (template, channel) = channel_of(&permit, &name, channel_id, action)?;
        let command = RemoveChannel { template, channel, etag, allow_missing };
        respond(self.app.remove_channel(&context, TemplateFields::encode, command).await)
    }

    pub(super) async fn match_definitions(
        &self,
        request: Request<pb::MatchResourceDefinitionsRequest>,
    ) -> Answer<pb::MatchResourceDefinitionsResponse> {
        let (permit, request) = read_request(request)?;
        let matched = async {
            let action = pb::MatchResourceDefinitionsRequest::ACTION;
            parse(&permit, "parent", &request.parent, ORGANIZATION, action)?;
            if request.contexts.len() > MAX_CONTEXTS {
                return Err(too_many("contexts", MAX_CONTEXTS));
            }
            let mut violations = Violations::new();
            let contexts = request.contexts.iter().enumerate().map(|(index, context)| {
                let path = format!("contexts.{index}");
                decode_context(context, &path, permit.organization(), &mut violations)
            });
            let contexts: Vec<_> = contexts.collect();
            violations.into_result().map_err(|v| ResourceError::Invalid(v.into_vec()))?;
            let matches = self.app.match_definitions(&permit, &contexts).await?;
            let matches = matches.into_iter().map(encode_match).collect();
            Ok(pb::MatchResourceDefinitionsResponse { matches })
        };
        respond(matched.await)
    }

    pub(super) async fn directory(
        &self,
        request: Request<directory_pb::GetDirectoryRequest>,
    ) -> Answer<directory_pb::Directory> {
        let (permit, request) = read_request(request)?;
        let action = directory_pb::GetDirectoryRequest::ACTION;
        parse(&permit, "organization", &request.organization, ORGANIZATION, action).map_err(Problem::from)?;
        let directory = self.app.directory(&permit, &request.known_revision).await;
        respond(directory.map(|directory| encode_directory(directory, permit.organization())))
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

fn encode_directory(directory: Directory, organization: &str) -> directory_pb::Directory {
    let Directory { revision, rows } = directory;
    let Some(DirectoryRows { memberships, groups }) = rows else {
        return directory_pb::Directory { revision, unchanged: true, ..Default::default() };
    };
    let group = |id: &str| format!("organizations/{organization}/groups/{id}");
    let memberships = memberships.into_iter().map(|(member, groups)| directory_pb::directory::Membership {
        member,
        groups: groups.iter().map(|id| group(id)).collect(),
    });
    let memberships = memberships.collect();
    let groups = groups.into_iter().map(|(id, parent)| directory_pb::directory::GroupParent {
        group: group(&id),
        parent_group: parent.map(|id| group(&id)).unwrap_or_default(),
    });
    directory_pb::Directory { revision, unchanged: false, memberships, groups: groups.collect() }
}

/// The ids of a template and of one of its channels.
fn channel_of(
    permit: &Permit,
    template: &str,
    channel: String,
    action: &str,
) -> Result<(String, String), Problem> {
    let template = name::<TemplateFields>(permit, "name", template, action).map_err(Problem::from)?.id;
    channel_problem(&channel)
        .map_err(|problem| Problem::invalid_field("channel_id", Fault::Pattern, problem))?;
    Ok((template, channel))
}

/// The id of a version of this template, from its name. A channel is none.
fn of_template(permit: &Permit, template: &str, version: &str, action: &str) -> Result<String, Problem> {
    const FIELD: &str = "template_version";
    let named = name::<VersionFields>(permit, FIELD, version, action).map_err(Problem::from)?;
    if named.parent != template {
        return Err(Problem::invalid_field(
            FIELD,
            Fault::Conflict,
            format!("`{version}` is not a version of `{template}`"),
        ));
    }
    if !is_version(&named.id) {
        return Err(Problem::invalid_field(
            FIELD,
            Fault::Pattern,
            format!("`{}` is not a version such as `1.2.0`", named.id),
        ));
    }
    Ok(named.id)
}

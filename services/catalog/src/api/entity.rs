//! Entities on the wire.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, Error as ResourceError, Named, Scope, Service as _, Wire, close_cut, end_times, get_with,
    list_query, name, open_page, parent, read_request, respond, times,
};
use pavior_rpc::problem::Problem;
use prost::Message as _;
use tonic::Request;

use super::Api;
use super::convert::{from_hash_map, from_pb_struct, to_hash_map, to_pb_struct};
use super::relation::encode_relation;
use crate::app::{App, EntityView};
use crate::domain::entity::Link;
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Stored, Violations, text};
use crate::error::Error;

impl Wire for EntityFields {
    type Message = pb::Entity;

    fn encode(stored: &Stored<Self>) -> pb::Entity {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self {
            kind: _,
            display_name,
            description,
            labels,
            annotations,
            tags,
            links,
            owner,
            spec,
            origin,
        } = &stored.fields;
        pb::Entity {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name: display_name.clone(),
            delete_time,
            purge_time,
            create_time,
            update_time,
            description: description.clone(),
            labels: to_hash_map(labels),
            annotations: to_hash_map(annotations),
            tags: tags.clone(),
            links: links.iter().map(encode_link).collect(),
            owner: owner.clone(),
            spec: to_pb_struct(spec),
            // Filled in by `encode_entity`.
            relations: Vec::new(),
            origin: origin.clone(),
        }
    }

    fn decode(
        message: &pb::Entity,
        scope: &Scope<'_, App>,
        before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let pb::Entity {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            delete_time: _,
            purge_time: _,
            update_time: _,
            description,
            labels,
            annotations,
            tags,
            links,
            owner,
            spec,
            relations: _,
            origin: _,
        } = message;
        let (labels, annotations) = (from_hash_map(labels), from_hash_map(annotations));
        text::reserved(violations, "labels", &labels, before.map(|before| &before.labels));
        text::reserved(violations, "annotations", &annotations, before.map(|before| &before.annotations));
        Some(Self {
            kind: scope.parent.to_owned(),
            display_name: display_name.clone(),
            description: description.clone(),
            labels,
            annotations,
            tags: tags.clone(),
            links: links.iter().map(decode_link).collect(),
            owner: owner.clone(),
            spec: from_pb_struct(spec.as_ref()),
            origin: before.map(|before| before.origin.clone()).unwrap_or_default(),
        })
    }
}

/// An entity with its relations.
pub(super) fn encode_entity(view: &EntityView) -> pb::Entity {
    let EntityView { stored, relations } = view;
    let relations = relations.iter().map(|one| encode_relation(one, &stored.organization)).collect();
    pb::Entity { relations, ..EntityFields::encode(stored) }
}

/// An entity that was deleted, if it was there.
pub(super) fn encode_deleted(gone: &Option<EntityView>) -> pb::Entity {
    gone.as_ref().map(encode_entity).unwrap_or_default()
}

fn encode_link(link: &Link) -> pb::entity::Link {
    let Link { url, title, icon, link_type } = link.clone();
    pb::entity::Link { url, title, icon, r#type: link_type }
}

fn decode_link(link: &pb::entity::Link) -> Link {
    let pb::entity::Link { url, title, icon, r#type } = link.clone();
    Link { url, title, icon, link_type: r#type }
}

impl Api {
    pub(super) async fn entity(&self, request: Request<pb::GetEntityRequest>) -> Answer<pb::Entity> {
        type Asked = pb::GetEntityRequest;
        get_with(request, async |permit: &Permit, request: &Asked| {
            let Named { name, parent, id } =
                name::<EntityFields>(permit, "name", &request.name, Asked::ACTION)?;
            let view = self.app.get_entity(permit, &parent, &id, &name).await?;
            Ok::<_, Error>(encode_entity(&view))
        })
        .await
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
            // A batch is returned whole or not at all (AIP-231), so one that clients could not receive is refused.
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
            let page = open_page(&kernel.tokens, &request).map_err(ResourceError::from)?;
            let found = self.app.list_entities(&permit, &list_query(&request, kind, &page)?).await?;
            let rows = found.views.iter().map(encode_entity).zip(found.positions);
            Ok::<_, Error>(close_cut::<Asked>(kernel, &page, rows.collect(), found.total, found.cut)?)
        };
        respond(listed.await)
    }
}

//! Between messages and the domain: entities.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_resource::{Scope, Wire, times};

use super::convert::{from_hash_map, from_pb_struct, to_hash_map, to_pb_struct};
use crate::app::{App, EntityView};
use crate::domain::entity::{Link, SeenRelation};
use crate::domain::{EntityFields, Stored, Violations, text};

impl Wire for EntityFields {
    type Message = pb::Entity;

    fn encode(stored: &Stored<Self>) -> pb::Entity {
        let (create_time, update_time) = times(stored);
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
            create_time,
            update_time,
            description: description.clone(),
            labels: to_hash_map(labels),
            annotations: to_hash_map(annotations),
            tags: tags.clone(),
            links: links.iter().map(encode_link).collect(),
            owner: owner.clone(),
            spec: to_pb_struct(spec),
            // They are read with what is shown, see `encode_entity`.
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
pub(super) fn encode_gone(gone: &Option<EntityView>) -> pb::Entity {
    gone.as_ref().map(encode_entity).unwrap_or_default()
}

pub(super) fn encode_relation(seen: &SeenRelation, organization: &str) -> pb::entity::Relation {
    let SeenRelation { relation, target, resolved } = seen;
    pb::entity::Relation { r#type: relation.clone(), target: target.name(organization), resolved: *resolved }
}

fn encode_link(link: &Link) -> pb::entity::Link {
    let Link { url, title, icon, link_type } = link.clone();
    pb::entity::Link { url, title, icon, r#type: link_type }
}

fn decode_link(link: &pb::entity::Link) -> Link {
    let pb::entity::Link { url, title, icon, r#type } = link.clone();
    Link { url, title, icon, link_type: r#type }
}

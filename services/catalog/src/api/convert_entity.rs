//! Between messages and the domain: entities.

use pavior_proto::pavior::catalog::v1 as pb;

use super::convert::{from_hash_map, from_pb_struct, times, to_hash_map, to_pb_struct};
use super::wire::{Scope, Wire};
use crate::app::View;
use crate::domain::entity::{Link, SeenRelation};
use crate::domain::{EntityFields, Violations, text};

impl Wire for EntityFields {
    type Message = pb::Entity;
    const PATTERN: &'static str = "organizations/{organization}/kinds/{kind}/entities/{entity}";
    const ID_FIELD: &'static str = "entity_id";
    const PARENT: &'static str = "kinds";

    fn encode(view: &View<Self>) -> pb::Entity {
        let View { stored, relations } = view;
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
            relations: relations.iter().map(|one| encode_relation(one, &stored.organization)).collect(),
            origin: origin.clone(),
        }
    }

    fn decode(message: &pb::Entity, scope: Scope<'_>, before: Option<&Self>) -> Result<Self, Violations> {
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
        let mut violations = Violations::new();
        text::reserved(&mut violations, "labels", &labels, before.map(|before| &before.labels));
        text::reserved(
            &mut violations,
            "annotations",
            &annotations,
            before.map(|before| &before.annotations),
        );
        violations.into_result()?;
        Ok(Self {
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

    fn etag(message: &pb::Entity) -> &str {
        &message.etag
    }

    fn message_name(message: &pb::Entity) -> &str {
        &message.name
    }
}

fn encode_relation(seen: &SeenRelation, organization: &str) -> pb::entity::Relation {
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

//! Documents in the form of Backstage's `catalog-info.yaml`, as they are found in repositories.

use pavior_core::Fault;
use std::collections::BTreeMap;

use pavior_core::principal::{RESERVED_ID, is_reserved};

use super::entity::{self, EntityFields, Link};
use super::reference::{self, NAMESPACE_ANNOTATION};
use super::{Violations, text};
use crate::json::{Json, JsonMap, json};

const API_VERSIONS: [&str; 2] = ["backstage.io/v1alpha1", "backstage.io/v1beta1"];
const KINDS: [&str; 8] = ["Component", "API", "Resource", "System", "Domain", "Group", "User", "Location"];
const TOP_LEVEL: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "relations"];

/// A document that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Imported {
    /// The id of the entity.
    pub(crate) id: String,
    pub(crate) fields: EntityFields,
    /// The group or user that the document is about, beside the entity.
    pub(crate) member: Option<Member>,
}

/// What a `Group` or `User` document says to the directory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Member {
    Group {
        id: String,
        display_name: String,
        description: String,
        parent: Option<String>,
        children: Vec<String>,
        members: Vec<String>,
    },
    User {
        id: String,
        display_name: String,
        email: String,
        groups: Vec<String>,
    },
}

/// Reads one document.
///
/// # Errors
/// Everything that is wrong with it; paths are relative to the document.
pub(crate) fn read(document: &Json, organization: &str, origin: &str) -> Result<Imported, Violations> {
    let mut violations = Violations::new();
    let Some(map) = document.as_object() else {
        violations.add(
            "",
            Fault::Type,
            "a document must be a map with `apiVersion`, `kind`, `metadata` and `spec`",
        );
        return Err(violations);
    };
    let kind = head(map, &mut violations);
    let empty = JsonMap::new();
    let metadata = match map.get("metadata") {
        Some(Json::Object(metadata)) => metadata,
        _ => {
            violations.add("metadata", Fault::Required, "is required and must be a map");
            &empty
        }
    };
    let mut fields = envelope(metadata, &mut violations);
    text::reserved(&mut violations, "metadata.labels", &fields.labels, None);
    text::reserved(&mut violations, "metadata.annotations", &fields.annotations, None);
    fields.origin = origin.to_owned();
    fields.spec = match map.get("spec") {
        None | Some(Json::Null) => json!({}),
        Some(spec @ Json::Object(_)) => spec.clone(),
        Some(_) => {
            violations.add("spec", Fault::Type, "must be a map");
            json!({})
        }
    };
    let name = optional(metadata, "name", "metadata", &mut violations);
    let namespace = optional(metadata, "namespace", "metadata", &mut violations);
    let namespace = reference::namespace(&namespace);
    let id = if name.is_empty() {
        violations.add("metadata.name", Fault::Required, "is required");
        None
    } else {
        violations.check("metadata.name", Fault::Pattern, reference::entity_id(namespace, &name))
    };
    if let Some(namespace) = namespace {
        fields.annotations.insert(NAMESPACE_ANNOTATION.to_owned(), namespace.to_ascii_lowercase());
    }
    if let Some(id) = &id {
        // A name that an id cannot hold is at least shown.
        if fields.display_name.is_empty() && *id != name {
            fields.display_name = name.clone();
        }
    }
    fields.kind = kind.unwrap_or_default();
    let member =
        id.as_ref().and_then(|id| member(&fields, id, &name, organization, namespace, &mut violations));
    match (violations.into_result(), id) {
        (Ok(()), Some(id)) => Ok(Imported { id, fields, member }),
        (Err(violations), _) => Err(violations),
        (Ok(()), None) => Err(Violations::new()),
    }
}

/// `apiVersion` and `kind`; the id of the kind.
fn head(map: &JsonMap<String, Json>, violations: &mut Violations) -> Option<String> {
    for key in map.keys().filter(|key| !TOP_LEVEL.contains(&key.as_str())) {
        violations.add(key.as_str(), Fault::Unknown, "is not a known field");
    }
    let kind = match map.get("kind").and_then(Json::as_str) {
        None => {
            violations.add("kind", Fault::Required, format!("is required: one of {}", listed(&KINDS)));
            return None;
        }
        Some(kind) => kind,
    };
    if kind.eq_ignore_ascii_case("template") {
        violations.add(
            "kind", Fault::Unknown,
            "a Backstage `Template` runs actions that have no meaning here; write a golden path and give it to \
             `CreateTemplateVersion`");
        return None;
    }
    match map.get("apiVersion").and_then(Json::as_str) {
        Some(version) if API_VERSIONS.contains(&version) => {}
        Some(version) => {
            let shown = text::shown(version);
            violations.add(
                "apiVersion",
                Fault::Unknown,
                format!("`{shown}` is not one of {}", listed(&API_VERSIONS)),
            );
        }
        None => violations.add(
            "apiVersion",
            Fault::Required,
            format!("is required: one of {}", listed(&API_VERSIONS)),
        ),
    }
    let known = KINDS.iter().find(|known| known.eq_ignore_ascii_case(kind));
    if known.is_none() {
        violations.add(
            "kind",
            Fault::Unknown,
            format!("`{}` is not one of {}", text::shown(kind), listed(&KINDS)),
        );
    }
    known.map(|known| known.to_ascii_lowercase())
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// What `metadata` says beside name and namespace. Keys that other tools put there are let be.
fn envelope(metadata: &JsonMap<String, Json>, violations: &mut Violations) -> EntityFields {
    EntityFields {
        display_name: optional(metadata, "title", "metadata", violations).trim().to_owned(),
        description: optional(metadata, "description", "metadata", violations),
        labels: texts_by_key(metadata, "labels", violations),
        annotations: texts_by_key(metadata, "annotations", violations),
        tags: list(metadata.get("tags"), "metadata.tags", violations),
        links: links(metadata.get("links"), violations),
        ..EntityFields::default()
    }
}

fn optional(map: &JsonMap<String, Json>, key: &str, path: &str, violations: &mut Violations) -> String {
    match map.get(key) {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        // YAML reads `name: 2048` as a number, which was meant as a name.
        Some(Json::Number(number)) => number.to_string(),
        Some(_) => {
            violations.add(format!("{path}.{key}"), Fault::Type, "must be a text");
            String::new()
        }
    }
}

fn texts_by_key(
    metadata: &JsonMap<String, Json>,
    key: &str,
    violations: &mut Violations,
) -> BTreeMap<String, String> {
    let map = match metadata.get(key) {
        None | Some(Json::Null) => return BTreeMap::new(),
        Some(Json::Object(map)) => map,
        Some(_) => {
            violations.add(format!("metadata.{key}"), Fault::Type, "must be a map of texts");
            return BTreeMap::new();
        }
    };
    let mut found = BTreeMap::new();
    for (name, value) in map {
        match value {
            Json::String(text) => found.insert(name.clone(), text.clone()),
            // `true`, `1.0` and an empty value are common where quotes were forgotten.
            Json::Bool(_) | Json::Number(_) => found.insert(name.clone(), value.to_string()),
            Json::Null => found.insert(name.clone(), String::new()),
            _ => {
                violations.add(format!("metadata.{key}.{name}"), Fault::Type, "must be a text");
                None
            }
        };
    }
    found
}

fn list(value: Option<&Json>, path: &str, violations: &mut Violations) -> Vec<String> {
    let items = match value {
        None | Some(Json::Null) => return Vec::new(),
        Some(Json::Array(items)) => items,
        Some(_) => {
            violations.add(path, Fault::Type, "must be a list of texts");
            return Vec::new();
        }
    };
    let mut found: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match item {
            Json::String(text) => found.push(text.clone()),
            Json::Number(number) => found.push(number.to_string()),
            _ => violations.add(format!("{path}.{index}"), Fault::Type, "must be a text"),
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|text| seen.insert(text.clone()));
    found
}

fn links(value: Option<&Json>, violations: &mut Violations) -> Vec<Link> {
    match value {
        None | Some(Json::Null) => Vec::new(),
        Some(value) => entity::links_from_json(value).unwrap_or_else(|| {
            violations.add(
                "metadata.links",
                Fault::Type,
                "must be a list of maps with `url` and perhaps `title`, `icon`, `type`",
            );
            Vec::new()
        }),
    }
}

/// The group or user of the document. References that cannot be read are reported by the entity's relations.
fn member(
    fields: &EntityFields,
    id: &str,
    name: &str,
    organization: &str,
    namespace: Option<&str>,
    violations: &mut Violations,
) -> Option<Member> {
    let profile = |key: &str| {
        let value = fields.spec.get("profile").and_then(|profile| profile.get(key));
        value.and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    let shown = profile("displayName");
    let display_name = if fields.display_name.is_empty() { shown } else { fields.display_name.clone() };
    let groups = |key: &str| references(&fields.spec, key, organization, namespace, "group");
    if matches!(fields.kind.as_str(), "group" | "user") && (is_reserved(id) || is_reserved(name)) {
        violations.add("metadata.name", Fault::Reserved, format!("`{}` {RESERVED_ID}", text::shown(name)));
    }
    match fields.kind.as_str() {
        "group" => Some(Member::Group {
            id: id.to_owned(),
            display_name,
            description: fields.description.clone(),
            parent: groups("parent").into_iter().next(),
            children: groups("children"),
            members: references(&fields.spec, "members", organization, namespace, "user"),
        }),
        "user" => {
            let Some(id) = entity::user_id(name) else {
                violations.add(
                    "metadata.name",
                    Fault::Reserved,
                    format!("`{}` cannot be a user's id", text::shown(name)),
                );
                return None;
            };
            Some(Member::User { id, display_name, email: profile("email"), groups: groups("memberOf") })
        }
        _ => None,
    }
}

/// Ids of groups or users that a field of `spec` names.
fn references(
    spec: &Json,
    field: &str,
    organization: &str,
    namespace: Option<&str>,
    kind: &'static str,
) -> Vec<String> {
    let texts: Vec<&str> = match spec.get(field) {
        Some(Json::String(text)) => vec![text],
        Some(Json::Array(items)) => items.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    let origin = reference::Origin { organization, namespace, default_kind: kind };
    let read = |text: &str| match kind {
        "user" => entity::user_id(text.rsplit(['/', ':']).next().unwrap_or_default()),
        _ => reference::parse(text, origin).ok().filter(|key| key.kind == kind).map(|key| key.id),
    };
    texts.into_iter().filter_map(read).collect()
}

#[cfg(test)]
#[path = "backstage_tests.rs"]
mod tests;

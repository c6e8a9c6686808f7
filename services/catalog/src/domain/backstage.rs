//! Documents in the form of Backstage's `catalog-info.yaml`, as they are found in repositories.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_core::id::reserved_in;

use super::entity::{self, EntityFields, Link, MAX_DECLARED};
use super::reference::{self, EntityKey, GROUP, NAMESPACE_ANNOTATION, USER};
use super::{GroupFields, UserFields, Violations, builtin, text, violation_path};
use crate::json::{Json, JsonMap, json};

const API_VERSIONS: [&str; 2] = ["backstage.io/v1alpha1", "backstage.io/v1beta1"];
const KINDS: [&str; 8] = ["Component", "API", "Resource", "System", "Domain", "Group", "User", "Location"];
const TOP_LEVEL: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "relations"];

/// What a document is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Imported {
    Entity(Box<ImportedEntity>),
    Group(ImportedGroup),
    User(ImportedUser),
}

/// An entity that a document describes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImportedEntity {
    pub(crate) id: String,
    pub(crate) fields: EntityFields,
}

/// A group that a document describes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImportedGroup {
    pub(crate) id: String,
    pub(crate) fields: GroupFields,
    /// The ids of the groups that it says to be below it.
    pub(crate) children: Vec<String>,
    /// The ids of the users that it says to belong to it.
    pub(crate) members: Vec<String>,
}

/// A user whom a document describes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImportedUser {
    pub(crate) id: String,
    pub(crate) fields: UserFields,
    /// The ids of the groups that it says the user to belong to.
    pub(crate) groups: Vec<String>,
}

impl Imported {
    /// What it is about: no two documents of an import are about the same.
    pub(crate) fn key(&self) -> EntityKey {
        match self {
            Self::Entity(entity) => entity.key(),
            Self::Group(group) => EntityKey::new(GROUP, group.id.as_str()),
            Self::User(user) => EntityKey::new(USER, user.id.as_str()),
        }
    }
}

impl ImportedEntity {
    pub(crate) fn key(&self) -> EntityKey {
        EntityKey::new(self.fields.kind.as_str(), self.id.as_str())
    }
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
    let id = match kind.as_deref() {
        _ if name.is_empty() => {
            violations.add("metadata.name", Fault::Required, "is required");
            None
        }
        Some(USER) => violations.check("metadata.name", Fault::Pattern, reference::user_id(&name)),
        _ => violations.check("metadata.name", Fault::Pattern, reference::entity_id(namespace, &name)),
    };
    if let Some(namespace) = namespace {
        fields.annotations.insert(NAMESPACE_ANNOTATION.to_owned(), namespace.to_ascii_lowercase());
    }
    fields.kind = kind.unwrap_or_default();
    let about = Document { fields: &fields, name: &name, organization, namespace };
    let imported = id.map(|id| about.imported(id, &mut violations));
    match (violations.into_result(), imported) {
        (Ok(()), Some(imported)) => Ok(imported),
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

/// A document about a group or user.
struct Document<'a> {
    fields: &'a EntityFields,
    name: &'a str,
    organization: &'a str,
    namespace: Option<&'a str>,
}

impl Document<'_> {
    fn imported(&self, id: String, violations: &mut Violations) -> Imported {
        match self.fields.kind.as_str() {
            GROUP => Imported::Group(self.group(id, violations)),
            USER => Imported::User(self.user(id, violations)),
            _ => Imported::Entity(Box::new(self.entity(id))),
        }
    }

    fn entity(&self, id: String) -> ImportedEntity {
        let mut fields = self.fields.clone();
        // A name that an id cannot hold is at least shown.
        if fields.display_name.is_empty() && id != self.name {
            self.name.clone_into(&mut fields.display_name);
        }
        ImportedEntity { id, fields }
    }

    fn group(&self, id: String, violations: &mut Violations) -> ImportedGroup {
        self.conforms(&builtin::group_spec(), violations);
        self.not_reserved("groups", &id, violations);
        let parent = self.references("parent", GROUP, violations).into_iter().next();
        let children = self.references("children", GROUP, violations);
        let members = self.references("members", USER, violations);
        let (display_name, description) = (self.display_name(&id), self.fields.description.clone());
        let fields = GroupFields { display_name, description, parent };
        ImportedGroup { id, fields, children, members }
    }

    fn user(&self, id: String, violations: &mut Violations) -> ImportedUser {
        self.conforms(&builtin::user_spec(), violations);
        self.not_reserved("users", &id, violations);
        let groups = self.references("memberOf", GROUP, violations);
        let fields = UserFields { display_name: self.display_name(&id), email: self.profile("email") };
        ImportedUser { id, fields, groups }
    }

    fn conforms(&self, schema: &Json, violations: &mut Violations) {
        for problem in pavior_expr::schema::validate(schema, &self.fields.spec) {
            violations.add(violation_path("spec", &problem.path), Fault::Schema, problem.message);
        }
    }

    fn not_reserved(&self, collection: &str, id: &str, violations: &mut Violations) {
        if let Some(why) = reserved_in(collection, id).or_else(|| reserved_in(collection, self.name)) {
            let name = text::shown(self.name);
            violations.add("metadata.name", Fault::Reserved, format!("`{name}` {why}"));
        }
    }

    fn profile(&self, key: &str) -> String {
        let value = self.fields.spec.get("profile").and_then(|profile| profile.get(key));
        value.and_then(Json::as_str).unwrap_or_default().to_owned()
    }

    /// The title, the name in the profile, or the name itself when the id cannot hold it.
    fn display_name(&self, id: &str) -> String {
        let itself = if id == self.name { String::new() } else { self.name.to_owned() };
        let names = [self.fields.display_name.clone(), self.profile("displayName"), itself];
        names.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
    }

    /// Ids of groups or users that a field of `spec` names, each once. What is no text is the schema's to complain about.
    fn references(&self, field: &str, kind: &'static str, violations: &mut Violations) -> Vec<String> {
        let at = format!("spec.{field}");
        let texts: Vec<(String, &str)> = match self.fields.spec.get(field) {
            Some(Json::String(text)) => vec![(at.clone(), text)],
            Some(Json::Array(items)) => {
                let texts = items.iter().enumerate();
                texts.filter_map(|(index, item)| Some((format!("{at}.{index}"), item.as_str()?))).collect()
            }
            _ => Vec::new(),
        };
        if texts.len() > MAX_DECLARED {
            violations.add(at, Fault::TooMany, format!("must name at most {MAX_DECLARED}"));
            return Vec::new();
        }
        let Self { organization, namespace, .. } = *self;
        let origin = reference::Origin { organization, namespace, default_kind: kind };
        let mut found = BTreeSet::new();
        for (path, text) in texts {
            match reference::parse(text, origin) {
                Ok(key) if key.kind == kind => {
                    found.insert(key.id);
                }
                Ok(_) => {
                    violations.add(path, Fault::Pattern, format!("`{}` is no {kind}", text::shown(text)));
                }
                Err(problem) => violations.add(path, Fault::Pattern, problem),
            }
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
#[path = "backstage_tests.rs"]
mod tests;

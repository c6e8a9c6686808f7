//! Entities: the envelope that the field knows, and the relations that a spec declares.

use pavior_core::{Fault, annotation};
use std::collections::{BTreeMap, BTreeSet};

use pavior_core::ResourceName;

use super::kind::{KindFields, OWNED_BY, OWNER_OF};
use super::reference::{self, EntityKey, NAMESPACE_ANNOTATION, Origin};
use super::{Fields, Violations, text};
use crate::json::{Json, JsonMap, json};

/// Most relations that one entity declares, and most groups or users that one field of a document names.
pub(crate) const MAX_DECLARED: usize = 1_000;

/// The facet of all entities that are made for resources.
pub(crate) const MANAGED_FACET: &str = "managed";

/// Where to read more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) url: String,
    pub(crate) title: String,
    pub(crate) icon: String,
    pub(crate) link_type: String,
}

/// Something that exists.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct EntityFields {
    /// The id of its kind.
    pub(crate) kind: String,
    pub(crate) display_name: String,
    pub(crate) description: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) tags: Vec<String>,
    pub(crate) links: Vec<Link>,
    /// The group or user that owns it, by resource name; empty when nobody does.
    pub(crate) owner: String,
    /// A JSON object.
    pub(crate) spec: Json,
    /// Where it was imported from.
    pub(crate) origin: String,
}

/// A relation that an entity declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) relation: String,
    pub(crate) inverse: String,
    pub(crate) target: EntityKey,
}

/// A relation as an entity sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SeenRelation {
    pub(crate) relation: String,
    pub(crate) target: EntityKey,
    pub(crate) resolved: bool,
}

impl Fields for EntityFields {
    const SINGULAR: &'static str = "entity";
    const TYPE: &'static str = "catalog.pavior.dev/Entity";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/kinds/{}/entities/{id}", self.kind)
    }

    fn check(&self, organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        text::annotations(&mut violations, "annotations", &self.annotations);
        for (index, link) in self.links.iter().enumerate() {
            link.check(&format!("links.{index}"), &mut violations);
        }
        if !self.owner.is_empty()
            && let Err(problem) = owner(&self.owner, organization)
        {
            violations.add("owner", Fault::Pattern, problem);
        }
        text::line(&mut violations, "origin", &self.origin, 2_048);
        text::json(&mut violations, "spec", &self.spec);
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { kind, display_name, description, labels, annotations, tags, links, owner, spec, origin } =
            self;
        json!({
            "kind": kind, "displayName": display_name, "description": description, "labels": labels,
            "annotations": annotations, "tags": tags, "links": links_to_json(links), "owner": owner,
            "spec": spec, "origin": origin,
        })
    }
}

impl Link {
    fn check(&self, path: &str, violations: &mut Violations) {
        let scheme = self.url.split_once(':').map(|(scheme, _)| scheme).unwrap_or_default();
        // A link is followed by a click in a portal, so it must not run anything there.
        let known = ["http", "https", "mailto", "ssh", "git", "slack"];
        if !self.url.is_empty() && !known.contains(&scheme.to_ascii_lowercase().as_str()) {
            violations.add(
                format!("{path}.url"),
                Fault::Pattern,
                "must be a web, mail, ssh, git or slack address",
            );
        }
    }
}

impl EntityFields {
    /// The digest of the content: what an import compares. Where it came from is not content.
    pub(crate) fn digest(&self) -> String {
        let mut content = self.snapshot();
        if let Some(map) = content.as_object_mut() {
            map.remove("origin");
        }
        pavior_core::digest::sha256_digest(&pavior_core::digest::canonical_json(&content))
    }

    /// What it is found by: labels and tags, and one that is made for a resource by its own `name`.
    pub(crate) fn facets(&self, name: &str) -> BTreeSet<(String, String)> {
        let labels = self.labels.iter().map(|(key, value)| (format!("label:{key}"), value.clone()));
        let managed = self.managed_by().map(|_| (MANAGED_FACET.to_owned(), name.to_owned()));
        labels.chain(self.tags.iter().map(|tag| ("tag".to_owned(), tag.clone()))).chain(managed).collect()
    }

    /// The owner that `spec` names where the envelope names none, and the field of `spec` that does: the kind says where
    /// to look.
    pub(crate) fn owner_within<'a>(
        &self,
        organization: &str,
        kind: &'a KindFields,
    ) -> Option<(&'a str, String)> {
        if !self.owner.is_empty() {
            return None;
        }
        let rule = kind.relation_rules.iter().find(|rule| rule.relation == OWNED_BY)?;
        let text = self.spec.get(&rule.field)?.as_str()?;
        Some((&rule.field, owner_from_reference(text, organization, self.namespace())?))
    }

    /// Takes the owner from `spec` when the envelope has none.
    pub(crate) fn adopt_owner(&mut self, organization: &str, kind: &KindFields) {
        if let Some((_, owner)) = self.owner_within(organization, kind) {
            self.owner = owner;
        }
    }

    /// The resource of a project that the entity is made for, by name; `None` for an entity that people made.
    pub(crate) fn managed_by(&self) -> Option<&str> {
        self.annotations.get(annotation::RESOURCE).map(String::as_str)
    }

    /// Whether both say the same in the fields that a project sets of its entities. All others are people's.
    pub(crate) fn same_declaration(&self, other: &Self) -> bool {
        let Self { display_name, description, owner, spec, .. } = self;
        *display_name == other.display_name
            && *description == other.description
            && *owner == other.owner
            && *spec == other.spec
    }

    fn namespace(&self) -> Option<&str> {
        self.annotations.get(NAMESPACE_ANNOTATION).map(String::as_str).and_then(reference::namespace)
    }

    /// What `spec` must be by its kind, except for the schema, and the relations that it declares.
    ///
    /// # Errors
    /// Every reference that cannot be read, with its path.
    pub(crate) fn edges(
        &self,
        organization: &str,
        id: &str,
        kind: &KindFields,
    ) -> Result<BTreeSet<Edge>, Violations> {
        let mut violations = Violations::new();
        let mut edges = BTreeSet::new();
        let this = EntityKey::new(&self.kind, id);
        if let Ok(target) = owner(&self.owner, organization) {
            edges.insert(Edge { relation: OWNED_BY.to_owned(), inverse: OWNER_OF.to_owned(), target });
        }
        'rules: for rule in &kind.relation_rules {
            // The owner of the envelope has been taken from there already, or stands against it.
            if rule.relation == OWNED_BY && !self.owner.is_empty() {
                continue;
            }
            let origin =
                Origin { organization, namespace: self.namespace(), default_kind: &rule.default_kind };
            for (path, text) in texts(&self.spec, &rule.field, &mut violations) {
                let Some(target) = violations.check(&path, Fault::Pattern, reference::parse(text, origin))
                else {
                    continue;
                };
                if target == this {
                    violations.add(path, Fault::Conflict, "an entity cannot be related to itself");
                    continue;
                }
                edges.insert(Edge { relation: rule.relation.clone(), inverse: rule.inverse.clone(), target });
                if edges.len() > MAX_DECLARED {
                    let message =
                        format!("an entity declares at most {MAX_DECLARED} relations, its owner among them");
                    violations.add(format!("spec.{}", rule.field), Fault::TooMany, message);
                    break 'rules;
                }
            }
        }
        violations.into_result().map(|()| edges)
    }
}

/// The references in a field of `spec`: one text or a list of them.
fn texts<'a>(spec: &'a Json, field: &str, violations: &mut Violations) -> Vec<(String, &'a str)> {
    let at = format!("spec.{field}");
    match spec.get(field) {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::String(text)) => vec![(at, text)],
        Some(Json::Array(items)) => {
            let mut found = Vec::new();
            for (index, item) in items.iter().enumerate() {
                match item.as_str() {
                    Some(text) => found.push((format!("{at}.{index}"), text)),
                    None => violations.add(
                        format!("{at}.{index}"),
                        Fault::Type,
                        "must be a reference, which is a text",
                    ),
                }
            }
            found
        }
        Some(_) => {
            violations.add(at, Fault::Type, "must be a reference or a list of references");
            Vec::new()
        }
    }
}

/// The owner.
///
/// # Errors
/// Why the name cannot be an owner's.
pub(crate) fn owner(name: &str, organization: &str) -> Result<EntityKey, String> {
    let parsed = ResourceName::parse(name).map_err(|error| error.to_string())?;
    let key = reference::parse(name, Origin { organization, namespace: None, default_kind: "" });
    key.ok()
        .filter(|key| parsed.organization() == organization && key.may_own())
        .ok_or_else(|| format!("`{}` is not a group or user of the organization", text::shown(name)))
}

/// `team-a`, `group:default/team-a` or `user:frank.tiernan` as the resource name of a group or user.
pub(crate) fn owner_from_reference(
    text: &str,
    organization: &str,
    namespace: Option<&str>,
) -> Option<String> {
    let origin = Origin { organization, namespace, default_kind: reference::GROUP };
    let key = reference::parse(text, origin).ok().filter(EntityKey::may_own)?;
    Some(key.name(organization))
}

/// Links as they are kept.
pub(crate) fn links_to_json(links: &[Link]) -> Json {
    let links = links.iter().map(|link| {
        let Link { url, title, icon, link_type } = link;
        json!({ "url": url, "title": title, "icon": icon, "type": link_type })
    });
    Json::Array(links.collect())
}

/// Links as they were kept, or as a document has them.
pub(crate) fn links_from_json(json: &Json) -> Option<Vec<Link>> {
    let text = |link: &JsonMap<String, Json>, key: &str| match link.get(key) {
        None | Some(Json::Null) => Some(String::new()),
        Some(value) => value.as_str().map(str::to_owned),
    };
    json.as_array()?
        .iter()
        .map(|link| {
            let link = link.as_object()?;
            Some(Link {
                url: text(link, "url")?,
                title: text(link, "title")?,
                icon: text(link, "icon")?,
                link_type: text(link, "type")?,
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "entity_tests.rs"]
mod tests;

//! The input of a decision as Cedar entities.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression,
};
use pavior_core::PrincipalKind;

use super::input::{GroupRef, Input};
use super::schema::NAMESPACE;

/// The entity type of a principal.
pub fn type_of(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "User",
        PrincipalKind::Service => "Service",
        PrincipalKind::ServiceAccount => "ServiceAccount",
        PrincipalKind::Agent => "Agent",
    }
}

/// An input that the engine refused; the decision is a denial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request does not fit the policy schema: {0}")]
pub struct InputError(String);

fn refuse(error: impl std::fmt::Display) -> InputError {
    InputError(error.to_string())
}

/// The entity types, read once.
#[derive(Debug, Clone)]
pub struct Types {
    user: EntityTypeName,
    service: EntityTypeName,
    service_account: EntityTypeName,
    agent: EntityTypeName,
    group: EntityTypeName,
    organization: EntityTypeName,
    project: EntityTypeName,
    resource: EntityTypeName,
    parameters: EntityTypeName,
    labels: EntityTypeName,
    action: EntityTypeName,
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// The id of an entity is its whole resource name.
fn named(organization: &str, collection: &str, id: &str) -> String {
    format!("organizations/{organization}/{collection}/{id}")
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn tags(map: &BTreeMap<String, String>) -> Vec<(String, RestrictedExpression)> {
    map.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

impl Types {
    /// Reads the names.
    pub fn new() -> Result<Self, InputError> {
        let named = |name: &str| EntityTypeName::from_str(&format!("{NAMESPACE}::{name}")).map_err(refuse);
        Ok(Self {
            user: named("User")?,
            service: named("Service")?,
            service_account: named("ServiceAccount")?,
            agent: named("Agent")?,
            group: named("Group")?,
            organization: named("Organization")?,
            project: named("Project")?,
            resource: named("Resource")?,
            parameters: named("Parameters")?,
            labels: named("Labels")?,
            action: named("Action")?,
        })
    }

    /// The entity of an action with its groups.
    pub fn action(&self, name: &str, groups: &[String]) -> Entity {
        let above = groups.iter().map(|group| uid(&self.action, group)).collect();
        Entity::new_no_attrs(uid(&self.action, name), above)
    }

    /// The request and its entities. `approved` says whether the plan has been approved.
    pub fn request(
        &self,
        input: &Input,
        action: &Entity,
        approved: bool,
    ) -> Result<(Request, Entities), InputError> {
        let principal = self.principal(input)?;
        let resource = self.resource(input)?;
        let parameters =
            Entity::new_with_tags(uid(&self.parameters, "request"), [], [], tags(&input.context.parameters))
                .map_err(refuse)?;
        let labels = Entity::new_with_tags(uid(&self.labels, "request"), [], [], tags(&input.context.labels))
            .map_err(refuse)?;
        let context = self.context(input, &parameters, &labels, approved)?;
        let request =
            Request::new(principal.uid(), action.uid(), resource.uid(), context, None).map_err(refuse)?;
        let mut all = vec![principal, action.clone(), resource, parameters, labels];
        let mut seen = BTreeSet::new();
        for owner in [&input.resource.owner, &input.context.new_owner].into_iter().flatten() {
            if seen.insert(owner.id.as_str()) {
                all.push(self.group(&input.organization, owner));
            }
        }
        let entities = Entities::from_entities(all, None).map_err(refuse)?;
        Ok((request, entities))
    }

    fn group_uid(&self, organization: &str, id: &str) -> EntityUid {
        uid(&self.group, &named(organization, "groups", id))
    }

    fn group(&self, organization: &str, group: &GroupRef) -> Entity {
        let above = group.above.iter().filter(|id| **id != group.id);
        let above = above.map(|id| self.group_uid(organization, id)).collect();
        Entity::new_no_attrs(self.group_uid(organization, &group.id), above)
    }

    /// A principal of another organization gets no parents: it is in no group and not in the organization.
    fn principal(&self, input: &Input) -> Result<Entity, InputError> {
        let principal = &input.principal;
        let kind = match principal.kind {
            PrincipalKind::User => &self.user,
            PrincipalKind::Service => &self.service,
            PrincipalKind::ServiceAccount => &self.service_account,
            PrincipalKind::Agent => &self.agent,
        };
        let mut parents = Vec::new();
        if input.is_member() {
            let organization = &input.organization;
            parents.extend(input.groups.iter().map(|group| self.group_uid(organization, group)));
            parents.push(uid(&self.organization, &format!("organizations/{organization}")));
        }
        let mut attributes = vec![
            ("name".to_owned(), text(&principal.name)),
            (
                "installation_operator".to_owned(),
                RestrictedExpression::new_bool(principal.installation_operator),
            ),
        ];
        attributes.extend(principal.email.as_deref().map(|email| ("email".to_owned(), text(email))));
        attributes.extend(principal.on_behalf_of.as_deref().map(|of| ("on_behalf_of".to_owned(), text(of))));
        Entity::new_with_tags(uid(kind, &principal.name), attributes, parents, []).map_err(refuse)
    }

    fn resource(&self, input: &Input) -> Result<Entity, InputError> {
        let resource = &input.resource;
        let organization = uid(&self.organization, &format!("organizations/{}", input.organization));
        let mut attributes = vec![
            ("name".to_owned(), text(&resource.name)),
            ("type".to_owned(), text(&resource.kind)),
            ("exists".to_owned(), RestrictedExpression::new_bool(resource.exists)),
            ("organization".to_owned(), RestrictedExpression::new_entity_uid(organization.clone())),
        ];
        let mut parents = vec![organization];
        if let Some(project) = &resource.project {
            let project = uid(&self.project, &named(&input.organization, "projects", project));
            parents.push(project.clone());
            attributes.push(("project".to_owned(), RestrictedExpression::new_entity_uid(project)));
        }
        if let Some(owner) = &resource.owner {
            let owner = self.group_uid(&input.organization, &owner.id);
            attributes.push(("owner".to_owned(), RestrictedExpression::new_entity_uid(owner)));
        }
        if let Some(class) = &resource.environment_class_id {
            attributes.push(("environment_class_id".to_owned(), text(class)));
        }
        Entity::new_with_tags(
            uid(&self.resource, &resource.name),
            attributes,
            parents,
            tags(&resource.labels),
        )
        .map_err(refuse)
    }

    fn context(
        &self,
        input: &Input,
        parameters: &Entity,
        labels: &Entity,
        approved: bool,
    ) -> Result<Context, InputError> {
        let context = &input.context;
        let long = RestrictedExpression::new_long;
        let types = context.resource_types.iter().map(|kind| text(kind));
        let mut pairs = vec![
            ("stage", text(input.stage.as_str())),
            ("approved", RestrictedExpression::new_bool(approved)),
            ("parameters", RestrictedExpression::new_entity_uid(parameters.uid())),
            ("labels", RestrictedExpression::new_entity_uid(labels.uid())),
            ("create_count", long(context.create_count)),
            ("update_count", long(context.update_count)),
            ("replace_count", long(context.replace_count)),
            ("delete_count", long(context.delete_count)),
            ("resource_types", RestrictedExpression::new_set(types)),
        ];
        pairs.extend(input.environment_class_id().map(|class| ("environment_class_id", text(class))));
        pairs.extend(context.template.as_deref().map(|template| ("template", text(template))));
        pairs.extend(context.template_version.as_deref().map(|version| ("template_version", text(version))));
        if let Some(owner) = &context.new_owner {
            let owner = self.group_uid(&input.organization, &owner.id);
            pairs.push(("new_owner", RestrictedExpression::new_entity_uid(owner)));
        }
        Context::from_pairs(pairs.into_iter().map(|(key, value)| (key.to_owned(), value))).map_err(refuse)
    }
}

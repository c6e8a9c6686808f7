//! Between messages and the domain: templates, resource types and resource definitions.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_rpc::convert::to_timestamp;

use super::convert::{from_hash_map, from_pb_struct, id_of, times, to_hash_map, to_pb_struct};
use super::wire::{Scope, Wire};
use crate::app::{Match, View};
use crate::domain::definition::{Context, Criteria};
use crate::domain::{
    ResourceDefinitionFields, ResourceTypeFields, TemplateFields, VersionFields, Violations,
};

impl Wire for TemplateFields {
    type Message = pb::Template;
    const PATTERN: &'static str = "organizations/{organization}/templates/{template}";
    const ID_FIELD: &'static str = "template_id";

    fn encode(view: &View<Self>) -> pb::Template {
        let stored = &view.stored;
        let (create_time, update_time) = times(stored);
        let Self { display_name, description, channels, latest_version } = stored.fields.clone();
        pb::Template {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
            description,
            channels: to_hash_map(&channels),
            latest_version,
        }
    }

    fn decode(message: &pb::Template, _scope: Scope<'_>, before: Option<&Self>) -> Result<Self, Violations> {
        let pb::Template {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            channels,
            latest_version: _,
        } = message;
        Ok(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            channels: from_hash_map(channels),
            latest_version: before.map(|before| before.latest_version.clone()).unwrap_or_default(),
        })
    }

    fn etag(message: &pb::Template) -> &str {
        &message.etag
    }

    fn message_name(message: &pb::Template) -> &str {
        &message.name
    }
}

impl Wire for VersionFields {
    type Message = pb::TemplateVersion;
    const PATTERN: &'static str = "organizations/{organization}/templates/{template}/versions/{version}";
    const ID_FIELD: &'static str = "version";
    const PARENT: &'static str = "templates";

    fn encode(view: &View<Self>) -> pb::TemplateVersion {
        let stored = &view.stored;
        let Self { template: _, document, digest, parameter_schema, environment_classes, content } =
            stored.fields.clone();
        pb::TemplateVersion {
            name: stored.name(),
            uid: stored.uid.to_string(),
            document,
            digest,
            parameter_schema: to_pb_struct(&parameter_schema),
            environment_classes,
            content: to_pb_struct(&content),
            create_time: Some(to_timestamp(stored.create_time)),
        }
    }

    fn decode(
        _message: &pb::TemplateVersion,
        _scope: Scope<'_>,
        _before: Option<&Self>,
    ) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        violations.add("", "a version is published and never written otherwise");
        Err(violations)
    }

    fn etag(_message: &pb::TemplateVersion) -> &str {
        ""
    }

    fn message_name(message: &pb::TemplateVersion) -> &str {
        &message.name
    }
}

impl Wire for ResourceTypeFields {
    type Message = pb::ResourceType;
    const PATTERN: &'static str = "organizations/{organization}/resourceTypes/{resource_type}";
    const ID_FIELD: &'static str = "resource_type_id";

    fn encode(view: &View<Self>) -> pb::ResourceType {
        let stored = &view.stored;
        let (create_time, update_time) = times(stored);
        let Self { display_name, description, input_schema, output_schema, secret_outputs } =
            stored.fields.clone();
        pb::ResourceType {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
            description,
            input_schema: to_pb_struct(&input_schema),
            output_schema: to_pb_struct(&output_schema),
            secret_outputs,
        }
    }

    fn decode(
        message: &pb::ResourceType,
        _scope: Scope<'_>,
        _before: Option<&Self>,
    ) -> Result<Self, Violations> {
        let pb::ResourceType {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            input_schema,
            output_schema,
            secret_outputs,
        } = message;
        Ok(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            input_schema: from_pb_struct(input_schema.as_ref()),
            output_schema: from_pb_struct(output_schema.as_ref()),
            secret_outputs: secret_outputs.clone(),
        })
    }

    fn etag(message: &pb::ResourceType) -> &str {
        &message.etag
    }

    fn message_name(message: &pb::ResourceType) -> &str {
        &message.name
    }
}

impl Wire for ResourceDefinitionFields {
    type Message = pb::ResourceDefinition;
    const PATTERN: &'static str = "organizations/{organization}/resourceDefinitions/{resource_definition}";
    const ID_FIELD: &'static str = "resource_definition_id";

    fn encode(view: &View<Self>) -> pb::ResourceDefinition {
        let stored = &view.stored;
        let (create_time, update_time) = times(stored);
        let Self {
            display_name,
            description,
            resource_type,
            driver,
            driver_inputs,
            match_criteria,
            monthly_cost,
        } = stored.fields.clone();
        pb::ResourceDefinition {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
            description,
            resource_type: format!("organizations/{}/resourceTypes/{resource_type}", stored.organization),
            driver,
            driver_inputs: to_pb_struct(&driver_inputs),
            match_criteria: match_criteria.iter().map(encode_criteria).collect(),
            monthly_cost,
        }
    }

    fn decode(
        message: &pb::ResourceDefinition,
        scope: Scope<'_>,
        _before: Option<&Self>,
    ) -> Result<Self, Violations> {
        let pb::ResourceDefinition {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            resource_type,
            driver,
            driver_inputs,
            match_criteria,
            monthly_cost,
        } = message;
        let mut violations = Violations::new();
        let pattern = ResourceTypeFields::PATTERN;
        let resource_type =
            id_of(&mut violations, "resource_type", resource_type, pattern, scope.organization);
        violations.into_result()?;
        Ok(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            resource_type: resource_type.unwrap_or_default(),
            driver: driver.clone(),
            driver_inputs: from_pb_struct(driver_inputs.as_ref()),
            match_criteria: match_criteria.iter().map(decode_criteria).collect(),
            monthly_cost: monthly_cost.clone(),
        })
    }

    fn etag(message: &pb::ResourceDefinition) -> &str {
        &message.etag
    }

    fn message_name(message: &pb::ResourceDefinition) -> &str {
        &message.name
    }
}

fn encode_criteria(criteria: &Criteria) -> pb::resource_definition::MatchCriteria {
    let Criteria { resource_id, project, environment_class, labels } = criteria.clone();
    pb::resource_definition::MatchCriteria {
        environment_class: environment_class.unwrap_or_default(),
        project: project.unwrap_or_default(),
        resource_id: resource_id.unwrap_or_default(),
        labels: to_hash_map(&labels),
    }
}

fn decode_criteria(criteria: &pb::resource_definition::MatchCriteria) -> Criteria {
    let pb::resource_definition::MatchCriteria { environment_class, project, resource_id, labels } = criteria;
    let set = |text: &String| (!text.is_empty()).then(|| text.clone());
    Criteria {
        resource_id: set(resource_id),
        project: set(project),
        environment_class: set(environment_class),
        labels: from_hash_map(labels),
    }
}

/// A context to match definitions against.
pub(super) fn decode_context(
    context: &pb::match_resource_definitions_request::Context,
    path: &str,
    organization: &str,
    violations: &mut Violations,
) -> Context {
    let pb::match_resource_definitions_request::Context {
        resource_type,
        resource_id,
        project,
        environment_class,
        labels,
    } = context;
    let pattern = ResourceTypeFields::PATTERN;
    let at = format!("{path}.resource_type");
    Context {
        resource_type: id_of(violations, &at, resource_type, pattern, organization).unwrap_or_default(),
        resource_id: resource_id.clone(),
        project: project.clone(),
        environment_class: environment_class.clone(),
        labels: from_hash_map(labels),
    }
}

/// What a context gets.
pub(super) fn encode_match(found: Match) -> pb::match_resource_definitions_response::Match {
    let Match { definition, resource_type, explanation } = found;
    let definition = definition.map(|stored| View { stored, relations: Vec::new() });
    let resource_type = resource_type.map(|stored| View { stored, relations: Vec::new() });
    pb::match_resource_definitions_response::Match {
        resource_definition: definition.as_ref().map(ResourceDefinitionFields::encode),
        resource_type: resource_type.as_ref().map(ResourceTypeFields::encode),
        explanation,
    }
}

//! Between messages and the domain: templates, resource types and resource definitions.

use pavior_core::Fault;
use pavior_core::money::Money;
use pavior_proto::google::r#type as money_pb;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_resource::{Scope, Wire, id_of, times};
use pavior_rpc::convert::{from_money, money_to_wire, to_timestamp};

use super::convert::{from_hash_map, from_pb_struct, schema, to_hash_map, to_pb_struct};
use crate::app::{App, Match};
use crate::domain::definition::{Context, Criteria};
use crate::domain::template::Channel;
use crate::domain::{
    ResourceDefinitionFields, ResourceTypeFields, Stored, TemplateFields, VersionFields, Violations,
};

impl Wire for TemplateFields {
    type Message = pb::Template;

    fn encode(stored: &Stored<Self>) -> pb::Template {
        let (create_time, update_time) = times(stored);
        let Self { display_name, description, channels, latest_version } = stored.fields.clone();
        let name = stored.name();
        let version = |id: String| format!("{name}/versions/{id}");
        let channel = |channel: Channel| pb::template::Channel {
            template_version: version(channel.version),
            move_time: Some(to_timestamp(channel.move_time)),
            mover: channel.mover,
        };
        let channels = channels.into_iter().map(|(id, kept)| (id, channel(kept))).collect();
        let latest_version = if latest_version.is_empty() { latest_version } else { version(latest_version) };
        pb::Template {
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
            description,
            channels,
            latest_version,
            name,
        }
    }

    fn decode(
        message: &pb::Template,
        _scope: &Scope<'_, App>,
        before: Option<&Self>,
        _violations: &mut Violations,
    ) -> Option<Self> {
        let pb::Template {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            channels: _,
            latest_version: _,
        } = message;
        let TemplateFields { channels, latest_version, .. } = before.cloned().unwrap_or_default();
        Some(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            channels,
            latest_version,
        })
    }
}

impl Wire for VersionFields {
    type Message = pb::TemplateVersion;

    fn encode(stored: &Stored<Self>) -> pb::TemplateVersion {
        let Self { template: _, document, digest, parameter_schema, environment_classes, content } =
            stored.fields.clone();
        pb::TemplateVersion {
            name: stored.name(),
            uid: stored.uid.to_string(),
            document,
            digest,
            parameter_schema_json: parameter_schema.text(),
            environment_class_ids: environment_classes,
            content: to_pb_struct(&content),
            create_time: Some(to_timestamp(stored.create_time)),
        }
    }

    fn decode(
        _message: &pb::TemplateVersion,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        violations.add("", Fault::Conflict, "a version is read from its document");
        None
    }
}

impl Wire for ResourceTypeFields {
    type Message = pb::ResourceType;

    fn encode(stored: &Stored<Self>) -> pb::ResourceType {
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
            secret_outputs,
            input_schema_json: input_schema.text(),
            output_schema_json: output_schema.text(),
        }
    }

    fn decode(
        message: &pb::ResourceType,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let pb::ResourceType {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            secret_outputs,
            input_schema_json,
            output_schema_json,
        } = message;
        Some(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            input_schema: schema(violations, "input_schema_json", input_schema_json),
            output_schema: schema(violations, "output_schema_json", output_schema_json),
            secret_outputs: secret_outputs.clone(),
        })
    }
}

impl Wire for ResourceDefinitionFields {
    type Message = pb::ResourceDefinition;

    fn encode(stored: &Stored<Self>) -> pb::ResourceDefinition {
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
            driver_id: driver,
            driver_inputs: to_pb_struct(&driver_inputs),
            match_criteria: match_criteria.iter().map(encode_criteria).collect(),
            monthly_cost: monthly_cost.as_ref().map(money_to_wire),
        }
    }

    fn decode(
        message: &pb::ResourceDefinition,
        scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let pb::ResourceDefinition {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
            description,
            resource_type,
            driver_id: driver,
            driver_inputs,
            match_criteria,
            monthly_cost,
        } = message;
        let resource_type =
            id_of::<pb::ResourceType>(violations, "resource_type", resource_type, scope.organization);
        Some(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            resource_type: resource_type.unwrap_or_default(),
            driver: driver.clone(),
            driver_inputs: from_pb_struct(driver_inputs.as_ref()),
            match_criteria: match_criteria.iter().map(decode_criteria).collect(),
            monthly_cost: monthly_cost
                .as_ref()
                .and_then(|cost| decode_cost(cost, scope.service.currency(), violations)),
        })
    }
}

fn encode_criteria(criteria: &Criteria) -> pb::resource_definition::MatchCriteria {
    let Criteria { resource_id, project, environment_class, labels } = criteria.clone();
    pb::resource_definition::MatchCriteria {
        environment_class_id: environment_class.unwrap_or_default(),
        project: project.unwrap_or_default(),
        resource_id: resource_id.unwrap_or_default(),
        project_labels: to_hash_map(&labels),
    }
}

fn decode_criteria(criteria: &pb::resource_definition::MatchCriteria) -> Criteria {
    let pb::resource_definition::MatchCriteria { environment_class_id, project, resource_id, project_labels } =
        criteria;
    let set = |text: &String| (!text.is_empty()).then(|| text.clone());
    Criteria {
        resource_id: set(resource_id),
        project: set(project),
        environment_class: set(environment_class_id),
        labels: from_hash_map(project_labels),
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
        environment_class_id,
        project_labels,
    } = context;
    let at = format!("{path}.resource_type");
    Context {
        resource_type: id_of::<pb::ResourceType>(violations, &at, resource_type, organization)
            .unwrap_or_default(),
        resource_id: resource_id.clone(),
        project: project.clone(),
        environment_class: environment_class_id.clone(),
        labels: from_hash_map(project_labels),
    }
}

/// What a context gets.
pub(super) fn encode_match(found: Match) -> pb::match_resource_definitions_response::Match {
    let Match { definition, resource_type, explanation } = found;
    pb::match_resource_definitions_response::Match {
        resource_definition: definition.as_ref().map(ResourceDefinitionFields::encode),
        resource_type: resource_type.as_ref().map(ResourceTypeFields::encode),
        explanation,
    }
}

fn decode_cost(cost: &money_pb::Money, currency: &str, violations: &mut Violations) -> Option<Money> {
    if cost.currency_code != currency {
        let why = format!("must be `{currency}`, the currency of the installation");
        violations.add("monthly_cost.currency_code", Fault::Pattern, why);
        return None;
    }
    violations.check("monthly_cost", Fault::OutOfRange, from_money(cost))
}

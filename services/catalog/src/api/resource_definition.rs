//! Resource definitions on the wire, and which of them a resource gets.

use pavior_core::Fault;
use pavior_core::money::Money;
use pavior_proto::google::r#type as money_pb;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, Error as ResourceError, Scope, Wire, end_times, id_of, parse, read_request, respond, times,
};
use pavior_rpc::convert::{from_money, money_to_wire};
use tonic::Request;

use super::Api;
use super::convert::{ORGANIZATION, from_hash_map, from_pb_struct, to_hash_map, to_pb_struct};
use crate::app::{App, Match};
use crate::domain::resource_definition::{Context, Criteria};
use crate::domain::{ResourceDefinitionFields, ResourceTypeFields, Stored, Violations};
use crate::error::Error;

impl Wire for ResourceDefinitionFields {
    type Message = pb::ResourceDefinition;

    fn encode(stored: &Stored<Self>) -> pb::ResourceDefinition {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
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
            delete_time,
            purge_time,
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
            delete_time: _,
            purge_time: _,
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

impl Api {
    pub(super) async fn match_definitions(
        &self,
        request: Request<pb::MatchResourceDefinitionsRequest>,
    ) -> Answer<pb::MatchResourceDefinitionsResponse> {
        let (permit, request) = read_request(request)?;
        let matched = async {
            let action = pb::MatchResourceDefinitionsRequest::ACTION;
            parse(&permit, "parent", &request.parent, ORGANIZATION, action)?;
            let mut violations = Violations::new();
            let contexts = request.contexts.iter().enumerate().map(|(index, context)| {
                let path = format!("contexts.{index}");
                decode_context(context, &path, permit.organization(), &mut violations)
            });
            let contexts: Vec<_> = contexts.collect();
            violations.into_result().map_err(|v| ResourceError::Invalid(v.into_vec()))?;
            let matches = self.app.match_definitions(&permit, &contexts).await?;
            let matches = matches.into_iter().map(encode_match).collect();
            Ok::<_, Error>(pb::MatchResourceDefinitionsResponse { matches })
        };
        respond(matched.await)
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

/// The definition that matches a context.
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

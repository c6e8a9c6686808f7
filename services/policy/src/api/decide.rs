//! Requests for decisions, from the wire to the domain.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_core::principal::installation_name;
use pavior_core::{Principal, PrincipalKind, ResourceName};
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::r#type::v1 as types;
use pavior_rpc::{Problem, Violations, validate};
use prost_types::value::Kind;

use crate::app::decision::{ActionSelection, DecisionRequest};
use crate::domain::input::{Context, GroupRef, INSTALLATION, Input, Resource, Stage};

/// Most actions in one request.
const MAX_ACTIONS: usize = 500;

/// The id of an organization, or of the installation.
pub(super) fn organization(name: &str, field: &str, violations: &mut Violations) -> String {
    if name == installation_name() {
        return INSTALLATION.to_owned();
    }
    let parsed = ResourceName::parse_as(name, "organizations/{organization}");
    violations
        .check(field, Fault::Pattern, parsed)
        .map(|name| name.organization().to_owned())
        .unwrap_or_default()
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A group of the organization; `None` for the empty name.
pub(super) fn group(
    name: &str,
    organization: &str,
    field: &str,
    violations: &mut Violations,
) -> Option<GroupRef> {
    if name.is_empty() {
        return None;
    }
    let parsed = ResourceName::parse_as(name, "organizations/{organization}/groups/{group}");
    let parsed = violations.check(field, Fault::Pattern, parsed)?;
    if parsed.organization() != organization {
        violations.add(field, Fault::Conflict, format!("`{name}` is not in `organizations/{organization}`"));
        return None;
    }
    Some(GroupRef { id: parsed.id().to_owned(), above: BTreeSet::new() })
}

/// Decodes a request for a decision. `path` is the prefix of its field paths.
pub(super) fn decision_request(
    request: decision_pb::DecideRequest,
    path: &str,
) -> Result<DecisionRequest, Problem> {
    let mut violations = validate::violations(&request)?;
    let decision_pb::DecideRequest {
        organization: name,
        principal: principal_,
        action,
        resource: facts,
        stage,
        plan_follows,
        context: context_,
        approval,
        dry_run,
    } = request;
    let organization = organization(&name, "organization", &mut violations);
    let principal = principal(principal_.unwrap_or_default(), &mut violations);
    let resource = resource(facts.unwrap_or_default(), &organization, &mut violations);
    let context = context(context_.unwrap_or_default(), &organization, &mut violations);
    let stage = match decision_pb::DecisionStage::try_from(stage) {
        Ok(decision_pb::DecisionStage::Plan) => Stage::Plan,
        Ok(decision_pb::DecisionStage::Execution) => Stage::Execution,
        Ok(decision_pb::DecisionStage::Admission | decision_pb::DecisionStage::Unspecified) | Err(_) => {
            Stage::Admission
        }
    };
    let approval = filled(&approval).and_then(|name| {
        let pattern = "organizations/{organization}/approvals/{approval}";
        let parsed = violations.check("approval", Fault::Pattern, ResourceName::parse_as(&name, pattern))?;
        if parsed.organization() != organization {
            violations.add(
                "approval",
                Fault::Conflict,
                format!("`{name}` is not in `organizations/{organization}`"),
            );
        }
        Some(parsed.id().to_owned())
    });
    if path.is_empty() {
        violations.into_result()?;
    } else {
        let mut under = Violations::new();
        under.extend_under(path, violations);
        under.into_result()?;
    }
    let groups = BTreeSet::new();
    let input = Input { organization, principal, groups, action, resource, stage, plan_follows, context };
    Ok(DecisionRequest { input, approval, dry_run })
}

/// Decodes a request for the allowed actions: the actions, and an input without an action.
pub(super) fn allowed_actions(
    request: decision_pb::ListAllowedActionsRequest,
) -> Result<(Input, ActionSelection), Problem> {
    let mut violations = validate::violations(&request)?;
    let decision_pb::ListAllowedActionsRequest {
        organization: name,
        principal: principal_,
        resource: facts,
        actions,
        planned_actions: planned,
    } = request;
    let organization = organization(&name, "organization", &mut violations);
    let principal = principal(principal_.unwrap_or_default(), &mut violations);
    let resource = resource(facts.unwrap_or_default(), &organization, &mut violations);
    match actions.len() + planned.len() {
        0 => violations.add("actions", Fault::Required, "is required"),
        1..=MAX_ACTIONS => {}
        _ => violations.add("actions", Fault::TooMany, format!("has more than {MAX_ACTIONS} elements")),
    }
    violations.into_result()?;
    let input = Input {
        organization,
        principal,
        groups: BTreeSet::new(),
        action: String::new(),
        resource,
        stage: Stage::Admission,
        plan_follows: false,
        context: Context::default(),
    };
    Ok((input, ActionSelection { actions, planned }))
}

fn principal(wire: types::Principal, violations: &mut Violations) -> Principal {
    let kind = match wire.kind() {
        types::principal::Kind::User => PrincipalKind::User,
        types::principal::Kind::Service => PrincipalKind::Service,
        types::principal::Kind::ServiceAccount => PrincipalKind::ServiceAccount,
        types::principal::Kind::Agent => PrincipalKind::Agent,
        types::principal::Kind::Unspecified
        | types::principal::Kind::Anonymous
        | types::principal::Kind::Operator => {
            violations.add(
                "principal.kind",
                Fault::Pattern,
                "must be the kind of somebody with a credential",
            );
            PrincipalKind::User
        }
    };
    let types::Principal {
        kind: _,
        name,
        organization_id: organization,
        subject,
        group_ids: groups,
        email,
        display_name,
        installation_operator,
        on_behalf_of,
    } = wire;
    if organization.is_empty() || !name.starts_with(&format!("organizations/{organization}/")) {
        violations.add(
            "principal.name",
            Fault::Conflict,
            "must be a resource name below the principal's organization",
        );
    }
    Principal {
        kind,
        name,
        organization,
        subject,
        groups,
        email: filled(&email),
        display_name: filled(&display_name),
        installation_operator,
        on_behalf_of: filled(&on_behalf_of),
    }
}

fn resource(facts: ResourceFacts, organization: &str, violations: &mut Violations) -> Resource {
    let ResourceFacts { name, exists, r#type, owner, project, environment_class, labels, owner_changes: _ } =
        facts;
    let root = format!("organizations/{organization}");
    if name != root && !name.starts_with(&format!("{root}/")) {
        violations.add("resource.name", Fault::Conflict, format!("`{name}` is not in `{root}`"));
    }
    let owner = group(&owner, organization, "resource.owner", violations);
    // A project and the resources below it belong to the project, whether or not the facts say so.
    let stated = filled(&project).unwrap_or_else(|| name.clone());
    let mut segments = stated.split('/').skip(2);
    let project = match (segments.next(), segments.next()) {
        (Some("projects"), Some(id)) => Some(id.to_owned()),
        _ if !project.is_empty() => {
            violations.add(
                "resource.project",
                Fault::Pattern,
                format!("`{project}` is not the name of a project"),
            );
            None
        }
        _ => None,
    };
    let environment_class_id = filled(&environment_class);
    let labels = labels.into_iter().collect();
    Resource { name, exists, kind: r#type, owner, project, environment_class_id, labels }
}

fn context(wire: decision_pb::DecisionContext, organization: &str, violations: &mut Violations) -> Context {
    let decision_pb::DecisionContext {
        environment_class,
        template_version,
        parameters,
        create_count,
        update_count,
        replace_count,
        delete_count,
        resource_types,
        new_owner,
        labels,
        plan_digest,
        moves_owner,
        changes_labels,
    } = wire;
    let new_owner = group(&new_owner, organization, "context.new_owner", violations);
    let (template, template_version) = template(&template_version);
    Context {
        environment_class_id: filled(&environment_class),
        template,
        template_version,
        parameters: parameters.map(visible).unwrap_or_default(),
        create_count: create_count.into(),
        update_count: update_count.into(),
        replace_count: replace_count.into(),
        delete_count: delete_count.into(),
        resource_types: resource_types.into_iter().collect(),
        new_owner,
        moves_owner,
        labels: labels.into_iter().collect(),
        changes_labels,
        plan_digest: filled(&plan_digest),
    }
}

/// Id and version from `organizations/…/templates/web-service/versions/1.0.0`.
fn template(name: &str) -> (Option<String>, Option<String>) {
    let segments: Vec<&str> = name.split('/').collect();
    let after = |collection: &str| {
        let at = segments.iter().position(|segment| *segment == collection)?;
        segments.get(at + 1).map(|id| (*id).to_owned())
    };
    (after("templates"), after("versions"))
}

/// The parameters that policies see: scalars, and lists of scalars joined by commas. Nulls are left out.
fn visible(parameters: prost_types::Struct) -> BTreeMap<String, String> {
    let text = |(key, value): (String, prost_types::Value)| Some((key, value.kind.and_then(as_text)?));
    parameters.fields.into_iter().filter_map(text).collect()
}

fn as_text(kind: Kind) -> Option<String> {
    match kind {
        Kind::StringValue(text) => Some(text),
        Kind::BoolValue(flag) => Some(flag.to_string()),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::ListValue(list) => {
            let scalar = |value: prost_types::Value| match value.kind? {
                Kind::ListValue(_) => None,
                other => as_text(other),
            };
            list.values.into_iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        Kind::NullValue(_) | Kind::StructValue(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: Kind) -> prost_types::Value {
        prost_types::Value { kind: Some(kind) }
    }

    #[test]
    fn parameters_become_text() {
        let list = |values: Vec<Kind>| {
            Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(value).collect() })
        };
        let text = |t: &str| Kind::StringValue(t.into());
        for (kind, want) in [
            (text("x"), Some("x")),
            (Kind::NumberValue(3.0), Some("3")),
            (Kind::NumberValue(3.5), Some("3.5")),
            (Kind::BoolValue(true), Some("true")),
            (Kind::NullValue(0), None),
            (list(vec![text("a"), Kind::NumberValue(1.0)]), Some("a,1")),
            (list(vec![]), Some("")),
            (list(vec![list(vec![])]), None),
            (Kind::StructValue(prost_types::Struct::default()), None),
        ] {
            assert_eq!(as_text(kind.clone()).as_deref(), want, "{kind:?}");
        }
    }

    #[test]
    fn template_names_are_taken_apart() {
        let name = "organizations/acme/templates/web-service/versions/1.2.0";
        assert_eq!(template(name), (Some("web-service".into()), Some("1.2.0".into())));
        assert_eq!(template(""), (None, None));
    }
}

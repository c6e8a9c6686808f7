//! The actions of the API, from the options of its methods.

use pavior_proto::pavior::governance::v1::{Access, Audience, Rule};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};

use crate::domain::action::{Action, Actions};

const RULE: &str = "pavior.governance.v1.rule";
const MIXIN: &str = "pavior.governance.v1.mixin";

/// Why the actions cannot be read: the descriptors are not those of this API.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the governance options: {0}")]
pub(crate) struct ActionsError(String);

/// Every action that a method is governed by.
pub(crate) fn actions(pool: &DescriptorPool) -> Result<Actions, ActionsError> {
    let extension = |name: &str| {
        pool.get_extension_by_name(name).ok_or_else(|| ActionsError(format!("extension `{name}` is missing")))
    };
    let (rule, mixin) = (extension(RULE)?, extension(MIXIN)?);
    let mut rules = Vec::new();
    for service in pool.services() {
        if let Value::List(mixins) = service.options().get_extension(&mixin).as_ref() {
            for mixin in mixins.iter().filter_map(Value::as_message) {
                rules.extend(
                    mixin.get_field_by_name("rule").as_deref().and_then(Value::as_message).map(decode),
                );
            }
        }
        for method in service.methods() {
            let options = method.options();
            if options.has_extension(&rule) {
                rules.extend(options.get_extension(&rule).as_message().map(decode));
            }
        }
    }
    let rules = rules.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Actions::new(rules.iter().filter(|rule| !rule.action.is_empty()).map(to_action)))
}

fn decode(message: &DynamicMessage) -> Result<Rule, ActionsError> {
    message.transcode_to().map_err(|error| ActionsError(error.to_string()))
}

fn to_action(rule: &Rule) -> Action {
    Action {
        name: rule.action.clone(),
        change: rule.access() != Access::Read,
        internal: rule.audience() == Audience::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schema::PolicySchema;

    #[test]
    fn the_examples_of_the_manual_hold() {
        let manual = include_str!("../../README.md");
        let examples: Vec<&str> =
            manual.split("```cedar").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!examples.is_empty());
        let schema = PolicySchema::new(actions(pavior_rpc::convert::pool()).unwrap()).unwrap();
        for example in examples {
            let checked = crate::domain::source::check(
                example,
                crate::domain::source::SetKind::Guardrail,
                &schema,
                "acme",
            );
            assert!(checked.is_ok(), "{:?}", checked.err());
        }
    }

    #[test]
    fn the_api_has_actions_and_they_make_a_schema() {
        let actions = actions(pavior_rpc::convert::pool()).unwrap();
        assert!(actions.get("policy.roles.create").is_some_and(|action| action.change && !action.internal));
        assert!(actions.get("policy.roles.get").is_some_and(|action| !action.change));
        assert!(actions.get("policy.decisions.create").is_some_and(|action| action.internal));
        // Governed where people get one, internal where services get many.
        assert!(actions.get("policy.approvalRequests.get").is_some_and(|action| !action.internal));
        let schema = PolicySchema::new(actions).unwrap();
        assert!(schema.text.contains(r#"action "policy.roles.*" in ["policy.*"];"#));
    }
}

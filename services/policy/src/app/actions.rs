//! The actions of the API, from the options of its methods.

use pavior_proto::pavior::governance::v1::{Access, Audience, Rule};
use pavior_rpc::governance::{NoGovernance, declared};
use prost_reflect::DescriptorPool;

use crate::domain::action::{Action, Actions};

/// All actions that govern a method of the API.
pub(crate) fn actions(pool: &DescriptorPool) -> Result<Actions, NoGovernance> {
    let rules = declared(pool)?.into_iter().filter_map(|declared| declared.rule);
    Ok(Actions::new(rules.filter(|rule| !rule.action.is_empty()).map(|rule| to_action(&rule))))
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
                crate::domain::policy::PolicyType::Guardrail,
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
        assert!(actions.get("policy.approvals.get").is_some_and(|action| !action.internal));
        let schema = PolicySchema::new(actions).unwrap();
        assert!(schema.text.contains(r#"action "policy.roles.*" in ["policy.*"];"#));
    }
}

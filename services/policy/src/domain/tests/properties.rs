//! What must hold for every set of policies and every request.

use cedar_policy::{Authorizer, Decision, PolicySet};
use proptest::prelude::*;

use super::*;
use crate::domain::combine::Effect;
use crate::domain::entities::Types;
use crate::domain::schema::groups_of;

const GROUPS: [&str; 3] = ["payments", "search", "platform"];
const ACTIONS: [&str; 4] = [CREATE, DELETE, GET, ENTITY];

fn subset(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::sample::subsequence(of.to_vec(), 0..=of.len())
}

prop_compose! {
    fn requests()(
        who in prop_oneof![Just("alice"), Just("bob")],
        stranger in prop::bool::weighted(0.1),
        groups in subset(&GROUPS),
        action in proptest::sample::select(&ACTIONS[..]),
        owner in proptest::option::of(proptest::sample::select(&GROUPS[..])),
        new_owner in proptest::option::of(proptest::sample::select(&GROUPS[..])),
        project in proptest::option::of(prop_oneof![Just("hello"), Just("world")]),
        class in proptest::option::of(prop_oneof![Just("production"), Just("staging")]),
        create_count in 0_i64..6,
        given in prop::bool::ANY,
    ) -> (Input, Option<GivenApproval>) {
        let mut asked = input(who, &groups, action);
        if stranger {
            asked.principal.organization = "other".into();
            asked.principal.name = format!("organizations/other/users/{who}");
        }
        asked.resource.owner = owner.map(group);
        asked.resource.project = project.map(str::to_owned);
        asked.context.new_owner = new_owner.map(group);
        asked.context.environment_class_id = class.map(str::to_owned);
        asked.context.create_count = create_count;
        (asked, given.then(|| approval("d1", &[("platform", 1)])))
    }
}

fn members() -> impl Strategy<Value = Member> {
    prop_oneof![
        Just(everybody()),
        proptest::sample::select(&GROUPS[..]).prop_map(|id| Member::Group(id.into())),
        prop_oneof![Just("alice"), Just("bob")].prop_map(|id| Member::Principal(user(id).name)),
    ]
}

fn role_indexes() -> impl Strategy<Value = RoleIndex> {
    let patterns = ["*", "provisioning.*", "provisioning.environments.*", CREATE, GET, "catalog.*"];
    let roles = prop::collection::vec(proptest::sample::subsequence(patterns.to_vec(), 1..=3), 1..4);
    let project = proptest::option::of(prop_oneof![Just("hello"), Just("world")]);
    let reach = prop_oneof![Just(Reach::All), Just(Reach::Owned)];
    let binding = (0..4_usize, prop::collection::btree_set(members(), 1..3), project, reach);
    (roles, prop::collection::vec(binding, 0..5)).prop_map(|(roles, bindings)| {
        let roles = roles.iter().enumerate().map(|(at, actions)| role(&format!("r{at}"), actions));
        let bindings =
            bindings.into_iter().enumerate().map(|(at, (role, members, project, reach))| RoleBinding {
                id: format!("b{at}"),
                role: format!("r{role}"),
                members,
                project: project.map(str::to_owned),
                reach,
            });
        RoleIndex::new(roles.collect::<Vec<_>>(), bindings.collect::<Vec<_>>())
    })
}

/// Rules that between them match, fail, warn, ask and deny.
const RULES: [(&str, &str); 9] = [
    (
        "access",
        r#"permit (principal in Pavior::Group::"organizations/acme/groups/platform", action, resource);"#,
    ),
    ("access", r#"permit (principal, action in Pavior::Action::"reads", resource);"#),
    (
        "access",
        r#"forbid (principal == Pavior::User::"organizations/acme/users/bob", action in Pavior::Action::"changes", resource);"#,
    ),
    (
        "access",
        r#"forbid (principal, action, resource) when { context.create_count * 9223372036854775807 > 5 };"#,
    ),
    (
        "guardrail",
        r#"@approve("1 of group:platform") forbid (principal, action, resource) when { context has environment_class_id && context.environment_class_id == "production" };"#,
    ),
    (
        "guardrail",
        r#"@approve("2 of group:platform") forbid (principal, action, resource) when { context.create_count > 3 };"#,
    ),
    (
        "guardrail",
        r#"forbid (principal, action == Pavior::Action::"provisioning.environments.delete", resource) unless { context.approved };"#,
    ),
    (
        "guardrail",
        r#"@level("advisory") forbid (principal, action, resource) when { resource has project };"#,
    ),
    (
        "guardrail",
        r#"@level("advisory") forbid (principal, action, resource) when { (context.create_count - 4) * 9223372036854775807 > 5 };"#,
    ),
];

fn checked() -> Vec<BoundPolicy> {
    let kind = |set| if set == "access" { PolicyType::Access } else { PolicyType::Guardrail };
    RULES.iter().map(|(set, text)| bound("x", kind(*set), text, Mode::Enforce)).collect()
}

fn named(policy: &BoundPolicy, id: &str, mode: Mode) -> BoundPolicy {
    let mut policy = BoundPolicy { id: id.to_owned(), ..policy.clone() };
    policy.bindings[0].mode = mode;
    policy
}

fn policies() -> impl Strategy<Value = Vec<BoundPolicy>> {
    let mode = prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Warn), 1 => Just(Mode::Shadow)];
    let one = (proptest::sample::select(checked()), mode);
    prop::collection::vec(one, 0..6).prop_map(|chosen| {
        chosen
            .iter()
            .enumerate()
            .map(|(at, (policy, mode))| named(policy, &format!("p{at}"), *mode))
            .collect()
    })
}

fn forbids() -> impl Strategy<Value = BoundPolicy> {
    let only = checked().into_iter().filter(only_forbids).collect::<Vec<_>>();
    proptest::sample::select(only).prop_map(|policy| named(&policy, "added", Mode::Enforce))
}

fn only_forbids(policy: &BoundPolicy) -> bool {
    policy.policy.as_ref().is_ok_and(|checked| checked.rules.iter().all(|rule| rule.forbid))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_role_index_grants_what_the_definition_and_cedar_grant(
        roles in role_indexes(), asks in prop::collection::vec(requests(), 4)
    ) {
        let schema = schema();
        let set: PolicySet = roles.to_cedar("acme").parse().unwrap();
        let types = Types::new().unwrap();
        for (asked, _) in asks {
            let indexed = roles.granting(&asked);
            prop_assert_eq!(&indexed, &roles.granting_directly(&asked));
            let action = schema.actions.get(&asked.action).unwrap();
            let (request, entities) =
                types.request(&asked, &types.action(&action.name, &groups_of(action)), false).unwrap();
            let cedar = Authorizer::new().is_authorized(&request, &set, &entities);
            prop_assert_eq!(cedar.diagnostics().errors().count(), 0);
            prop_assert_eq!(!indexed.is_empty(), cedar.decision() == Decision::Allow);
        }
    }

    #[test]
    fn a_rule_that_matches_is_in_the_slice_of_its_action(
        rules in Just(checked()), (asked, approval) in requests()
    ) {
        let schema = schema();
        let types = Types::new().unwrap();
        let action = schema.actions.get(&asked.action).unwrap();
        let groups = groups_of(action);
        let entity = types.action(&action.name, &groups);
        let (request, entities) = types.request(&asked, &entity, approval.is_some()).unwrap();
        for rule in rules.iter().flat_map(|policy| &policy.policy.as_ref().unwrap().rules) {
            let alone = PolicySet::from_policies([rule.policy.clone()]).unwrap();
            let answer = Authorizer::new().is_authorized(&request, &alone, &entities);
            let speaks = answer.diagnostics().reason().count() + answer.diagnostics().errors().count() > 0;
            prop_assert!(!speaks || rule.concerns(&action.name, &groups), "{}", rule.policy);
        }
    }

    #[test]
    fn the_order_of_policies_does_not_matter(
        (given, shuffled) in policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        (asked, approval) in requests()
    ) {
        let one = compile(everyone(), given).decide(&asked, approval.as_ref());
        prop_assert_eq!(one, compile(everyone(), shuffled).decide(&asked, approval.as_ref()));
    }

    #[test]
    fn adding_a_forbid_never_allows_more(
        roles in role_indexes(), given in policies(), added in forbids(), (asked, approval) in requests()
    ) {
        let before = compile(roles.clone(), given.clone()).decide(&asked, approval.as_ref());
        let after = compile(roles, [given, vec![added]].concat()).decide(&asked, approval.as_ref());
        prop_assert!(after.effect >= before.effect, "{:?} then {:?}", before, after);
    }

    #[test]
    fn removing_a_permit_never_allows_more(
        roles in role_indexes(), given in policies(), (asked, approval) in requests()
    ) {
        let before = compile(roles, given.clone()).decide(&asked, approval.as_ref());
        let fewer = compile(RoleIndex::default(), given.clone()).decide(&asked, approval.as_ref());
        prop_assert!(fewer.effect >= before.effect);
        let no_permits = given.into_iter().filter(only_forbids).collect();
        let none = compile(RoleIndex::default(), no_permits).decide(&asked, approval.as_ref());
        prop_assert_eq!(none.effect, Effect::Deny);
    }

    #[test]
    fn what_cedar_is_given_fits_the_schema((asked, _) in requests()) {
        let schema = schema();
        let types = Types::new().unwrap();
        let action = schema.actions.get(&asked.action).unwrap();
        let (request, entities) =
            types.request(&asked, &types.action(&action.name, &groups_of(action)), true).unwrap();
        let cedar = schema.validator.schema();
        // The action's own entity is the schema's; it is checked below.
        let others = entities.iter().filter(|e| e.uid().type_name().basename() != "Action").cloned();
        let checked = cedar_policy::Entities::from_entities(others, Some(cedar)).unwrap();
        let uid = request.action().unwrap();
        prop_assert!(checked.get(uid).unwrap().deep_eq(entities.get(uid).unwrap()));
        cedar_policy::Request::new(
            request.principal().unwrap().clone(), uid.clone(), request.resource().unwrap().clone(),
            request.context().unwrap().clone(), Some(cedar),
        ).unwrap();
    }

    #[test]
    fn any_text_is_refused_cleanly(text in "[a-z(){}\\[\\].,;:=!&|\"@<>? \n-]{0,400}") {
        let _ = check(&text, PolicyType::Guardrail, &schema(), "acme");
    }
}

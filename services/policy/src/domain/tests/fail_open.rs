//! The ways in which a guardrail can fail to fire without anybody noticing: each is refused or denies.

use super::*;
use crate::domain::combine::Effect;

fn refused(kind: PolicyType, text: &str) -> String {
    check(text, kind, &schema(), "acme").expect_err(text).join("\n")
}

fn guardrail(when: &str) -> String {
    format!("forbid (principal, action, resource) when {{ {when} }};")
}

#[test]
fn what_would_never_fire_is_refused_when_written() {
    for when in [
        r#"context.environment_class_id == "production""#,
        r#"context.enviroment_class_id == "production""#,
        r#"context.parameters.size == "xl""#,
        r#"context.parameters.getTag("size") == "xl""#,
        r#"resource.owner == Pavior::Group::"organizations/acme/groups/x""#,
        r#"context.create_count > "3""#,
        r#"context.create_count == "3""#,
        "context.create_count > null",
        "[].contains(context.stage)",
        "context.resource_types.containsAll([])",
        r#"principal == "alice""#,
        "1 == 2",
        "false",
    ] {
        refused(PolicyType::Guardrail, &guardrail(when));
    }
    for text in [
        "",
        "// nothing",
        "forbid (principal, action, resource)",
        "permit (principal, action, resource);",
        r#"forbid (principal, action == Pavior::Action::"provisioning.environments.destroy", resource);"#,
        r#"forbid (principal, action in Pavior::Action::"provisoning.*", resource);"#,
        r#"forbid (principal == Pavior::Robot::"x", action, resource);"#,
        "forbid (principal == ?principal, action, resource);",
        // Valid Cedar that would never match: entities have whole resource names, of this organization.
        r#"forbid (principal in Pavior::Group::"platform", action, resource);"#,
        r#"forbid (principal in Pavior::Group::"organizations/other/groups/platform", action, resource);"#,
        r#"forbid (principal == Pavior::User::"organizations/acme/groups/platform", action, resource);"#,
        r#"forbid (principal, action, resource in Pavior::Organization::"acme");"#,
        r#"forbid (principal, action, resource) when { resource in [Pavior::Project::"hello"] };"#,
        r#"forbid (principal, action, resource == Pavior::Resource::"hello");"#,
        r#"@effects("deny") forbid (principal, action, resource);"#,
        r#"@id("a") forbid (principal, action, resource); @id("a") forbid (principal, action, resource);"#,
    ] {
        refused(PolicyType::Guardrail, text);
    }
    refused(PolicyType::Access, r#"@effect("warn") forbid (principal, action, resource);"#);
}

#[test]
fn all_problems_of_a_text_are_named() {
    let text = r#"@nope("x") forbid (principal, action, resource) when { context.nothing == 1 };
                  @level("hardest") forbid (principal, action, resource) when { context.no == 1 };"#;
    let problems = refused(PolicyType::Guardrail, text);
    for part in ["@nope", "@level", "nothing", "`no`"] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
}

#[test]
fn deep_texts_are_refused_and_long_ones_do_not_overflow() {
    let nested = |n: usize| guardrail(&format!("{}true{}", "(".repeat(n), ")".repeat(n)));
    assert!(refused(PolicyType::Guardrail, &nested(300)).contains("nested deeper than 32"));
    assert!(refused(PolicyType::Guardrail, &nested(4_000)).contains("nested deeper than 32"));
    for deep in ["!", "-", "if true then "] {
        refused(PolicyType::Guardrail, &guardrail(&deep.repeat(9_000 / deep.len())));
    }
    // As many operators as the limit lets through, decided on a thread of the smallest stack that a server uses.
    let long = guardrail(&vec![r#"context.stage == "plan""#; 79].join(" || "));
    let compilation = compile(everyone(), vec![bound("g", PolicyType::Guardrail, &long, Mode::Enforce)]);
    let worker = std::thread::Builder::new().stack_size(2 << 20);
    let worker = worker.spawn(move || compilation.decide(&input("alice", &[], CREATE), None).effect);
    assert_eq!(worker.unwrap().join().unwrap(), Effect::Deny);
}

#[test]
fn an_error_in_any_guardrail_denies() {
    let overflow = r#"@id("sum") @level("advisory") forbid (principal, action, resource)
        when { context.create_count * 9223372036854775807 > 5 };"#;
    for (mode, effect) in
        [(Mode::Enforce, Effect::Deny), (Mode::Warn, Effect::Allow), (Mode::Shadow, Effect::Allow)]
    {
        let compilation = compile(everyone(), vec![bound("g", PolicyType::Guardrail, overflow, mode)]);
        let mut asked = input("alice", &[], CREATE);
        asked.context.create_count = 0;
        assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow);
        asked.context.create_count = 2;
        let outcome = compilation.decide(&asked, None);
        assert_eq!(outcome.effect, effect, "{mode:?}");
        assert_eq!(outcome.policy_error, mode == Mode::Enforce);
        let said = outcome.reasons.iter().chain(&outcome.warnings).chain(&outcome.shadow);
        assert!(
            said.into_iter()
                .any(|reason| reason.rule_id == "sum" && reason.message.starts_with("POLICY_ERROR"))
        );
    }
}

#[test]
fn an_error_in_the_access_set_never_opens() {
    let overflow = "when { context.create_count * 9223372036854775807 > 5 };";
    let mut asked = input("alice", &[], CREATE);
    asked.context.create_count = 2;
    let forbid = format!("forbid (principal, action, resource) {overflow}");
    let compilation = compile(everyone(), vec![bound("f", PolicyType::Access, &forbid, Mode::Enforce)]);
    let outcome = compilation.decide(&asked, None);
    assert!(outcome.effect == Effect::Deny && outcome.policy_error, "{outcome:?}");
    let permit = format!("permit (principal, action, resource) {overflow}");
    let compilation =
        compile(RoleIndex::default(), vec![bound("p", PolicyType::Access, &permit, Mode::Enforce)]);
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
}

#[test]
fn missing_and_empty_values_deny_where_a_policy_asks_for_them() {
    let text = r#"forbid (principal, action, resource) unless {
        context.parameters.hasTag("size") && ["s", "m"].contains(context.parameters.getTag("size"))
        && context.resource_types.containsAny(["sql-database"]) };"#;
    let compilation = compile(everyone(), vec![bound("g", PolicyType::Guardrail, text, Mode::Enforce)]);
    let mut asked = input("alice", &[], CREATE);
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny, "missing (a null has no tag either)");
    asked.context.parameters.insert("size".into(), String::new());
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny, "empty");
    asked.context.parameters.insert("size".into(), "s".into());
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny, "empty set");
    asked.context.resource_types.insert("sql-database".into());
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow);
}

#[test]
fn a_stored_policy_that_does_not_fit_the_schema_any_more_denies_where_it_holds() {
    for kind in [PolicyType::Access, PolicyType::Guardrail] {
        let mut policy = bound("old", kind, "forbid (principal, action, resource);", Mode::Enforce);
        policy.policy = Err("unknown action".into());
        policy.bindings[0].projects = ["hello".to_owned()].into();
        let compilation = compile(everyone(), vec![policy]);
        let mut asked = input("alice", &[], CREATE);
        let outcome = compilation.decide(&asked, None);
        assert!(outcome.effect == Effect::Deny && outcome.policy_error, "{outcome:?}");
        asked.resource.project = Some("other".into());
        assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow);
    }
}

#[test]
fn an_action_that_is_not_known_is_denied_even_to_an_administrator() {
    let mut asked = input("root", &[], "provisioning.environments.explode");
    asked.principal.installation_operator = true;
    assert_eq!(compile(everyone(), vec![]).decide(&asked, None).effect, Effect::Deny);
}

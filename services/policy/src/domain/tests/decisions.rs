//! Decisions as tables: access, guardrails, modes, scopes, approvals.

use super::*;
use crate::domain::combine::Effect;

const PRODUCTION: &str = r#"
@id("production-approval") @level("hard") @effect("approve") @approve("1 of group:platform")
@message("production of {resource.project} needs an approval; size {context.parameters.size}")
@fix("ask the platform group") @docs("https://docs.example/production")
forbid (principal, action in [Pavior::Action::"provisioning.environments.*"], resource)
when { context has environment_class_id && context.environment_class_id == "production" };
"#;

fn production(action: &str) -> Input {
    let mut input = input("alice", &["payments"], action);
    input.context.environment_class_id = Some("production".into());
    input
}

#[test]
fn nothing_is_allowed_without_a_permit() {
    let compilation = compile(RoleIndex::new([role("dev", &["provisioning.*"])], []), vec![]);
    let outcome = compilation.decide(&input("alice", &[], CREATE), None);
    assert_eq!((outcome.effect, ids(&outcome)), (Effect::Deny, vec!["builtin.default-deny"]));
    assert_eq!(outcome.granting_roles, ["organizations/acme/roles/dev"]);
}

#[test]
fn role_table() {
    let owned = |mut binding: RoleBinding| {
        binding.reach = Reach::Owned;
        binding
    };
    let in_project = |mut binding: RoleBinding, project: &str| {
        binding.project = Some(project.into());
        binding
    };
    let alice = Member::Principal(user("alice").name);
    let payments = Member::Group("payments".into());
    let table = [
        (grant("b", "dev", &[alice]), true),
        (grant("b", "dev", &[payments]), true),
        (grant("b", "dev", &[everybody()]), true),
        (grant("b", "dev", &[Member::Group("other".into())]), false),
        (grant("b", "dev", &[Member::Principal(user("bob").name)]), false),
        (grant("b", "missing", &[everybody()]), false),
        (grant("b", "viewer", &[everybody()]), false),
        (owned(grant("b", "dev", &[everybody()])), true),
        (in_project(grant("b", "dev", &[everybody()]), "hello"), true),
        (in_project(grant("b", "dev", &[everybody()]), "other"), false),
    ];
    for (binding, want) in table {
        let roles = [role("dev", &["provisioning.*"]), role("viewer", &["catalog.*", GET])];
        let compilation = compile(RoleIndex::new(roles, [binding.clone()]), vec![]);
        let outcome = compilation.decide(&input("alice", &["payments"], CREATE), None);
        assert_eq!(outcome.effect == Effect::Allow, want, "{binding:?}");
    }
}

#[test]
fn everybody_owns_nothing() {
    let mut asked = input("alice", &["payments"], "provisioning.projects.get");
    assert!(asked.is_owner());
    asked.resource.owner = Some(group(EVERYONE));
    assert!(!asked.is_owner());
}

#[test]
fn a_resource_with_an_owner_is_not_opened_by_naming_a_new_one() {
    let mut owned = grant("b", "dev", &[everybody()]);
    owned.reach = Reach::Owned;
    let compilation = compile(RoleIndex::new([role("dev", &["*"])], [owned]), vec![]);
    let mut asked = input("mallory", &["search"], CREATE);
    asked.context.new_owner = Some(group("search"));
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
    asked.resource.owner = None;
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow);
    asked.context.new_owner = Some(group("payments"));
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
}

#[test]
fn a_stranger_of_the_same_id_is_nobody_here() {
    let text = r#"permit (principal == Pavior::User::"organizations/acme/users/alice", action, resource);"#;
    let mut asked = input("alice", &["payments"], CREATE);
    asked.principal.organization = "other".into();
    asked.principal.name = "organizations/other/users/alice".into();
    let policies = vec![bound("p", PolicyType::Access, text, Mode::Enforce)];
    let compilation = compile(everyone(), policies);
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
    assert_eq!(compilation.decide(&input("alice", &[], CREATE), None).effect, Effect::Allow);
    asked.principal.installation_operator = true;
    assert_eq!(ids(&compilation.decide(&asked, None)), ["builtin.installation-operator"]);
}

#[test]
fn platform_services_may_only_do_what_is_internal() {
    let compilation = compile(RoleIndex::default(), vec![]);
    let service = |role: &str, organization: &str, action: &str| {
        let mut asked = input("x", &[], action);
        asked.principal.kind = PrincipalKind::Service;
        asked.principal.organization = organization.to_owned();
        asked.principal.name = format!("organizations/{organization}/services/{role}");
        compilation.decide(&asked, None).effect
    };
    assert_eq!(service("provisioning", "pavior", DIRECTORY), Effect::Allow);
    assert_eq!(service("provisioning", "pavior", CREATE), Effect::Deny);
    assert_eq!(service("ci", "pavior", DIRECTORY), Effect::Deny);
    assert_eq!(service("provisioning", "acme", DIRECTORY), Effect::Deny);
    let mut account = input("x", &[], DIRECTORY);
    account.principal.kind = PrincipalKind::ServiceAccount;
    account.principal.name = "organizations/acme/serviceAccounts/provisioning".into();
    assert_eq!(compilation.decide(&account, None).effect, Effect::Deny);
    let mut person = input("x", &[], DIRECTORY);
    person.principal.name = "organizations/pavior/services/provisioning".into();
    assert_eq!(compilation.decide(&person, None).effect, Effect::Deny);
}

#[test]
fn provisioning_may_take_down_what_expired_but_not_from_outside() {
    let compilation = compile(RoleIndex::default(), vec![]);
    let of = |action: &str, role: &str, stage: Stage| {
        let mut asked = input("x", &[], action);
        asked.principal.kind = PrincipalKind::Service;
        asked.principal.organization = "pavior".into();
        asked.principal.name = format!("organizations/pavior/services/{role}");
        asked.stage = stage;
        compilation.decide(&asked, None).effect
    };
    let decide = |role: &str, stage: Stage| of(DELETE, role, stage);
    assert_eq!(decide("provisioning", Stage::Plan), Effect::Allow);
    // With what stands in it, and no more.
    assert_eq!(of("catalog.entities.delete", "provisioning", Stage::Plan), Effect::Allow);
    assert_eq!(of("catalog.entities.delete", "provisioning", Stage::Admission), Effect::Deny);
    assert_eq!(of(ENTITY, "provisioning", Stage::Plan), Effect::Deny);
    assert_eq!(decide("provisioning", Stage::Execution), Effect::Allow);
    assert_eq!(decide("provisioning", Stage::Admission), Effect::Deny);
    assert_eq!(decide("catalog", Stage::Plan), Effect::Deny);
}

#[test]
fn access_forbid_overrides_and_names_itself() {
    let forbid = r#"@id("no-delete") @message("{principal} may not") forbid (principal, action == Pavior::Action::"provisioning.environments.delete", resource);"#;
    let compilation = compile(everyone(), vec![bound("p", PolicyType::Access, forbid, Mode::Enforce)]);
    let outcome = compilation.decide(&input("alice", &[], DELETE), None);
    assert_eq!((outcome.effect, ids(&outcome)), (Effect::Deny, vec!["no-delete"]));
    assert_eq!(outcome.reasons[0].message, "organizations/acme/users/alice may not");
    assert_eq!(outcome.reasons[0].policy, "organizations/acme/policies/p");
    assert_eq!(compilation.decide(&input("alice", &[], CREATE), None).effect, Effect::Allow);
}

#[test]
fn guardrail_asks_for_approval_and_is_met_by_the_right_one() {
    let compilation = compile(everyone(), vec![bound("p", PolicyType::Guardrail, PRODUCTION, Mode::Enforce)]);
    let asked = production(CREATE);
    let outcome = compilation.decide(&asked, None);
    assert_eq!((outcome.effect, ids(&outcome)), (Effect::RequireApproval, vec!["production-approval"]));
    let reason = &outcome.reasons[0];
    assert_eq!(reason.message, "production of hello needs an approval; size (none)");
    assert_eq!(
        (reason.fix.as_str(), reason.docs.as_str()),
        ("ask the platform group", "https://docs.example/production")
    );
    assert_eq!(outcome.approvals["platform"].quorum, 1);
    for (given, want) in [
        (approval("d1", &[("platform", 1)]), Effect::Allow),
        (approval("d1", &[("platform", 3), ("security", 1)]), Effect::Allow),
        (approval("d2", &[("platform", 1)]), Effect::RequireApproval),
        (approval("", &[("platform", 1)]), Effect::RequireApproval),
        (approval("d1", &[("security", 1)]), Effect::RequireApproval),
        (GivenApproval { approved: false, ..approval("d1", &[("platform", 1)]) }, Effect::RequireApproval),
    ] {
        let outcome = compilation.decide(&asked, Some(&given));
        assert_eq!(outcome.effect, want, "{given:?}");
        assert!(ids(&outcome).contains(&"production-approval"));
    }
    let mut no_plan = asked.clone();
    no_plan.context.plan_digest = None;
    let empty = approval("", &[("platform", 1)]);
    assert_eq!(compilation.decide(&no_plan, Some(&empty)).effect, Effect::RequireApproval);
    assert_eq!(compilation.decide(&production(ENTITY), None).effect, Effect::Allow, "another action");
}

#[test]
fn context_approved_is_true_only_for_this_plan() {
    let text = r#"forbid (principal, action, resource) unless { context.approved };"#;
    let compilation = compile(everyone(), vec![bound("p", PolicyType::Guardrail, text, Mode::Enforce)]);
    let asked = input("alice", &[], CREATE);
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
    assert_eq!(compilation.decide(&asked, Some(&approval("d1", &[]))).effect, Effect::Allow);
    assert_eq!(compilation.decide(&asked, Some(&approval("d2", &[]))).effect, Effect::Deny);
}

#[test]
fn every_guardrail_that_matches_is_named_and_deny_wins() {
    let deny = |id: &str| {
        format!(r#"@id("{id}") forbid (principal, action in Pavior::Action::"changes", resource);"#)
    };
    let two = format!("{}\n{}", deny("one"), deny("two"));
    let policies = vec![
        bound("a", PolicyType::Guardrail, PRODUCTION, Mode::Enforce),
        bound("b", PolicyType::Guardrail, &two, Mode::Enforce),
        bound(
            "c",
            PolicyType::Guardrail,
            r#"@level("advisory") @id("hint") forbid (principal, action, resource);"#,
            Mode::Enforce,
        ),
    ];
    let outcome = compile(everyone(), policies).decide(&production(CREATE), None);
    assert_eq!((outcome.effect, ids(&outcome)), (Effect::Deny, vec!["one", "two"]));
    assert!(outcome.approvals.is_empty());
    assert_eq!(outcome.warnings[0].rule_id, "hint");
}

#[test]
fn approvals_are_united_by_group_with_the_larger_quorum() {
    let rule =
        |id: &str, of: &str| format!(r#"@id("{id}") @approve("{of}") forbid (principal, action, resource);"#);
    let policies = vec![
        bound("a", PolicyType::Guardrail, &rule("a", "1 of group:platform"), Mode::Enforce),
        bound(
            "b",
            PolicyType::Guardrail,
            &rule("b", "2 of group:platform, 1 of group:security"),
            Mode::Enforce,
        ),
    ];
    let compilation = compile(everyone(), policies);
    let outcome = compilation.decide(&input("alice", &[], CREATE), None);
    assert_eq!(
        crate::domain::engine::approvals_of(&outcome),
        [("platform".into(), 2), ("security".into(), 1)].into()
    );
    assert_eq!(outcome.approvals["platform"].rule_ids, ["a".to_owned(), "b".to_owned()].into());
    let part = approval("d1", &[("platform", 1), ("security", 1)]);
    assert_eq!(compilation.decide(&input("alice", &[], CREATE), Some(&part)).effect, Effect::RequireApproval);
}

#[test]
fn modes_of_bindings() {
    let text = r#"@id("g") forbid (principal, action, resource);"#;
    for (mode, effect, warned, shadowed) in [
        (Mode::Off, Effect::Allow, 0, 0),
        (Mode::Shadow, Effect::Allow, 0, 1),
        (Mode::Warn, Effect::Allow, 1, 0),
        (Mode::Enforce, Effect::Deny, 0, 0),
    ] {
        for kind in [PolicyType::Access, PolicyType::Guardrail] {
            let compilation = compile(everyone(), vec![bound("g", kind, text, mode)]);
            let outcome = compilation.decide(&input("alice", &[], CREATE), None);
            let got = (outcome.effect, outcome.warnings.len(), outcome.shadow.len());
            assert_eq!(got, (effect, warned, shadowed), "{mode:?} {kind:?}");
        }
        let permit = r#"permit (principal, action, resource);"#;
        let compilation = compile(RoleIndex::default(), vec![bound("p", PolicyType::Access, permit, mode)]);
        let allowed = compilation.decide(&input("alice", &[], CREATE), None).effect == Effect::Allow;
        assert_eq!(allowed, mode == Mode::Enforce, "a permit in {mode:?}");
    }
}

#[test]
fn the_strictest_binding_that_applies_counts() {
    let mut policy = bound("g", PolicyType::Guardrail, "forbid (principal, action, resource);", Mode::Warn);
    let scoped = |projects: &[&str], classes: &[&str]| Binding {
        projects: projects.iter().map(|p| (*p).to_owned()).collect(),
        environment_class_ids: classes.iter().map(|c| (*c).to_owned()).collect(),
        mode: Mode::Enforce,
    };
    for (binding, want) in [
        (scoped(&["hello"], &[]), Effect::Deny),
        (scoped(&["other"], &[]), Effect::Allow),
        (scoped(&["other", "hello"], &["production"]), Effect::Deny),
        (scoped(&[], &["staging"]), Effect::Allow),
    ] {
        policy.bindings.truncate(1);
        policy.bindings.push(binding.clone());
        let outcome = compile(everyone(), vec![policy.clone()]).decide(&production(CREATE), None);
        assert_eq!(outcome.effect, want, "{binding:?}");
        assert_eq!(outcome.warnings.len(), usize::from(want == Effect::Allow));
    }
}

/// Who lists over all projects reads those to which a policy is bound, too.
#[test]
fn a_policy_of_one_project_holds_for_lists_over_all() {
    let mut policy = bound("g", PolicyType::Guardrail, "forbid (principal, action, resource);", Mode::Off);
    let projects = ["hello".to_owned()].into();
    policy.bindings = vec![Binding { projects, environment_class_ids: BTreeSet::new(), mode: Mode::Enforce }];
    let compilation = compile(everyone(), vec![policy]);
    for (project, want) in [("-", Effect::Deny), ("hello", Effect::Deny), ("other", Effect::Allow)] {
        let mut asked = production(CREATE);
        asked.resource.project = Some(project.to_owned());
        assert_eq!(compilation.decide(&asked, None).effect, want, "{project}");
    }
}

/// What README.md says of it: a project in a rule's own text is no binding, and the wildcard has to be named beside it.
#[test]
fn a_project_in_the_text_of_a_policy_is_compared_as_it_stands() {
    let one =
        r#"resource has project && resource.project == Pavior::Project::"organizations/acme/projects/hello""#;
    let all = r#"resource.name like "organizations/acme/projects/-*""#;
    for (condition, want) in [(one.to_owned(), Effect::Allow), (format!("({one}) || {all}"), Effect::Deny)] {
        let text = format!("forbid (principal, action, resource) when {{ {condition} }};");
        let policy = bound("g", PolicyType::Guardrail, &text, Mode::Enforce);
        let compilation = compile(everyone(), vec![policy]);
        let mut asked = production(CREATE);
        asked.resource.project = Some("hello".to_owned());
        assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
        asked.resource.project = Some("-".to_owned());
        asked.resource.name = "organizations/acme/projects/-".to_owned();
        assert_eq!(compilation.decide(&asked, None).effect, want, "{condition}");
    }
}

/// What may be read of one project says nothing of the others.
#[test]
fn a_permit_for_one_project_does_not_hold_for_lists_over_all() {
    let mut policy = bound("p", PolicyType::Access, "permit (principal, action, resource);", Mode::Off);
    for (bound, project, want) in [
        (&["hello"][..], "-", Effect::Deny),
        (&["hello"], "hello", Effect::Allow),
        (&["hello"], "other", Effect::Deny),
        (&[], "-", Effect::Allow),
    ] {
        let projects = bound.iter().map(|id| (*id).to_owned()).collect();
        policy.bindings =
            vec![Binding { projects, environment_class_ids: BTreeSet::new(), mode: Mode::Enforce }];
        let mut asked = production(CREATE);
        asked.resource.project = Some(project.to_owned());
        let outcome = compile(RoleIndex::default(), vec![policy.clone()]).decide(&asked, None);
        assert_eq!(outcome.effect, want, "bound to {bound:?}, asked about {project}");
    }
}

#[test]
fn guardrails_wait_for_the_plan_when_one_follows() {
    let policies =
        vec![bound("g", PolicyType::Guardrail, "forbid (principal, action, resource);", Mode::Enforce)];
    let compilation = compile(everyone(), policies);
    let mut asked = input("alice", &[], CREATE);
    (asked.stage, asked.plan_follows) = (Stage::Admission, true);
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow);
    asked.plan_follows = false;
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
    (asked.stage, asked.plan_follows) = (Stage::Execution, true);
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny, "only admission can leave them out");
}

#[test]
fn policies_see_the_whole_input() {
    let text = r#"@id("all") forbid (principal is Pavior::User in Pavior::Group::"organizations/acme/groups/payments", action, resource in Pavior::Project::"organizations/acme/projects/hello")
    when { principal.name == "organizations/acme/users/alice" && !principal.installation_operator
      && resource.type == "provisioning.pavior.dev/Project" && resource has owner
      && resource.owner in Pavior::Group::"organizations/acme/groups/all" && principal in resource.owner
      && resource.hasTag("tier") && resource.getTag("tier") == "1" && resource.exists
      && resource.organization == Pavior::Organization::"organizations/acme"
      && context.stage == "plan" && context has template && context.template == "web-service"
      && context has template_version && context.template_version == "1.0.0"
      && context.parameters.hasTag("zones") && context.parameters.getTag("zones") like "*b*"
      && context.labels.hasTag("team") && context.create_count > 2 && context.delete_count == 0
      && context.resource_types.contains("sql-database")
      && context has new_owner && context.new_owner == Pavior::Group::"organizations/acme/groups/payments" };"#;
    let compilation = compile(everyone(), vec![bound("g", PolicyType::Guardrail, text, Mode::Enforce)]);
    let mut asked = input("alice", &["payments", "all"], CREATE);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    asked.resource.owner = Some(GroupRef { id: "payments".into(), above: ["all".to_owned()].into() });
    asked.resource.labels = [pair("tier", "1")].into();
    asked.context.template = Some("web-service".into());
    asked.context.template_version = Some("1.0.0".into());
    asked.context.parameters = [pair("zones", "a,b")].into();
    asked.context.labels = [pair("team", "x")].into();
    asked.context.create_count = 3;
    asked.context.resource_types = ["sql-database".to_owned()].into();
    asked.context.new_owner = asked.resource.owner.clone();
    let outcome = compilation.decide(&asked, None);
    assert_eq!((outcome.effect, ids(&outcome)), (Effect::Deny, vec!["all"]), "{outcome:?}");
    asked.context.create_count = 2;
    assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow);
}

#[test]
fn an_administrator_can_always_take_a_policy_out_of_force() {
    for kind in [PolicyType::Access, PolicyType::Guardrail] {
        let policies = vec![bound("all", kind, "forbid (principal, action, resource);", Mode::Enforce)];
        let compilation = compile(everyone(), policies);
        let mut asked = input("root", &[], BINDINGS);
        assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
        asked.principal.installation_operator = true;
        let outcome = compilation.decide(&asked, None);
        assert_eq!((outcome.effect, ids(&outcome)), (Effect::Allow, vec!["builtin.recovery"]));
        assert_eq!(outcome.warnings[0].rule_id, "all");
        asked.action = CREATE.into();
        assert_eq!(compilation.decide(&asked, None).effect, Effect::Deny);
    }
}

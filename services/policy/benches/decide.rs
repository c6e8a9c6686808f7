//! How long one decision takes: a read that roles alone decide, and a change under 100 policies.
//! `cargo bench -p pavior-policy`.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pavior_core::{Principal, PrincipalKind};
use pavior_policy::domain::action::{Action, Actions, Pattern};
use pavior_policy::domain::combine::Effect;
use pavior_policy::domain::engine::{Binding, BoundPolicy, Compilation};
use pavior_policy::domain::input::{Context, GroupRef, Input, Resource, Stage};
use pavior_policy::domain::policy::PolicyType;
use pavior_policy::domain::policy_binding::Mode;
use pavior_policy::domain::role::Role;
use pavior_policy::domain::role_binding::{Member, Reach, RoleBinding};
use pavior_policy::domain::role_index::RoleIndex;
use pavior_policy::domain::schema::PolicySchema;
use pavior_policy::domain::source::check;

const CREATE: &str = "provisioning.environments.create";
const GET: &str = "provisioning.environments.get";

/// Sixty permits, thirty guardrails and ten limits, all of which concern the change; one in ten has a binding of its
/// own scope.
fn policies(schema: &PolicySchema) -> Vec<BoundPolicy> {
    let text = |at: usize| match at % 10 {
        0..6 => (
            PolicyType::Access,
            format!(
                "permit (principal in Pavior::Group::\"organizations/acme/groups/team-{at}\", action in Pavior::Action::\"changes\", resource);"
            ),
        ),
        6..9 => (
            PolicyType::Guardrail,
            format!(
                "@approve(\"1 of group:g{at}\") forbid (principal, action in Pavior::Action::\"changes\", resource) when {{ context has environment_class_id && context.environment_class_id == \"class-{at}\" && context.parameters.hasTag(\"size\") && context.parameters.getTag(\"size\") == \"xl\" }};"
            ),
        ),
        _ => (
            PolicyType::Guardrail,
            format!(
                "forbid (principal, action in Pavior::Action::\"changes\", resource) when {{ context.create_count > {} }};",
                at + 10
            ),
        ),
    };
    let bound = |at: usize| {
        let (kind, source) = text(at);
        let policy =
            check(&source, kind, schema, "acme").map(Arc::new).map_err(|problems| problems.join("; "));
        let projects =
            if at.is_multiple_of(10) { BTreeSet::from(["other".to_owned()]) } else { BTreeSet::new() };
        let binding = Binding { projects, environment_class_ids: BTreeSet::new(), mode: Mode::Enforce };
        BoundPolicy { id: format!("p{at}"), revision: 1, kind, policy, bindings: vec![binding] }
    };
    (0..100).map(bound).collect()
}

fn input(action: &str) -> Input {
    let group = |id: &str| GroupRef { id: id.into(), above: BTreeSet::from(["company".to_owned()]) };
    Input {
        organization: "acme".into(),
        principal: Principal {
            kind: PrincipalKind::User,
            name: "organizations/acme/users/alice".into(),
            organization: "acme".into(),
            subject: "alice".into(),
            groups: Vec::new(),
            email: None,
            display_name: None,
            installation_operator: false,
            on_behalf_of: None,
        },
        groups: (0..8).map(|at| format!("group-{at}")).chain(["payments".to_owned()]).collect(),
        action: action.into(),
        resource: Resource {
            name: "organizations/acme/projects/hello/environments/dev".into(),
            exists: true,
            kind: "provisioning.pavior.dev/Environment".into(),
            owner: Some(group("payments")),
            project: Some("hello".into()),
            environment_class_id: Some("development".into()),
            labels: [("team".to_owned(), "payments".to_owned())].into(),
        },
        stage: Stage::Plan,
        plan_follows: false,
        context: Context {
            create_count: 4,
            parameters: [("size".to_owned(), "s".to_owned()), ("name".to_owned(), "x".to_owned())].into(),
            plan_digest: Some("d".into()),
            ..Context::default()
        },
    }
}

fn decide(c: &mut Criterion) {
    let action = |name: &str, change| Action { name: name.into(), change, internal: false };
    let actions = Actions::new([action(CREATE, true), action(GET, false)]);
    let Ok(schema) = PolicySchema::new(actions) else { return };
    let schema = Arc::new(schema);
    let Ok(pattern) = Pattern::parse("provisioning.*") else { return };
    let role = Role { id: "dev".into(), actions: vec![pattern] };
    let bindings = (0..50).map(|at| RoleBinding {
        id: format!("b{at}"),
        role: "dev".into(),
        members: [Member::Group(if at == 25 { "payments".into() } else { format!("team-{at}") })].into(),
        project: None,
        reach: if at == 25 { Reach::Owned } else { Reach::All },
    });
    let roles = RoleIndex::new([role], bindings);
    let Ok(compilation) = Compilation::new(schema.clone(), "acme", "r".into(), roles, policies(&schema))
    else {
        return;
    };
    for (name, action) in [("read, roles alone", GET), ("change, 100 policies", CREATE)] {
        let asked = input(action);
        assert_eq!(compilation.decide(&asked, None).effect, Effect::Allow, "{name}");
        c.bench_function(name, |b| b.iter(|| black_box(compilation.decide(black_box(&asked), None))));
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);

//! Builders that the tests of the domain share.

mod decisions;
mod fail_open;
mod people;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pavior_core::principal::EVERYONE;
use pavior_core::{Principal, PrincipalKind};

use super::action::{Action, Actions, Pattern};
use super::combine::Outcome;
use super::engine::{Binding, BoundPolicy, Compilation};
use super::input::{Context, GivenApproval, GroupRef, Input, Resource, Stage};
use super::policy::PolicyType;
use super::policy_binding::Mode;
use super::role::Role;
use super::role_binding::{Member, Reach, RoleBinding};
use super::role_index::RoleIndex;
use super::schema::PolicySchema;
use super::source::check;

pub(crate) fn user(id: &str) -> Principal {
    Principal {
        kind: PrincipalKind::User,
        name: format!("organizations/acme/users/{id}"),
        organization: "acme".into(),
        subject: id.into(),
        groups: Vec::new(),
        email: None,
        display_name: None,
        installation_operator: false,
        on_behalf_of: None,
    }
}

const CREATE: &str = "provisioning.environments.create";
const DELETE: &str = "provisioning.environments.delete";
const GET: &str = "provisioning.environments.get";
const ENTITY: &str = "catalog.entities.update";
const DIRECTORY: &str = "catalog.directory.get";
const BINDINGS: &str = "policy.policyBindings.update";

fn schema() -> Arc<PolicySchema> {
    let action = |name: &str, change, internal| Action { name: name.to_owned(), change, internal };
    let actions = [
        action(CREATE, true, false),
        action("catalog.entities.delete", true, false),
        action(DELETE, true, false),
        action(GET, false, false),
        action(ENTITY, true, false),
        action(DIRECTORY, false, true),
        action(BINDINGS, true, false),
    ];
    Arc::new(PolicySchema::new(Actions::new(actions)).unwrap())
}

fn group(id: &str) -> GroupRef {
    GroupRef { id: id.to_owned(), above: BTreeSet::new() }
}

fn input(who: &str, groups: &[&str], action: &str) -> Input {
    Input {
        organization: "acme".into(),
        principal: user(who),
        groups: groups.iter().chain(&[EVERYONE]).map(|group| (*group).to_owned()).collect(),
        action: action.into(),
        resource: Resource {
            name: "organizations/acme/projects/hello".into(),
            exists: true,
            kind: "provisioning.pavior.dev/Project".into(),
            owner: Some(group("payments")),
            project: Some("hello".into()),
            environment_class_id: None,
            labels: BTreeMap::new(),
        },
        stage: Stage::Plan,
        plan_follows: false,
        context: Context { plan_digest: Some("d1".into()), ..Context::default() },
    }
}

fn role(id: &str, actions: &[&str]) -> Role {
    Role { id: id.into(), actions: actions.iter().map(|text| Pattern::parse(text).unwrap()).collect() }
}

fn grant(id: &str, role: &str, members: &[Member]) -> RoleBinding {
    let members = members.iter().cloned().collect();
    RoleBinding { id: id.into(), role: role.into(), members, project: None, reach: Reach::All }
}

fn everybody() -> Member {
    Member::Group(EVERYONE.into())
}

fn everyone() -> RoleIndex {
    RoleIndex::new([role("all", &["*"])], [grant("everyone", "all", &[everybody()])])
}

fn bound(id: &str, kind: PolicyType, text: &str, mode: Mode) -> BoundPolicy {
    let policy = check(text, kind, &schema(), "acme").map(Arc::new).map_err(|problems| problems.join("; "));
    let binding = Binding { projects: BTreeSet::new(), environment_class_ids: BTreeSet::new(), mode };
    BoundPolicy { id: id.into(), revision: 1, kind, policy: Ok(policy.unwrap()), bindings: vec![binding] }
}

fn compile(roles: RoleIndex, policies: Vec<BoundPolicy>) -> Compilation {
    Compilation::new(schema(), "acme", "r1".into(), roles, policies).unwrap()
}

fn approval(digest: &str, requirements: &[(&str, u32)]) -> GivenApproval {
    let requirements = requirements.iter().map(|(group, quorum)| ((*group).to_owned(), *quorum)).collect();
    GivenApproval { approved: true, plan_digest: digest.into(), requirements }
}

fn ids(outcome: &Outcome) -> Vec<&str> {
    outcome.reasons.iter().map(|reason| reason.rule_id.as_str()).collect()
}

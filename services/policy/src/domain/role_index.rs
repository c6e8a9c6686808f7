//! The roles and role bindings of an organization by member, so that a grant is looked up rather than evaluated; and the
//! same grants as Cedar policies, against which the look-up is property-tested.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pavior_core::PrincipalKind;

use super::entities;
use super::input::Input;
use super::role::Role;
use super::role_binding::{Member, Reach, RoleBinding};

/// Every role and binding of an organization, by member.
#[derive(Debug, Clone, Default)]
pub struct RoleIndex {
    roles: BTreeMap<String, Role>,
    bindings: Vec<RoleBinding>,
    by_member: HashMap<Member, Vec<usize>>,
}

impl RoleIndex {
    /// Builds the index. A binding of a role that does not exist grants nothing.
    pub fn new(
        roles: impl IntoIterator<Item = Role>,
        bindings: impl IntoIterator<Item = RoleBinding>,
    ) -> Self {
        let roles = roles.into_iter().map(|role| (role.id.clone(), role)).collect();
        let mut bindings: Vec<RoleBinding> = bindings.into_iter().collect();
        bindings.sort_by(|a, b| a.id.cmp(&b.id));
        let mut by_member = HashMap::<Member, Vec<usize>>::new();
        for (at, binding) in bindings.iter().enumerate() {
            for member in &binding.members {
                by_member.entry(member.clone()).or_default().push(at);
            }
        }
        Self { roles, bindings, by_member }
    }

    /// The ids of the bindings that grant what is asked, in order.
    pub fn granting(&self, input: &Input) -> Vec<&RoleBinding> {
        if !input.is_member() {
            return Vec::new();
        }
        let groups = input.groups.iter().map(|group| Member::Group(group.clone()));
        let of = |member: Member| self.by_member.get(&member).into_iter().flatten().copied();
        let mut found: BTreeSet<usize> = of(Member::Principal(input.principal.name.clone())).collect();
        found.extend(groups.flat_map(of));
        let bindings = found.into_iter().filter_map(|at| self.bindings.get(at));
        bindings.filter(|binding| self.role_grants(binding, &input.action) && binding.holds(input)).collect()
    }

    /// As [`RoleIndex::granting`], from the definition and without the index: the reference for tests.
    pub fn granting_directly(&self, input: &Input) -> Vec<&RoleBinding> {
        let all = self.bindings.iter().filter(|_| input.is_member());
        all.filter(|b| self.role_grants(b, &input.action) && b.names(input) && b.holds(input)).collect()
    }

    fn role_grants(&self, binding: &RoleBinding, action: &str) -> bool {
        self.roles.get(&binding.role).is_some_and(|role| role.grants(action))
    }

    /// The ids of the roles that would grant an action, at most `limit`.
    pub fn roles_granting(&self, action: &str, limit: usize) -> Vec<String> {
        self.roles
            .values()
            .filter(|role| role.grants(action))
            .take(limit)
            .map(|role| role.id.clone())
            .collect()
    }

    /// The same grants as Cedar policies, one for each member of each binding.
    pub fn to_cedar(&self, organization: &str) -> String {
        let mut text = String::new();
        for binding in &self.bindings {
            let Some(role) = self.roles.get(&binding.role) else { continue };
            let actions: Vec<String> = role
                .actions
                .iter()
                .map(|pattern| format!("Pavior::Action::{:?}", pattern.to_string()))
                .collect();
            for member in &binding.members {
                let principal = principal_scope(member, organization);
                let resource = match &binding.project {
                    Some(project) => {
                        format!(
                            "resource in Pavior::Project::\"organizations/{organization}/projects/{project}\""
                        )
                    }
                    None => "resource".to_owned(),
                };
                text.push_str(&format!(
                    "permit ({principal}, action in [{}], {resource})",
                    actions.join(", ")
                ));
                // Membership of the organization holds for every grant: names of another one never count.
                text.push_str(&format!(
                    " when {{ principal in Pavior::Organization::\"organizations/{organization}\" }}"
                ));
                if binding.reach == Reach::Owned {
                    text.push_str(
                        " when { if resource has owner then principal in resource.owner \
                         else context has new_owner && principal in context.new_owner }",
                    );
                }
                text.push_str(";\n");
            }
        }
        text
    }
}

fn principal_scope(member: &Member, organization: &str) -> String {
    let name = member.name(organization);
    let kind = match member {
        Member::Group(_) => return format!("principal in Pavior::Group::{name:?}"),
        Member::Principal(name) if name.contains("/serviceAccounts/") => PrincipalKind::ServiceAccount,
        Member::Principal(name) if name.contains("/agents/") => PrincipalKind::Agent,
        Member::Principal(_) => PrincipalKind::User,
    };
    format!("principal == Pavior::{}::{name:?}", entities::type_of(kind))
}

//! The tables of this service. Every function on the data of an organization takes a permit and sees the permit's
//! organization only; those named `…_unscoped` are for background work on all organizations.

mod approval;
mod column;
mod decision;
mod entity;
mod migration;
mod organization_revision;
mod policy;
mod policy_binding;
mod policy_revision;
mod restore;
mod role;
mod role_binding;
#[cfg(test)]
mod tests;

use pavior_resource::Purge;

use crate::domain::policy::PolicyFields;
use crate::domain::policy_binding::PolicyBindingFields;
use crate::domain::role::RoleFields;
use crate::domain::role_binding::RoleBindingFields;

pub(crate) use approval::{
    approval_by_id, approval_for_plan, approvals_by_ids, due_approvals, due_organizations_unscoped,
    insert_vote, with_votes,
};
pub(crate) use decision::{crowded_unscoped, insert_decisions_unscoped, sweep_decisions_unscoped};
pub use migration::Migrator;
pub(crate) use organization_revision::{bump_revision, lock_organization, read_revision};
pub(crate) use policy_binding::policy_bindings_of;
pub(crate) use policy_revision::{delete_revisions_of, trim_revisions_of};
pub use restore::Pending;
pub(crate) use restore::{invalidate_unscoped, pending_unscoped};
pub(crate) use role_binding::role_bindings_of;

/// Gives up what is deleted and no longer kept.
pub(crate) fn purges() -> Vec<Purge> {
    vec![
        Purge::of::<RoleFields>(),
        Purge::of::<RoleBindingFields>(),
        Purge::of::<PolicyFields>(),
        Purge::of::<PolicyBindingFields>(),
    ]
}

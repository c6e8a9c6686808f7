//! The tables of this service. Every method on an organization's data takes the permit that lets it, and sees the
//! permit's organization only; those named `…_unscoped` are for background work over all organizations.

mod approvals;
mod decisions;
mod entity;
mod lost;
mod migration;
mod policy_revisions;
mod revision;
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use approvals::{
    approval_by_id, approval_for_plan, approvals_by_ids, due_approvals, due_organizations_unscoped,
    insert_vote, with_votes,
};
pub(crate) use decisions::{crowded_unscoped, insert_decisions_unscoped, sweep_decisions_unscoped};
pub use lost::Pending;
pub(crate) use lost::{invalidate_unscoped, pending_unscoped};
pub use migration::Migrator;
pub(crate) use policy_revisions::{delete_revisions_of, trim_revisions_of};
pub(crate) use revision::{bump_revision, lock_organization, read_revision};
pub(crate) use sea_orm::ConnectionTrait;
pub(crate) use tables::{policy_bindings_of, role_bindings_of};

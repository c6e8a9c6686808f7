//! One module for each table.

#![allow(unreachable_pub)] // what the derives make is `pub`
pub(crate) mod approval;
pub(crate) mod approval_vote;
pub(crate) mod decision;
pub(crate) mod organization_revision;
pub(crate) mod policy;
pub(crate) mod policy_binding;
pub(crate) mod policy_revision;
pub(crate) mod role;
pub(crate) mod role_binding;

//! One module for each table.

#![allow(unreachable_pub, clippy::enum_variant_names)] // of what the derives make
pub(crate) mod approval;
pub(crate) mod approval_vote;
pub(crate) mod decision;
pub(crate) mod organization_revision;
pub(crate) mod policy;
pub(crate) mod policy_binding;
pub(crate) mod policy_revision;
pub(crate) mod role;
pub(crate) mod role_binding;

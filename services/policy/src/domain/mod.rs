//! The rules of policy: resources with their invariants, the evaluation of policies, and the life of an approval.
//! Without I/O and without a clock: a decision is a function of (policies, input).

pub mod action;
pub mod annotation;
pub mod approval;
pub mod combine;
pub mod decision;
pub mod directory;
pub mod engine;
pub mod entities;
pub mod input;
pub mod lexer;
pub mod message;
pub mod policy;
pub mod policy_binding;
pub mod policy_revision;
pub mod role;
pub mod role_binding;
pub mod role_index;
pub mod schema;
pub mod source;

#[cfg(test)]
mod tests;

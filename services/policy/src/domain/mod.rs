//! Pure rules of policy: what a role grants, what a policy may say, what a decision is, when an approval is given.
//! No I/O, no clock: a decision is a function of (policies, input).

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
pub mod record;
pub mod role;
pub mod schema;
pub mod source;

#[cfg(test)]
mod tests;

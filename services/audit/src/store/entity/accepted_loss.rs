//! Losses that an operator accepted: from which state each log went on, signed.

use sea_orm::entity::prelude::*;

/// A row of `audit_accepted`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_accepted")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    /// How often a loss of the log was accepted.
    pub generation: i64,
    /// The state that the log went on from.
    pub tree_size: i64,
    pub root_hash: Vec<u8>,
    /// How many numbers of producers were in no log then, over all of them.
    pub absent: i64,
    /// The signature over generation and state.
    pub note: String,
}

without_relations!();

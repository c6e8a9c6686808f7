//! Checkpoints: the newest signed note of each log.

use sea_orm::entity::prelude::*;

/// A row of `audit_checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_checkpoint")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    pub tree_size: i64,
    pub root_hash: Vec<u8>,
    pub note: String,
    pub verifier_key: String,
    pub sign_time: i64,
}

without_relations!();

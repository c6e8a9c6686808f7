//! Logs that are held: those that were found damaged and take no records until they are consistent again.

use sea_orm::entity::prelude::*;

/// A row of `audit_held`.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_held")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    pub why: String,
    /// How many events are parked for it, and their bytes.
    pub records: i64,
    pub bytes: i64,
    /// The state that the log must go on from to be released, when one is known.
    pub signed_size: Option<i64>,
    pub signed_root: Option<Vec<u8>>,
    /// The tile of records that must hash to the tree again, when one was found that does not.
    pub tile: Option<i64>,
}

without_relations!();

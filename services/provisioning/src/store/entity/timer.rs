//! Something that is due at a time.

use sea_orm::entity::prelude::*;

use crate::domain::timer::TimerKind;

/// A row.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "timer")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub organization: String,
    pub due: i64,
    pub kind: TimerKind,
    pub subject: String,
    pub attempt: i32,
}

unrelated!();

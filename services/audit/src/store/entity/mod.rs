//! The tables, a file each.

// SeaORM's derive macros want `pub` items; nothing of them leaves `store/`.
#![allow(unreachable_pub)]

/// Ends the declaration of a table that refers to no other.
macro_rules! without_relations {
    () => {
        /// It refers to nothing.
        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    };
}

pub(crate) mod accepted_loss;
pub(crate) mod checkpoint;
pub(crate) mod column;
pub(crate) mod head;
pub(crate) mod held_log;
pub(crate) mod parked_event;
pub(crate) mod producer;
pub(crate) mod record;
pub(crate) mod tile;

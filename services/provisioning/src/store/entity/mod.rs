//! The tables, one file each.

/// An entity without relations: rows are joined by name.
macro_rules! unrelated {
    () => {
        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    };
}

pub mod column;
pub mod deployment;
pub mod environment;
pub mod event;
pub mod log_chunk;
pub mod operation;
pub mod plan;
pub mod project;
pub mod resource;
pub mod run;
pub mod secret;
pub mod step;
pub mod timer;

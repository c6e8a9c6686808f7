//! `sql-database`, in two ways: a SQLite file, or a database with roles of its own on a PostgreSQL server.
//!
//! Both give the same contract: `url` is secret, so that a golden path reads the same on both.

mod address;
mod comment;
mod postgres;
mod scram;
mod sqlite;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inputs::{Declared, NAME};

pub(crate) use postgres::PostgresDriver;
pub(crate) use sqlite::SqliteDriver;

pub(crate) const TYPE: &str = "sql-database";

/// What a golden path says of a database.
pub(crate) static INPUTS: Declared<Inputs> = Declared::new();

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inputs {
    /// Part of the database's name; the resource's id when it is left out.
    #[schemars(regex(pattern = NAME))]
    pub(crate) name: Option<String>,
    /// How many connections it may have, where the server can limit them.
    #[serde(default)]
    pub(crate) size: Size,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Size {
    #[default]
    Small,
    Medium,
    Large,
}

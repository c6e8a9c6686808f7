//! `sql-database`, in two ways: a SQLite file, or a database with roles of its own on a PostgreSQL server.
//!
//! Both give the same contract: `url` is secret, so that a golden path reads the same on both.

mod address;
mod comment;
mod postgres;
mod scram;
mod sqlite;

use serde_json::{Value, json};

pub(crate) use postgres::PostgresDriver;
pub(crate) use sqlite::SqliteDriver;

pub(crate) const TYPE: &str = "sql-database";

pub(crate) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
                     "description": "Part of the database's name; the resource's id when it is left out."},
            "size": {"enum": ["small", "medium", "large"], "default": "small",
                     "description": "How many connections it may have, where the server can limit them."}
        }
    })
}

#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct Inputs {
    pub(crate) name: Option<String>,
    pub(crate) size: String,
}

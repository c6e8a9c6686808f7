//! Columns of JSON: objects of texts, such as labels, and arrays of them.

use pavior_core::filter::{Literal, Op, Wildcard};
use sea_orm::DbBackend;
use sea_orm::sea_query::Expr;

use super::{FilterError, fail};
use crate::sql;

pub(super) fn map(
    backend: DbBackend,
    name: &str,
    column: Expr,
    op: Op,
    value: &Literal,
) -> Result<Expr, FilterError> {
    match (op, value.wildcard(), value) {
        (Op::Has, Wildcard::None, value) if !matches!(value, Literal::Null) => {
            Ok(contains_key(backend, column, value.raw(), "key"))
        }
        (Op::Has, Wildcard::Any, _) => Ok(not_empty(backend, column, "{}")),
        _ => fail(name, "is a map: ask for a key with `:`, or for a value as in `labels.key = value`"),
    }
}

pub(super) fn list(
    backend: DbBackend,
    name: &str,
    column: Expr,
    op: Op,
    value: &Literal,
) -> Result<Expr, FilterError> {
    match (op, value.wildcard(), value) {
        (Op::Has, Wildcard::None, value) if !matches!(value, Literal::Null) => {
            Ok(contains_key(backend, column, value.raw(), "value"))
        }
        (Op::Has, Wildcard::Any, _) => Ok(not_empty(backend, column, "[]")),
        _ => fail(name, "is a list: ask for an element with `:`"),
    }
}

/// Whether a JSON object has a key, or an array a text as element.
fn contains_key(backend: DbBackend, column: Expr, wanted: &str, what: &'static str) -> Expr {
    let parts = [column, Expr::val(wanted)];
    match backend {
        DbBackend::Postgres => sql::expr(backend, "jsonb_exists({0}, {1})", &parts),
        _ if what == "key" => {
            sql::expr(backend, "EXISTS (SELECT 1 FROM json_each({0}) WHERE key = {1})", &parts)
        }
        _ => sql::expr(backend, "EXISTS (SELECT 1 FROM json_each({0}) WHERE value = {1})", &parts),
    }
}

fn not_empty(backend: DbBackend, column: Expr, empty: &'static str) -> Expr {
    let parts = [column, Expr::val(empty)];
    match backend {
        DbBackend::Postgres => sql::expr(backend, "{0} <> CAST({1} AS jsonb)", &parts),
        _ => sql::expr(backend, "json({0}) <> {1}", &parts),
    }
}

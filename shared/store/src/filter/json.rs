//! Columns of JSON: objects of texts, such as labels, and arrays of them.

use pavior_core::filter::{Literal, Op, Wildcard};
use sea_orm::DbBackend;
use sea_orm::sea_query::Expr;

use super::{FilterError, fail};
use crate::sql;

/// What a column of JSON is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object of texts, of which keys are asked for.
    Map,
    /// An array of texts, of which elements are asked for.
    List,
}

/// What `:` asks of a column of JSON: a key or an element, or any.
pub(super) fn has(
    backend: DbBackend,
    name: &str,
    column: Expr,
    shape: Shape,
    (op, value): (Op, &Literal),
) -> Result<Expr, FilterError> {
    match (op, value.wildcard(), value) {
        (Op::Has, Wildcard::None, value) if !matches!(value, Literal::Null) => {
            Ok(contains(backend, column, value.raw(), shape))
        }
        (Op::Has, Wildcard::Any, _) => Ok(not_empty(backend, column, shape)),
        _ => fail(
            name,
            match shape {
                Shape::Map => "is a map: ask for a key with `:`, or for a value as in `labels.key = value`",
                Shape::List => "is a list: ask for an element with `:`",
            },
        ),
    }
}

/// Whether a JSON object has a key, or an array a text as element.
fn contains(backend: DbBackend, column: Expr, wanted: &str, shape: Shape) -> Expr {
    let parts = [column, Expr::val(wanted)];
    let text = match (backend, shape) {
        (DbBackend::Postgres, _) => "jsonb_exists({0}, {1})",
        (_, Shape::Map) => "EXISTS (SELECT 1 FROM json_each({0}) WHERE key = {1})",
        (_, Shape::List) => "EXISTS (SELECT 1 FROM json_each({0}) WHERE value = {1})",
    };
    sql::expr(backend, text, &parts)
}

fn not_empty(backend: DbBackend, column: Expr, shape: Shape) -> Expr {
    let empty = match shape {
        Shape::Map => "{}",
        Shape::List => "[]",
    };
    let parts = [column, Expr::val(empty)];
    match backend {
        DbBackend::Postgres => sql::expr(backend, "{0} <> CAST({1} AS jsonb)", &parts),
        _ => sql::expr(backend, "json({0}) <> {1}", &parts),
    }
}

//! Small helpers for SQL that both databases understand.

use sea_orm::DbBackend;
use sea_orm::sea_query::Expr;

/// An expression from a template in which `{0}`, `{1}`… stand for `parts`.
///
/// SeaQuery counts placeholders by order on SQLite and by number on PostgreSQL; this hides the difference.
pub(crate) fn expr(backend: DbBackend, template: &str, parts: &[Expr]) -> Expr {
    let (mut sql, mut used) = (String::new(), Vec::new());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (number, after) = after.split_once('}').unwrap_or(("0", after));
        if let Some(part) = number.parse::<usize>().ok().and_then(|n| parts.get(n)) {
            used.push(part.clone());
        }
        sql.push_str(before);
        match backend {
            DbBackend::Postgres => sql.push_str(&format!("${}", used.len())),
            _ => sql.push('?'),
        }
        rest = after;
    }
    sql.push_str(rest);
    Expr::cust_with_exprs(sql, used)
}

/// Text compared byte by byte, as SQLite does by itself.
pub(crate) fn binary_text(backend: DbBackend, column: Expr) -> Expr {
    match backend {
        DbBackend::Postgres => expr(backend, "({0} COLLATE \"C\")", &[column]),
        _ => column,
    }
}

/// A time that can be ordered. On SQLite times are RFC 3339 text with as many decimals as are needed, and `Z` sorts
/// after digits: `…00.12Z` would come after `…00.123Z`. Without the `Z` the order is that of time.
pub(crate) fn ordered_time(backend: DbBackend, column: Expr) -> Expr {
    match backend {
        DbBackend::Sqlite => expr(backend, "rtrim({0}, 'Z')", &[column]),
        _ => column,
    }
}

//! AIP-160 filters → SQL conditions with bound values, the same results on SQLite and PostgreSQL.
//!
//! ```ignore
//! let fields = FieldMap::new(store.backend())
//!     .text("display_name", component::Column::DisplayName)
//!     .enumeration("lifecycle", component::Column::Lifecycle, [("PRODUCTION", "production")])
//!     .timestamp("create_time", component::Column::CreateTime)
//!     .json_map("labels", component::Column::Labels)
//!     .global(["display_name"]);
//! let condition = filter::condition(&Filter::parse(text)?, &fields)?;
//! ```
//!
//! What holds on both databases: text is compared by bytes and with regard to case; bare words ([`Filter::Global`])
//! are looked for in the global fields without regard to the case of ASCII letters; a comparison with an absent value
//! is false, `!=` included, and `NOT` turns exactly that around; `= null` asks for absence.

mod json;

use crate::keyset::{KeyKind, Keyset};
use crate::sql;
use pavior_core::clock::truncate;
use pavior_core::filter::{Filter, Literal, Op, Wildcard};
use pavior_core::name::is_full_name;
use pavior_core::nearest::listed;
use sea_orm::sea_query::{ExprTrait as _, IntoColumnRef};
use sea_orm::{Condition, DbBackend, Value, sea_query::Expr};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why a filter or ordering does not fit the fields; for a BadRequest on `filter` or `order_by`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {problem}")]
pub struct FilterError {
    /// The field, dotted.
    pub path: String,
    /// What is wrong, as a continuation of the path.
    pub problem: String,
}

#[derive(Debug, Clone)]
enum Kind {
    Text,
    Name,
    Enumeration(Vec<(String, Value)>),
    Timestamp { micros: bool },
    Bool,
    Number,
    Uuid,
    JsonMap,
    JsonList,
}

#[derive(Debug, Clone)]
struct Field {
    column: Expr,
    kind: Kind,
}

/// The fields of one resource that may stand in a filter, and where they are stored.
#[derive(Debug, Clone)]
pub struct FieldMap {
    backend: DbBackend,
    fields: BTreeMap<String, Field>,
    global: Vec<String>,
}

impl FieldMap {
    /// No fields yet. `backend` is [`crate::Store::backend`].
    pub fn new(backend: DbBackend) -> Self {
        Self { backend, fields: BTreeMap::new(), global: Vec::new() }
    }

    /// A text column.
    #[must_use]
    pub fn text(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Text)
    }

    /// A column of full resource names, empty where there is none. What it is compared with as a whole must be such a
    /// name, or the answer would be empty whatever there is.
    #[must_use]
    pub fn name(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Name)
    }

    /// Text that is made of several columns, such as a resource name; see also [`FieldMap::text`].
    #[must_use]
    pub fn text_expr(self, path: &str, expr: Expr) -> Self {
        self.with(path, expr, Kind::Text)
    }

    /// A column of an enum: names of the API with what is stored for each.
    #[must_use]
    pub fn enumeration<N, V>(
        self,
        path: &str,
        column: impl IntoColumnRef,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Self
    where
        N: Into<String>,
        V: Into<Value>,
    {
        let values = values.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.with(path, Expr::col(column), Kind::Enumeration(values))
    }

    /// A time as SeaORM's `TimeDateTimeWithTimeZone`, always written in UTC.
    #[must_use]
    pub fn timestamp(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Timestamp { micros: false })
    }

    /// A time as whole microseconds in a big integer ([`crate::micros`]).
    #[must_use]
    pub fn timestamp_micros(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Timestamp { micros: true })
    }

    /// A boolean column.
    #[must_use]
    pub fn bool(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Bool)
    }

    /// What follows from other columns, yes or no; see also [`FieldMap::bool`].
    #[must_use]
    pub fn bool_expr(self, path: &str, expr: Expr) -> Self {
        self.with(path, expr, Kind::Bool)
    }

    /// An integer or floating point column.
    #[must_use]
    pub fn number(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Number)
    }

    /// A UUID column; only `=` and `!=`.
    #[must_use]
    pub fn uuid(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::Uuid)
    }

    /// A JSON object of texts, such as labels: `labels.team = "x"`, `labels:team`, `labels."a/b":*`.
    #[must_use]
    pub fn json_map(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::JsonMap)
    }

    /// A JSON array of texts, such as tags: `tags:foo`.
    #[must_use]
    pub fn json_list(self, path: &str, column: impl IntoColumnRef) -> Self {
        self.with(path, Expr::col(column), Kind::JsonList)
    }

    /// The text fields in which bare words are looked for.
    #[must_use]
    pub fn global<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.global.extend(paths.into_iter().map(Into::into));
        self
    }

    fn with(mut self, path: &str, column: Expr, kind: Kind) -> Self {
        self.fields.insert(path.to_owned(), Field { column, kind });
        self
    }

    /// The paging order for a parsed `order_by` ([`pavior_core::filter::order_by`]). `uid` makes it total; it must
    /// be a unique UUID column. The fields must not be null.
    pub fn keyset(
        &self,
        order: &[(Vec<String>, bool)],
        uid: impl IntoColumnRef,
    ) -> Result<Keyset, FilterError> {
        let mut keyset = Keyset::new(self.backend);
        for (path, descending) in order {
            let name = path.join(".");
            let known = self.fields.get(&name).and_then(|field| Some((field, sort_kind(&field.kind)?)));
            let Some((field, kind)) = known else {
                let sortable = self.fields.iter().filter(|(_, field)| sort_kind(&field.kind).is_some());
                return fail(&name, unsortable(&name, sortable.map(|(name, _)| name.as_str())));
            };
            keyset = keyset.key(field.column.clone(), kind, *descending);
        }
        Ok(keyset.key(Expr::col(uid), KeyKind::Uuid, false))
    }

    fn unknown(&self, path: &str) -> FilterError {
        let known: Vec<String> = self.fields.keys().map(|k| format!("`{k}`")).collect();
        FilterError {
            path: path.to_owned(),
            problem: format!("is not a field here; known are {}", known.join(", ")),
        }
    }
}

/// Why a field cannot stand in `order_by`, as a continuation of its name.
pub fn unsortable<'n>(name: &str, sortable: impl IntoIterator<Item = &'n str>) -> String {
    match listed(name, sortable) {
        known if known.is_empty() => "cannot be sorted by; no field here can".to_owned(),
        known => format!("cannot be sorted by; what can is {known}"),
    }
}

/// How a field is sorted, if it can be.
fn sort_kind(kind: &Kind) -> Option<KeyKind> {
    match kind {
        Kind::Text => Some(KeyKind::Text),
        Kind::Timestamp { micros: false } => Some(KeyKind::Time),
        Kind::Timestamp { micros: true } | Kind::Number => Some(KeyKind::Number),
        _ => None,
    }
}

/// Compiles a filter. An empty filter gives a condition that is always true.
pub fn condition(filter: &Filter, fields: &FieldMap) -> Result<Condition, FilterError> {
    match filter {
        Filter::And(items) => {
            items.iter().try_fold(Condition::all(), |all, item| Ok(all.add(condition(item, fields)?)))
        }
        Filter::Or(items) => {
            items.iter().try_fold(Condition::any(), |any, item| Ok(any.add(condition(item, fields)?)))
        }
        // Absent values make a comparison NULL; for NOT that must count as false.
        Filter::Not(inner) => {
            let inner = Expr::from(condition(inner, fields)?);
            Ok(Condition::all().add(sql::expr(fields.backend, "NOT COALESCE({0}, FALSE)", &[inner])))
        }
        Filter::Restriction { path, op, value } => {
            restriction(fields, path, *op, value).map(|expr| Condition::all().add(expr))
        }
        Filter::Global(text) => global(fields, text),
    }
}

fn global(fields: &FieldMap, text: &str) -> Result<Condition, FilterError> {
    check_text(text, text)?;
    if fields.global.is_empty() {
        return fail(text, "stands alone; name a field, as in `field = value`");
    }
    let wanted = Expr::val(text.trim_matches('*').to_ascii_lowercase());
    let mut any = Condition::any();
    for field in fields.global.iter().filter_map(|path| fields.fields.get(path)) {
        // With collation C only ASCII is lowered, as in SQLite.
        let column = match fields.backend {
            DbBackend::Postgres => {
                sql::expr(fields.backend, "lower({0} COLLATE \"C\")", std::slice::from_ref(&field.column))
            }
            _ => sql::expr(fields.backend, "lower({0})", std::slice::from_ref(&field.column)),
        };
        any = any.add(position(fields.backend, column, wanted.clone()));
    }
    Ok(any)
}

fn restriction(fields: &FieldMap, path: &[String], op: Op, value: &Literal) -> Result<Expr, FilterError> {
    let name = path.join(".");
    check_text(&name, value.raw())?;
    check_text(&name, &name)?;
    if let Some(field) = fields.fields.get(&name) {
        return compare(fields.backend, &name, field, op, value);
    }
    match path.split_first().and_then(|(map, rest)| Some((fields.fields.get(map)?, rest))) {
        Some((Field { column, kind: Kind::JsonMap }, [key])) => {
            let key = Expr::val(key.as_str());
            let entry = match fields.backend {
                DbBackend::Postgres => sql::expr(fields.backend, "({0} ->> {1})", &[column.clone(), key]),
                _ => sql::expr(
                    fields.backend,
                    "(SELECT CAST(value AS TEXT) FROM json_each({0}) WHERE key = {1})",
                    &[column.clone(), key],
                ),
            };
            // An empty text is a value of its own here: what counts is whether the key is there.
            if value.wildcard() == Wildcard::Any {
                return Ok(if op == Op::Ne { entry.is_null() } else { entry.is_not_null() });
            }
            compare_text(fields.backend, &name, entry, op, value)
        }
        Some((Field { kind: Kind::JsonMap, .. }, _)) => {
            fail(&name, "goes too deep; a key with dots must be quoted, as in `labels.\"a.b\"`")
        }
        _ => Err(fields.unknown(&name)),
    }
}

fn compare(
    backend: DbBackend,
    name: &str,
    field: &Field,
    op: Op,
    value: &Literal,
) -> Result<Expr, FilterError> {
    let column = field.column.clone();
    match &field.kind {
        Kind::Text => return compare_text(backend, name, column, op, value),
        Kind::Name => return compare_name(backend, name, column, op, value),
        Kind::JsonMap => return json::has(backend, name, column, json::Shape::Map, (op, value)),
        Kind::JsonList => return json::has(backend, name, column, json::Shape::List, (op, value)),
        _ => {}
    }
    if let Some(expr) = presence(&column, op, value) {
        return Ok(expr);
    }
    if value.wildcard() != Wildcard::None {
        return fail(name, "is not text and takes no wildcard but `*` alone");
    }
    let raw = value.raw();
    let (column, wanted) = match &field.kind {
        Kind::Enumeration(values) => {
            // A value may be written as it stands in the proto, with the field's name in front: `STATE_ACTIVE`.
            let prefix = format!("{}_", name.rsplit('.').next().unwrap_or(name).to_uppercase());
            let bare = raw.strip_prefix(&prefix).unwrap_or(raw);
            let stored = values.iter().find(|(known, _)| known == raw || known == bare);
            let Some((_, stored)) = stored else {
                let known: Vec<String> = values.iter().map(|(n, _)| format!("`{n}`")).collect();
                return fail(name, format!("has no value `{raw}`; known are {}", known.join(", ")));
            };
            equality_only(name, op)?;
            (column, Expr::val(stored.clone()))
        }
        Kind::Bool => {
            equality_only(name, op)?;
            match raw {
                "true" => (column, Expr::val(true)),
                "false" => (column, Expr::val(false)),
                _ => return fail(name, format!("must be `true` or `false`, not `{raw}`")),
            }
        }
        Kind::Uuid => {
            equality_only(name, op)?;
            let uuid =
                uuid::Uuid::try_parse(raw).or_else(|_| fail(name, format!("must be a UUID, not `{raw}`")))?;
            (column, Expr::val(uuid))
        }
        Kind::Number => match (raw.parse::<i64>(), raw.parse::<f64>()) {
            (Ok(n), _) => (column, Expr::val(n)),
            // The cast makes the statement's text differ from that with an integer: the PostgreSQL driver keeps
            // prepared statements by their text alone, and would send a float where an integer was prepared.
            (_, Ok(n)) if n.is_finite() => {
                (column, sql::expr(backend, "CAST({0} AS double precision)", &[Expr::val(n)]))
            }
            _ => return fail(name, format!("must be a number, not `{raw}`")),
        },
        Kind::Timestamp { micros } => {
            let time = parse_time(raw).ok_or(()).or_else(|()| {
                fail(name, format!("must be a time as in `2026-01-31T12:00:00Z`, not `{raw}`"))
            })?;
            if *micros {
                (column, Expr::val(crate::micros(time)))
            } else {
                (sql::ordered_time(backend, column), sql::ordered_time(backend, Expr::val(time)))
            }
        }
        Kind::Text | Kind::Name | Kind::JsonMap | Kind::JsonList => return fail(name, "cannot be compared"),
    };
    Ok(ordering(column, op, wanted))
}

/// `= null`, `!= null` and `:*`, which are the same for all types.
fn presence(column: &Expr, op: Op, value: &Literal) -> Option<Expr> {
    match (value, op) {
        (Literal::Null, Op::Eq) => Some(column.clone().is_null()),
        (Literal::Null, Op::Ne) => Some(column.clone().is_not_null()),
        (Literal::Text { wildcard: Wildcard::Any, .. }, Op::Ne) => Some(column.clone().is_null()),
        (Literal::Text { wildcard: Wildcard::Any, .. }, _) => Some(column.clone().is_not_null()),
        _ => None,
    }
}

fn compare_text(
    backend: DbBackend,
    name: &str,
    column: Expr,
    op: Op,
    value: &Literal,
) -> Result<Expr, FilterError> {
    if let Literal::Text { wildcard: Wildcard::Any, .. } = value {
        // Present means not empty (AIP-160).
        let present = column.clone().is_not_null().and(column.ne(""));
        return Ok(if op == Op::Ne { present.not() } else { present });
    }
    if let Some(expr) = presence(&column, op, value) {
        return Ok(expr);
    }
    if matches!(value, Literal::Null) {
        return fail(name, "can be compared with `null` only by `=` and `!=`");
    }
    let wanted = Expr::val(value.raw());
    let length = Expr::val(i64::try_from(value.raw().chars().count()).unwrap_or(i64::MAX));
    let part = match (value.wildcard(), op) {
        (Wildcard::None, Op::Has) | (Wildcard::Contains, _) => {
            return Ok(negate(op, position(backend, column, wanted)));
        }
        (Wildcard::None, Op::Eq | Op::Ne) => column,
        (Wildcard::Prefix, _) => {
            sql::expr(backend, "substr({0}, 1, CAST({1} AS INTEGER))", &[column, length])
        }
        (Wildcard::Suffix, _) if backend == DbBackend::Postgres => {
            sql::expr(backend, "right({0}, CAST({1} AS INTEGER))", &[column, length])
        }
        (Wildcard::Suffix, _) => sql::expr(backend, "substr({0}, -{1})", &[column, length]),
        _ => return Ok(ordering(sql::binary_text(backend, column), op, wanted)),
    };
    Ok(if op == Op::Ne { part.ne(wanted) } else { part.eq(wanted) })
}

fn compare_name(
    backend: DbBackend,
    name: &str,
    column: Expr,
    op: Op,
    value: &Literal,
) -> Result<Expr, FilterError> {
    match (value, op) {
        (Literal::Null, Op::Eq) => return Ok(column.eq("")),
        (Literal::Null, Op::Ne) => return Ok(column.ne("")),
        _ => {}
    }
    let whole = value.wildcard() == Wildcard::None && op != Op::Has;
    if whole && !matches!(value, Literal::Null) && !is_full_name(value.raw()) {
        let problem =
            "must be a full resource name as in `organizations/acme/users/alice`, or with `*` a part of one";
        return fail(name, format!("{problem}, not `{}`", value.raw()));
    }
    compare_text(backend, name, column, op, value)
}

fn position(backend: DbBackend, column: Expr, wanted: Expr) -> Expr {
    match backend {
        DbBackend::Postgres => sql::expr(backend, "strpos({0}, {1}) > 0", &[column, wanted]),
        _ => sql::expr(backend, "instr({0}, {1}) > 0", &[column, wanted]),
    }
}

fn negate(op: Op, expr: Expr) -> Expr {
    if op == Op::Ne { expr.not() } else { expr }
}

fn ordering(column: Expr, op: Op, wanted: Expr) -> Expr {
    match op {
        Op::Eq | Op::Has => column.eq(wanted),
        Op::Ne => column.ne(wanted),
        Op::Lt => column.lt(wanted),
        Op::Le => column.lte(wanted),
        Op::Gt => column.gt(wanted),
        Op::Ge => column.gte(wanted),
    }
}

fn equality_only(name: &str, op: Op) -> Result<(), FilterError> {
    match op {
        Op::Eq | Op::Ne | Op::Has => Ok(()),
        _ => fail(name, format!("cannot be compared with `{}`", op.as_str())),
    }
}

/// RFC 3339, cut to microseconds as all stored times are; a bare date is its first moment in UTC.
pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339))
        .ok()
        .map(truncate)
}

/// PostgreSQL refuses U+0000 in text.
fn check_text(path: &str, text: &str) -> Result<(), FilterError> {
    if text.contains('\0') {
        fail(&path.replace('\0', ""), "must not be compared with U+0000")
    } else {
        Ok(())
    }
}

fn fail<T>(path: &str, problem: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError { path: path.to_owned(), problem: problem.into() })
}

//! The same filters on both databases give the same rows.

use super::{db, store, thing};
use pavior_core::filter::Filter;
use pavior_store::filter::{FieldMap, condition};
use pavior_store::{Store, StoreError};
use sea_orm::{ActiveModelTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _};
use serde_json::json;
use thing::Column;
use time::macros::datetime;
use uuid::Uuid;

fn things() -> Vec<thing::Model> {
    let base = |n: u128, name: &str| thing::Model {
        uid: Uuid::from_u128(n),
        name: name.to_owned(),
        title: None,
        lifecycle: "production".to_owned(),
        create_time: datetime!(2026-01-01 00:00 UTC),
        update_micros: 0,
        ready: false,
        size: None,
        labels: json!({}),
        tags: json!([]),
    };
    vec![
        thing::Model {
            title: Some("Web Shop".into()),
            labels: json!({"team": "payments", "a/b": "1", "we\"ird": "x"}),
            tags: json!(["red", "blue"]),
            ready: true,
            size: Some(10),
            ..base(1, "web")
        },
        thing::Model {
            title: Some("web 100%_*".into()),
            lifecycle: "experimental".into(),
            create_time: datetime!(2026-01-01 00:00:00.12 UTC),
            update_micros: 1_767_225_600_500_000,
            labels: json!({"team": "platform", "deprecated": "yes"}),
            size: Some(9),
            ..base(2, "web-api")
        },
        thing::Model {
            title: Some("Zürich ÄÖ".into()),
            create_time: datetime!(2026-01-01 00:00:00.123 UTC),
            labels: json!({"team": ""}),
            tags: json!(["red"]),
            size: Some(-5),
            ..base(3, "db")
        },
        thing::Model {
            title: Some(String::new()),
            create_time: datetime!(2026-02-01 00:00 UTC),
            ..base(4, "Zeta")
        },
        thing::Model { create_time: datetime!(2025-12-31 23:59:59.999999 UTC), ready: true, ..base(5, "_x") },
    ]
}

fn fields(store: &Store) -> FieldMap {
    FieldMap::new(store.backend())
        .uuid("uid", Column::Uid)
        .text("name", Column::Name)
        .text("title", Column::Title)
        .name("full.name", Column::Name)
        .enumeration(
            "lifecycle",
            Column::Lifecycle,
            [("PRODUCTION", "production"), ("EXPERIMENTAL", "experimental")],
        )
        .timestamp("create_time", Column::CreateTime)
        .timestamp_micros("update_time", Column::UpdateMicros)
        .bool("ready", Column::Ready)
        .number("size", Column::Size)
        .json_map("labels", Column::Labels)
        .json_list("tags", Column::Tags)
        .global(["name", "title"])
}

const TABLE: &[(&str, &[u128])] = &[
    ("", &[1, 2, 3, 4, 5]),
    ("name = web", &[1]),
    ("name = WEB", &[]),
    ("name != web", &[2, 3, 4, 5]),
    ("name = web*", &[1, 2]),
    ("name = \"*b\"", &[1, 3]),
    ("name = *e*", &[1, 2, 4]),
    ("name != web*", &[3, 4, 5]),
    ("name:eb", &[1, 2]),
    ("NOT name:eb", &[3, 4, 5]),
    ("name < a", &[4, 5]),
    ("name >= web", &[1, 2]),
    ("name = \"_*\"", &[5]),
    ("title:\"100%_\\*\"", &[2]),
    ("title = \"*%\"", &[]),
    ("title = null", &[5]),
    ("title != null", &[1, 2, 3, 4]),
    ("title:*", &[1, 2, 3]),
    ("-title:*", &[4, 5]),
    ("title != \"Web Shop\"", &[2, 3, 4]),
    ("NOT title = \"Web Shop\"", &[2, 3, 4, 5]),
    ("title = Zür*", &[3]),
    ("title = *ÄÖ", &[3]),
    ("web", &[1, 2]),
    ("SHOP", &[1]),
    ("zürich", &[3]),
    ("äö", &[]),
    ("web -shop", &[2]),
    ("lifecycle = PRODUCTION", &[1, 3, 4, 5]),
    ("lifecycle != PRODUCTION", &[2]),
    ("ready = true", &[1, 5]),
    ("ready = false AND name:b", &[2, 3]),
    ("size > 9", &[1]),
    ("size >= 9", &[1, 2]),
    ("size < 0", &[3]),
    ("size = -5", &[3]),
    ("size > 8.5", &[1, 2]),
    ("NOT size > 8.5", &[3, 4, 5]),
    ("size = null", &[4, 5]),
    ("create_time > \"2026-01-01T00:00:00Z\"", &[2, 3, 4]),
    ("create_time > \"2026-01-01T00:00:00.12Z\"", &[3, 4]),
    ("create_time <= \"2026-01-01T00:00:00.12Z\"", &[1, 2, 5]),
    ("create_time = \"2026-01-01T01:00:00+01:00\"", &[1]),
    ("create_time < \"2026-01-01T00:00:00.5Z\"", &[1, 2, 3, 5]),
    ("create_time >= 2026-02-01", &[4]),
    ("update_time > \"2026-01-01T00:00:00Z\"", &[2]),
    ("labels.team = payments", &[1]),
    ("labels.team:\"pay*\"", &[1]),
    ("labels.team = p*", &[1, 2]),
    ("labels.team != payments", &[2, 3]),
    ("-labels.team = payments", &[2, 3, 4, 5]),
    ("labels.team:*", &[1, 2, 3]),
    ("labels:team", &[1, 2, 3]),
    ("labels.\"a/b\" = 1", &[1]),
    ("labels.\"we\\\"ird\" = x", &[1]),
    ("labels.\"' OR 1=1 --\" = x", &[]),
    ("labels:*", &[1, 2, 3]),
    ("-labels.deprecated:*", &[1, 3, 4, 5]),
    ("tags:red", &[1, 3]),
    ("tags:re", &[]),
    ("tags:*", &[1, 3]),
    ("uid = 00000000-0000-0000-0000-000000000003", &[3]),
    ("name = web OR name = db AND ready = true", &[1]),
    ("(name = db) OR (ready = true AND name = web)", &[1, 3]),
    ("NOT (name = db OR name = web)", &[2, 4, 5]),
    ("name = \"x'; DROP TABLE things; --\"", &[]),
    ("full.name = \"organizations/acme/things/web\"", &[]),
    ("full.name != \"organizations/acme/things/web\"", &[1, 2, 3, 4, 5]),
    ("full.name = web*", &[1, 2]),
    ("full.name:eb", &[1, 2]),
    ("full.name = null", &[]),
    ("full.name:*", &[1, 2, 3, 4, 5]),
];

async fn select(store: &Store, text: &str) -> Vec<u128> {
    let condition = condition(&Filter::parse(text).unwrap(), &fields(store)).unwrap();
    let rows = thing::Entity::find().filter(condition).all(store.read()).await;
    let mut ids: Vec<u128> =
        rows.unwrap_or_else(|e| panic!("{text}: {e}")).iter().map(|row| row.uid.as_u128()).collect();
    ids.sort_unstable();
    ids
}

async fn fill(store: &Store) {
    store
        .upkeep("a test", |tx| {
            Box::pin(async move {
                for thing in things() {
                    thing.into_active_model().insert(tx).await?;
                }
                Ok::<_, StoreError>(())
            })
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn filters_give_the_same_rows_on_both_databases() {
    db::both(|db| async move {
        let store = store(&db).await;
        fill(&store).await;
        for (text, want) in TABLE {
            assert_eq!(select(&store, text).await, *want, "`{text}` on {}", db.kind);
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_that_does_not_fit_is_refused_with_the_fields_that_do() {
    let db = db::sqlite();
    let fields = fields(&store(&db).await);
    for name in ["nmae", "labels"] {
        let error = fields.keyset(&[(vec![name.to_owned()], false)], Column::Uid).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{name}` cannot be sorted by; what can is `")), "{error}");
        let (_, known) = error.split_once("; ").unwrap();
        assert!(known.contains("`create_time`") && !known.contains("`labels`"), "{error}");
    }
}

#[tokio::test]
async fn filters_that_do_not_fit_are_refused_with_a_reason() {
    let db = db::sqlite();
    let store = store(&db).await;
    for (text, reason) in [
        ("nmae = x", "`nmae` is not a field here; known are `create_time`"),
        ("lifecycle = DEAD", "`lifecycle` has no value `DEAD`; known are `PRODUCTION`, `EXPERIMENTAL`"),
        ("lifecycle > PRODUCTION", "`lifecycle` cannot be compared with `>`"),
        ("lifecycle = PROD*", "`lifecycle` is not text and takes no wildcard but `*` alone"),
        ("ready = maybe", "`ready` must be `true` or `false`, not `maybe`"),
        ("size = big", "`size` must be a number, not `big`"),
        (
            "create_time > yesterday",
            "`create_time` must be a time as in `2026-01-31T12:00:00Z`, not `yesterday`",
        ),
        (
            "full.name = hello",
            "`full.name` must be a full resource name as in `organizations/acme/users/alice`, or with `*` a part of \
             one, not `hello`",
        ),
        ("full.name != \"\"", "`full.name` must be a full resource name"),
        ("full.name < users/alice", "`full.name` must be a full resource name"),
        ("name.first = x", "`name.first` is not a field here"),
        ("labels = x", "`labels` is a map"),
        ("labels.a.b = x", "`labels.a.b` goes too deep"),
        ("tags = x", "`tags` is a list"),
        ("uid = 1", "`uid` must be a UUID, not `1`"),
        ("name = \"a\u{0}b\"", "must not be compared with U+0000"),
        ("title < null", "can be compared with `null` only by"),
    ] {
        let error = condition(&Filter::parse(text).unwrap(), &fields(&store)).unwrap_err().to_string();
        assert!(error.contains(reason), "`{text}`: {error}");
    }
}

/// What each combination of field, operator and value selects; `None` where it is refused.
async fn all_combinations(db: &db::TestDb) -> Vec<(String, Option<Vec<u128>>)> {
    let fields = [
        "name",
        "title",
        "lifecycle",
        "create_time",
        "update_time",
        "ready",
        "size",
        "labels",
        "tags",
        "labels.team",
    ];
    let ops = ["=", "!=", "<", "<=", ">", ">=", ":"];
    let values = [
        "web",
        "\"\"",
        "*",
        "pay*",
        "*b",
        "*e*",
        "PRODUCTION",
        "true",
        "null",
        "9",
        "-5",
        "8.5",
        "1e300",
        "team",
        "red",
        "\"2026-01-01T00:00:00.12Z\"",
        "2026-01-01",
        "\"100%\"",
        "\"_\"",
        "\"'\"",
        "ä*",
    ];
    let store = store(db).await;
    fill(&store).await;
    let mut out = Vec::new();
    let mut texts = Vec::new();
    for field in fields {
        for op in ops {
            texts.extend(values.iter().map(|value| format!("{field} {op} {value}")));
        }
    }
    for positive in texts {
        for text in [positive.clone(), format!("NOT {positive}")] {
            let parsed = Filter::parse(&text).ok();
            let fits = parsed.is_some_and(|filter| condition(&filter, &self::fields(&store)).is_ok());
            let rows = if fits { Some(select(&store, &text).await) } else { None };
            out.push((text, rows));
        }
    }
    out
}

#[tokio::test]
async fn every_combination_of_field_operator_and_value_agrees() {
    let sqlite = all_combinations(&db::sqlite()).await;
    assert!(sqlite.iter().filter(|(_, rows)| rows.is_some()).count() > 800);
    for pair in sqlite.chunks_exact(2) {
        if let [(text, Some(yes)), (_, Some(no))] = pair {
            assert_eq!(yes.len() + no.len(), 5, "`{text}` and its negation");
        }
    }
    let Some(db) = db::postgres().await else { return };
    for (a, b) in sqlite.iter().zip(all_combinations(&db).await.iter()) {
        assert_eq!(a, b);
    }
}

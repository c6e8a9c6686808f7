//! Keyset paging.

use super::{db, store, thing};
use pavior_core::filter::order_by;
use pavior_store::filter::FieldMap;
use pavior_store::keyset::{Keyset, PositionError, position};
use pavior_store::{Store, StoreError};
use sea_orm::{
    ActiveModelTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QuerySelect as _,
};
use serde_json::{Value, json};
use thing::Column;
use time::macros::datetime;
use uuid::Uuid;

async fn insert(store: &Store, n: u128, name: &str, micros: i64, size: i64) {
    let thing = thing::Model {
        uid: Uuid::from_u128(n),
        name: name.to_owned(),
        title: None,
        lifecycle: "production".to_owned(),
        create_time: datetime!(2026-01-01 00:00 UTC) + time::Duration::microseconds(micros),
        update_micros: 0,
        ready: false,
        size: Some(size),
        labels: json!({}),
        tags: json!([]),
    };
    store
        .upkeep("a test", move |tx| {
            let thing = thing.clone();
            Box::pin(async move { thing.into_active_model().insert(tx).await.map_err(StoreError::from) })
        })
        .await
        .unwrap();
}

fn keyset(store: &Store, order: &str) -> Keyset {
    FieldMap::new(store.backend())
        .text("name", Column::Name)
        .timestamp("create_time", Column::CreateTime)
        .number("size", Column::Size)
        .bool("ready", Column::Ready)
        .keyset(&order_by(order).unwrap(), Column::Uid)
        .unwrap()
}

async fn page(store: &Store, keyset: &Keyset, after: Option<&Value>, size: u64) -> Vec<thing::Model> {
    let mut select = keyset.order(thing::Entity::find()).limit(size);
    if let Some(after) = after {
        select = select.filter(keyset.after(after).unwrap());
    }
    select.all(store.read()).await.unwrap()
}

fn place(order: &str, row: &thing::Model) -> Value {
    let mut keys: Vec<Value> = order_by(order)
        .unwrap()
        .iter()
        .map(|(path, _)| match path[0].as_str() {
            "name" => json!(row.name),
            "create_time" => position::time(row.create_time),
            _ => json!(row.size),
        })
        .collect();
    keys.push(position::uuid(row.uid));
    Value::Array(keys)
}

#[tokio::test]
async fn pages_follow_the_order_without_loss_or_repetition() {
    db::both(|db| async move {
        let store = store(&db).await;
        // Names in which the order of bytes differs from that of a dictionary, times with different decimals.
        let names = ["a", "B", "a-b", "ab", "_", "Z", "ä", "z", "a1", "A"];
        let micros = [120_000, 123_000, 0, 100_000, 123_456, 1, 10, 999_999, 120_000, 0];
        for (i, (name, micros)) in names.iter().zip(micros).enumerate() {
            insert(&store, i as u128 + 1, name, micros, i as i64 % 3).await;
        }
        let mut by_name = names.to_vec();
        by_name.sort_unstable();
        for order in
            ["name", "name desc", "create_time, name", "create_time desc", "size desc, create_time", ""]
        {
            let keyset = keyset(&store, order);
            let all = page(&store, &keyset, None, 100).await;
            for size in [1, 3, 4, 10] {
                let (mut rows, mut after): (Vec<thing::Model>, _) = (Vec::new(), None);
                loop {
                    let next = page(&store, &keyset, after.as_ref(), size).await;
                    let Some(last) = next.last() else { break };
                    after = Some(place(order, last));
                    rows.extend(next);
                }
                assert_eq!(rows, all, "`{order}` by {size} on {}", db.kind);
            }
            match order {
                "name" => assert_eq!(
                    all.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
                    by_name,
                    "{}",
                    db.kind
                ),
                "create_time, name" => {
                    assert!(all.windows(2).all(|w| w[0].create_time <= w[1].create_time), "{}", db.kind);
                }
                "create_time desc" => {
                    assert!(all.windows(2).all(|w| w[0].create_time >= w[1].create_time), "{}", db.kind);
                }
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn inserts_between_pages_move_no_row_to_another_page() {
    db::both(|db| async move {
        let store = store(&db).await;
        for (i, name) in ["b", "d", "f", "h"].iter().enumerate() {
            insert(&store, i as u128 + 1, name, 0, 0).await;
        }
        let keyset = keyset(&store, "name");
        let first = page(&store, &keyset, None, 2).await;
        insert(&store, 10, "a", 0, 0).await;
        insert(&store, 11, "c", 0, 0).await;
        insert(&store, 12, "e", 0, 0).await;
        let second = page(&store, &keyset, Some(&place("name", &first[1])), 10).await;
        let names = |rows: &[thing::Model]| rows.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&first), names(&second)),
            (vec!["b".into(), "d".into()], vec!["e".into(), "f".into(), "h".into()])
        );
    })
    .await;
}

#[tokio::test]
async fn positions_and_orders_that_do_not_fit_are_refused() {
    let db = db::sqlite();
    let store = store(&db).await;
    let keyset = keyset(&store, "name");
    for bad in [
        json!(null),
        json!([]),
        json!(["a"]),
        json!([1, Uuid::nil()]),
        json!(["a", "b"]),
        json!(["a", Uuid::nil(), 1]),
    ] {
        assert_eq!(keyset.after(&bad).unwrap_err(), PositionError, "{bad}");
    }
    let fields = FieldMap::new(store.backend()).bool("ready", Column::Ready);
    assert!(fields.keyset(&order_by("ready").unwrap(), Column::Uid).is_err());
    assert!(fields.keyset(&order_by("other").unwrap(), Column::Uid).is_err());
}

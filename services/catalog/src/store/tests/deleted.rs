//! What is deleted and still kept.

use pavior_resource::Purge;

use super::*;

async fn delete(world: &World, gone: &Stored<EntityFields>, at: OffsetDateTime, keeping: Keeping) {
    let shared = Arc::new((world.permit("acme"), gone.clone()));
    world
        .tx(move |tx| {
            let shared = shared.clone();
            Box::pin(async move {
                let (permit, gone) = &*shared;
                tx.delete(permit, gone, at, keeping).await?;
                tx.end_declared(permit, &[gone.uid]).await
            })
        })
        .await;
}

/// Made with its labels.
async fn made(world: &World, id: &str) -> Stored<EntityFields> {
    let mut fields = entity("component");
    fields.labels.insert("tier".to_owned(), "gold".to_owned());
    let made = world.stored("acme", id, fields);
    let shared = Arc::new((world.permit("acme"), made.clone()));
    world
        .tx(move |tx| {
            let shared = shared.clone();
            Box::pin(async move {
                let (permit, made) = &*shared;
                tx.insert(permit, made).await?;
                tx.insert_declared(permit, &[(made, &BTreeSet::new())]).await
            })
        })
        .await;
    made
}

async fn found(world: &World, filter: &str) -> Vec<String> {
    let query = ListQuery { deleted: true, filter: Filter::parse(filter).unwrap(), ..query() };
    let page = world.read().page::<EntityFields>(&world.permit("acme"), &query).await.unwrap();
    page.rows.into_iter().map(|row| row.id).collect()
}

async fn facets(world: &World, of: &Stored<EntityFields>) -> usize {
    use sea_orm::EntityTrait as _;
    let all = super::row::facet::Entity::find().all(world.store.read()).await.unwrap();
    all.iter().filter(|facet| facet.entity == of.uid).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_found_by_its_labels_until_it_is_purged() {
    db::both(|db| async {
        let world = World::new(db).await;
        let start = OffsetDateTime::UNIX_EPOCH;
        let (a, b) = (made(&world, "a").await, made(&world, "b").await);
        delete(&world, &a, start, KEEPING).await;
        delete(&world, &b, start + Duration::HOUR, KEEPING).await;
        made(&world, "c").await;
        assert_eq!(found(&world, "labels.tier = gold").await, ["a", "b", "c"]);
        let clock = ManualClock::new(start + Duration::DAY);
        let mut purged = 0;
        for purge in purges() {
            purged += purge.run(&world.store, &clock, KEEPING).await.unwrap();
        }
        assert_eq!(purged, 1, "that of which the time is over");
        assert_eq!(found(&world, "labels.tier = gold").await, ["b", "c"]);
        assert_eq!(facets(&world, &a).await, 0, "its labels go with it");
        assert_ne!(facets(&world, &b).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_go_when_much_is_deleted_and_nothing_is_kept_for_no_days() {
    db::both(|db| async {
        let world = World::new(db).await;
        let keeping = Keeping { most: 2, ..KEEPING };
        for (minutes, id) in (0_i64..).zip(["a", "b", "c"]) {
            let one = made(&world, id).await;
            delete(&world, &one, OffsetDateTime::UNIX_EPOCH + Duration::minutes(minutes), keeping).await;
        }
        assert_eq!(found(&world, "").await, ["b", "c"]);
        let one = made(&world, "d").await;
        delete(&world, &one, OffsetDateTime::UNIX_EPOCH, Keeping::days(0, 10)).await;
        assert_eq!(found(&world, "").await, Vec::<String>::new());
        assert_eq!(facets(&world, &one).await, 0);
    })
    .await;
}

/// Less is kept than before: what is too much already goes with the next sweep, in every organization.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_by_a_longer_time_or_a_larger_number_goes_when_they_are_made_smaller() {
    db::both(|db| async {
        let world = World::new(db).await;
        for id in ["a", "b", "c"] {
            let one = made(&world, id).await;
            delete(&world, &one, OffsetDateTime::UNIX_EPOCH, KEEPING).await;
        }
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH + Duration::HOUR);
        let purge = Purge::of::<EntityFields>();
        assert_eq!(purge.run(&world.store, &clock, KEEPING).await.unwrap(), 0);
        assert_eq!(purge.run(&world.store, &clock, Keeping { most: 2, ..KEEPING }).await.unwrap(), 1);
        let shorter = Keeping { time: Duration::MINUTE, ..KEEPING };
        assert_eq!(purge.run(&world.store, &clock, shorter).await.unwrap(), 2);
        assert_eq!(found(&world, "").await, Vec::<String>::new());
    })
    .await;
}

/// Every table of what is deleted is swept.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_deleted_is_kept_for_ever() {
    use sea_orm::ConnectionTrait as _;
    db::both(|db| async {
        let world = World::new(db).await;
        let tables = match world.store.backend() {
            sea_orm::DbBackend::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
            _ => "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = current_schema()",
        };
        let tables = sea_orm::Statement::from_string(world.store.backend(), tables);
        let rows = world.store.read().query_all_raw(tables).await.unwrap();
        let names = rows.iter().map(|row| row.try_get::<String>("", "name").unwrap());
        let made: BTreeSet<String> = names.filter(|name| name.starts_with("deleted_")).collect();
        let swept: BTreeSet<String> = purges().iter().map(|purge| purge.table().to_owned()).collect();
        assert_eq!(made, swept);
    })
    .await;
}

/// A page of what is there and what is deleted comes in the order of indexes: nothing is sorted, however much there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_what_is_deleted_is_read_in_the_order_of_an_index() {
    use sea_orm::{ConnectionTrait as _, QueryTrait as _};
    let world = World::new(db::sqlite()).await;
    for (order, index) in [("", "entities"), ("create_time desc", "entities_create_time")] {
        let query = ListQuery { deleted: true, order: order_by(order).unwrap(), ..query() };
        let select = world.read().select::<EntityFields>(&world.permit("acme"), &query).unwrap();
        let mut statement = select.build(world.store.backend());
        statement.sql = format!("EXPLAIN QUERY PLAN {}", statement.sql);
        let rows = world.store.read().query_all_raw(statement).await.unwrap();
        let told: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
        let live = told.iter().find(|line| line.contains(" entities ")).unwrap();
        assert!(told.iter().any(|line| line.contains("MERGE (UNION ALL)")), "{told:?}");
        assert!(live.starts_with("SEARCH") && live.contains(index), "{told:?}");
    }
}

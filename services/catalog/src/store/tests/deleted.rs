//! What is deleted and still kept.

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
            purged += purge.run(&world.store, &clock).await.unwrap();
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

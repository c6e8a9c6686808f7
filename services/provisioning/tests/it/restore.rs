//! A database that was set back: nothing in it goes on by itself.

use std::sync::Arc;

use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id::{IdGen, SystemIds};
use pavior_provisioning::restore::{GRACE, UnderWay, park, under_way};
use pavior_provisioning::store::entity::{environment, project, timer};
use pavior_provisioning::store::{Admission, NewEnvironment};
use pavior_testkit::db::both;
use sea_orm::EntityTrait;
use serde_json::json;
use time::OffsetDateTime;

use crate::harness::*;

fn tools() -> (Arc<dyn Clock>, Arc<dyn IdGen>) {
    (Arc::new(SystemClock), Arc::new(SystemIds))
}

#[tokio::test]
async fn what_waits_for_people_is_parked_and_what_expires_is_spared() {
    both(|db| async {
        let world = World::new(db).await;
        let store = world.db.store().clone();
        let name = format!("{PROJECT}/environments/e");
        let mut new = new_operation(graph(&[]));
        new.environments = vec![NewEnvironment {
            name: name.clone(),
            display_name: String::new(),
            class: "preview".into(),
            parameters: json!({}),
            ttl_seconds: Some(60),
            expire_time: None,
        }];
        let id = new.id;
        world.db.accept(new).await.unwrap();
        assert_eq!(world.ended(id).await.op.state, "SUCCEEDED");
        let mut waiting = new_operation(elsewhere(graph(&DIAMOND), "acme", 2));
        waiting.admission = Admission::AskPeople;
        let waiting_id = waiting.id;
        world.db.accept(waiting).await.unwrap();
        world.db.await_approval_unscoped(waiting_id, "organizations/acme/approvalRequests/a").await.unwrap();
        let waiting = world.view(waiting_id).await.op;
        assert_eq!(waiting.state, "AWAITING_APPROVAL");

        let found = UnderWay { operations: vec![waiting.name], environments: vec![name.clone()] };
        let (clock, ids) = tools();
        assert_eq!(under_way(store.clone(), clock.clone(), ids.clone()).await.unwrap(), found);
        assert_eq!(park(store.clone(), clock.clone(), ids.clone()).await.unwrap(), found);
        let again = park(store.clone(), clock.clone(), ids.clone()).await.unwrap();
        assert_eq!(again.operations, Vec::<String>::new(), "once is enough");

        let stuck = world.view(waiting_id).await;
        assert_eq!(
            (stuck.op.state.as_str(), &stuck.op.error.unwrap()["code"]),
            ("STUCK", &json!("RESTORED"))
        );
        // It was approved since: for all that it does not begin.
        let approved = ["organizations/acme/approvalRequests/a".to_owned()];
        world.db.admit_unscoped(waiting_id, &approved, 60_000_000).await.unwrap();
        assert_eq!(world.view(waiting_id).await.op.state, "STUCK");
        assert_eq!(world.db.waiting_unscoped(10).await.unwrap(), []);

        let row = environment::Entity::find().all(store.read()).await.unwrap().remove(0);
        let soonest = OffsetDateTime::now_utc() + GRACE - time::Duration::minutes(5);
        assert!(row.expire_time.unwrap() > soonest, "{:?}", row.expire_time);
        let timers = timer::Entity::find().all(store.read()).await.unwrap();
        assert!(pavior_store::from_micros(timers[0].due).unwrap() > soonest);
        assert_eq!(world.db.expired_unscoped(10).await.unwrap(), []);

        // An operator lets go of it.
        world.db.retry_unscoped(waiting_id, &by_alice(RETRY), true, 60_000_000, None).await.unwrap();
        world.engine.wake();
        assert_eq!(world.ended(waiting_id).await.op.state, "COMPENSATED");
        assert_eq!(world.driver.effects(), 0);
        let projects = project::Entity::find().all(store.read()).await.unwrap();
        assert_eq!(projects.len(), 1, "what was to be made is forgotten");
        // The people who were asked are told.
        let told = world.db.withdrawn_unscoped(10).await.unwrap();
        assert_eq!(told.len(), 1);
    })
    .await;
}

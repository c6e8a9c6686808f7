//! Background work.

use std::time::Duration;

use pavior_auth::INTERNAL_TOKEN;
use pavior_proto::pavior::audit::internal::v1::AppendRecordsRequest;
use pavior_testkit::db::both;
use pavior_testkit::fake::Call;
use pavior_testkit::wait_for;
use sea_orm::{ConnectionTrait as _, Statement};

use crate::catalog::APPEND;
use crate::fixture::Fixture;

const MAX: Duration = Duration::from_secs(10);

/// Producer, sequence number and action of each record.
fn records(request: AppendRecordsRequest) -> Vec<(String, i64, String)> {
    let service = request.producer.unwrap_or_default().service;
    let events = request.events.into_iter();
    events.map(|one| (service.clone(), one.sequence, one.event.unwrap_or_default().action)).collect()
}

#[tokio::test]
async fn audit_events_are_shipped_in_order() {
    both(|db| async move {
        let mut f = Fixture::new(db).await;
        f.role("one", &["*"]).await;
        let _relay = f.start("outbox_relay");
        f.role("two", &["*"]).await;
        let taken = wait_for("two records", MAX, || async {
            let calls = f.audit.calls(APPEND);
            let taken: Vec<_> =
                calls.iter().map(Call::decode::<AppendRecordsRequest>).flat_map(records).collect();
            if taken.len() == 2 { Ok((taken, calls)) } else { Err(taken) }
        });
        let (taken, calls) = taken.await;
        let create = "policy.roles.create".to_owned();
        assert_eq!(taken, [("policy".to_owned(), 1, create.clone()), ("policy".to_owned(), 2, create)]);
        assert!(calls.iter().all(|call| call.headers.contains_key(INTERNAL_TOKEN)), "each call is signed");
        wait_for("an empty outbox", MAX, || async {
            let left = f.audited().await.len();
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn approvals_expire_though_nobody_looks() {
    both(|db| async move {
        let mut f = Fixture::new(db).await;
        f.ask("alice", "d1", 1).await;
        f.ship().await;
        f.advance(24 * 3_600);
        let _reaper = f.start("approval_reaper");
        let sql = "SELECT state FROM approvals";
        wait_for("the request to expire", MAX, || async {
            let row =
                f.store.read().query_one_raw(Statement::from_string(f.store.backend(), sql)).await.unwrap();
            let state: String = row.unwrap().try_get("", "state").unwrap();
            if state == "EXPIRED" { Ok(()) } else { Err(state) }
        })
        .await;
    })
    .await;
}

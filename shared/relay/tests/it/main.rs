//! What the health of an outbox says, and what callers are told when it is full.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::metrics::noop::NoopMeterProvider;
use pavior_core::audit::{Affected, AuditEvent, PrincipalKind, PrincipalRef};
use pavior_core::clock::ManualClock;
use pavior_core::id_gen::{IdGen as _, SystemIds};
use pavior_relay::{OutboxRelay, outbox_relay, problem};
use pavior_rpc::ErrorReason;
use pavior_rpc::audit::AuditSink;
use pavior_store::outbox::{self, OutboxContext};
use pavior_store::{Recorded, Store, StoreError};
use pavior_testkit::{db, wait_for};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use tokio_util::sync::CancellationToken;
use tonic::Code;

#[derive(Debug)]
struct Tables;

impl MigratorTrait for Tables {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        outbox::migrations()
    }
}

async fn append(store: &Store, context: &OutboxContext) {
    let principal = PrincipalRef::new(PrincipalKind::Service, "");
    let event = AuditEvent {
        target: Some(Affected::new("", "organizations/acme/things/x")),
        ..AuditEvent::new(SystemIds.uuid(), context.clock.now(), "test.things.create", principal)
    };
    let appended = store.change(context, move |_| {
        let event = event.clone();
        Box::pin(async move { Ok::<_, StoreError>(Recorded::new((), event)) })
    });
    appended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_stands_still_is_unhealthy_and_says_why() {
    db::both(|db| async move {
        let store = db.connect().await;
        pavior_store::migrate::<Tables>(&store).await.unwrap();
        let clock = Arc::new(ManualClock::default());
        let context = OutboxContext::new(&store, "catalog", "one", clock.clone());
        let meter = NoopMeterProvider::new().meter("test");
        // Nobody listens there.
        let sink = AuditSink::new(pavior_rpc::remote("http://127.0.0.1:1", None), &meter);
        let relay = outbox_relay(store.clone(), &context, sink, &meter, "catalog outbox");
        let OutboxRelay { task, check } = relay;
        let cancel = CancellationToken::new();
        let running = tokio::spawn((task.run)(cancel.clone()));
        assert_eq!(check.ask().await, Ok(()));
        append(&store, &context).await;
        append(&store, &context).await;
        clock.advance(Duration::from_secs(30));
        assert_eq!(check.ask().await, Ok(()), "{}", db.kind);
        clock.advance(Duration::from_secs(1));
        let away = "2 audit events wait, the oldest for 31 s: the audit service does not answer";
        wait_for("a delivery that fails", Duration::from_secs(20), || async {
            match check.ask().await {
                Err(why) if why.starts_with(away) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        cancel.cancel();
        running.await.unwrap().unwrap();
        let rows = outbox::pending(&store, "catalog", 9, usize::MAX).await.unwrap();
        outbox::delivered(&store, "catalog", rows[1].epoch, rows[1].seq).await.unwrap();
        assert_eq!(check.ask().await, Ok(()), "{}", db.kind);
    })
    .await;
}

#[test]
fn who_is_refused_because_of_the_audit_trail_hears_why_and_when_to_come_again() {
    let all = StoreError::OutboxFull { rows: 100_000, oldest_seconds: 5 };
    let one = StoreError::OrganizationOutboxFull {
        organization: "acme".into(),
        rows: 20_000,
        limit_rows: 20_000,
        limit_bytes: 7,
    };
    let told = problem(&all);
    assert_eq!((told.code, told.retry_after), (Code::Unavailable, Some(Duration::from_secs(5))));
    let told = problem(&one);
    assert_eq!((told.code, told.retry_after), (Code::ResourceExhausted, Some(Duration::from_secs(5))));
    assert_eq!(told.metadata["organization"], "acme");
    assert_eq!(told.metadata["limitEvents"], "20000");
}

#[test]
fn a_database_does_not_speak_to_callers() {
    let secret = || sea_orm_migration::DbErr::Custom("row 7 of secret_table".to_owned());
    for (error, code, reason) in [
        (StoreError::Busy, Code::Unavailable, ErrorReason::DependencyUnavailable),
        (StoreError::OutcomeUnknown(secret()), Code::Unavailable, ErrorReason::OutcomeUnknown),
        (StoreError::Concurrent, Code::Aborted, ErrorReason::ResourceBusy),
        (StoreError::Database(secret()), Code::Internal, ErrorReason::Internal),
        (StoreError::Corrupt("row 7 of secret_table".to_owned()), Code::Internal, ErrorReason::Internal),
    ] {
        let told = problem(&error);
        assert_eq!((told.code, told.reason), (code, reason), "{error}");
        assert!(!format!("{told:?}").contains("secret_table"), "{told:?}");
    }
}

//! Whose a database is, and whether its history is the one that the audit log knows.

use super::outbox::event;
use super::{db, store};
use pavior_core::clock::ManualClock;
use pavior_core::id_gen::{IdGen as _, SystemIds};
use pavior_store::installation::{self, Claim, Survey};
use pavior_store::outbox::{self, Difference, Position, Recorded, Standing};
use pavior_store::{DatabaseConfig, Store};

#[tokio::test]
async fn outbox_and_log_are_compared_by_what_both_know() {
    db::both(|db| async move {
        let (store, clock) = (store(&db).await, ManualClock::default());
        assert_eq!(outbox::position(&store, "test").await.unwrap(), Position::default());
        let events: Vec<_> = (1..=5).map(|n| event(&n.to_string())).collect();
        let id = |seq: usize| events[seq - 1].event_id;
        let epoch = outbox::begin_anew(&store, "test", events.clone(), None, vec![], &clock).await.unwrap();
        outbox::delivered(&store, "test", epoch, 2).await.unwrap();
        let here = outbox::position(&store, "test").await.unwrap();
        assert_eq!(here, Position { epoch: Some(epoch), last: 5, delivered: 2 });

        let there = |last: i64, last_event| Recorded { last, last_event, newest_epoch: Some(epoch) };
        let compare = async |there: Recorded| outbox::compare(&store, "test", &here, &there).await.unwrap();
        assert_eq!(compare(there(2, Some(id(2)))).await, Standing::Fits);
        assert_eq!(compare(there(4, Some(id(4)))).await, Standing::Fits);
        let other = SystemIds.uuid();
        let diverged = Difference::Diverged { epoch, seq: 4, here: id(4), there: other };
        assert_eq!(compare(there(4, Some(other))).await, Standing::Apart(diverged.of("test")));
        let behind = Difference::Behind { epoch, last: 5, recorded: 6 };
        assert_eq!(compare(there(6, Some(other))).await, Standing::Apart(behind.of("test")));
        let log_behind = Difference::LogBehind { epoch, delivered: 2, recorded: 1 };
        assert_eq!(compare(there(1, Some(id(1)))).await, Standing::Apart(log_behind.of("test")));
        let later = Recorded { newest_epoch: Some(epoch + 1), ..there(5, Some(id(5))) };
        let older = Difference::OlderEpoch { epoch: Some(epoch), recorded: epoch + 1 };
        assert_eq!(compare(later).await, Standing::Apart(older.of("test")));
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn new_epoch_begins_with_what_is_to_be_said_and_holds_what_still_waits() {
    db::both(|db| async move {
        let (store, clock) = (store(&db).await, ManualClock::default());
        let events: Vec<_> = (1..=4).map(|n| event(&n.to_string())).collect();
        let epoch = outbox::begin_anew(&store, "test", events.clone(), None, vec![], &clock).await.unwrap();
        outbox::delivered(&store, "test", epoch, 1).await.unwrap();
        let before = outbox::position(&store, "test").await.unwrap();
        // The log has event 2 already, and an epoch of which this database knows nothing.
        let known = vec![events[1].event_id];
        let newest = Some(epoch + 50);
        let said = vec![event("restored")];
        let later = outbox::begin_anew(&store, "test", said, newest, known, &clock).await.unwrap();
        assert_eq!(later, epoch + 51);
        let waiting = outbox::pending(&store, "test", 10, 1 << 20).await.unwrap();
        assert!(waiting.iter().all(|row| row.epoch == later), "{}", db.kind);
        assert_eq!(
            waiting.iter().map(|row| (row.seq, row.event.summary.as_str())).collect::<Vec<_>>(),
            [(1, "restored"), (2, "3"), (3, "4")]
        );
        let there = Recorded { last: 0, last_event: None, newest_epoch: newest };
        assert_eq!(outbox::compare(&store, "test", &before, &there).await.unwrap(), Standing::Moved);
        let now = outbox::position(&store, "test").await.unwrap();
        assert_eq!(outbox::compare(&store, "test", &now, &there).await.unwrap(), Standing::Fits);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn database_says_whose_it_is_before_anything_is_changed_in_it() {
    db::both(|db| async move {
        let store = db.connect().await;
        let empty = installation::survey(&store).await.unwrap();
        assert_eq!(empty, Survey::default(), "{}", db.kind);
        assert!(empty.is_empty() && !empty.in_use());
        pavior_store::migrate::<super::Tables>(&store).await.unwrap();
        let bare = installation::survey(&store).await.unwrap();
        assert!(bare.has_schema && bare.is_empty() && !bare.in_use(), "{bare:?}");

        let key = |value: &str| [("sealing key".to_owned(), value.to_owned())].into();
        let mut claim =
            Claim { installation: "one".into(), role: "test".into(), established: false, keys: key("a") };
        for (established, value) in [(false, "a"), (true, "b")] {
            claim = Claim { established, keys: key(value), ..claim };
            installation::claim(&store, claim.clone()).await.unwrap();
            let survey = installation::survey(&store).await.unwrap();
            assert_eq!(survey.claim.as_ref(), Some(&claim));
            assert_eq!((survey.in_use(), survey.is_empty()), (established, false));
        }
        outbox::begin_anew(&store, "test", vec![], None, vec![], &ManualClock::default()).await.unwrap();
        assert!(installation::survey(&store).await.unwrap().has_history);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn database_in_use_can_be_read_from_beside_and_is_not_changed() {
    db::both(|db| async move {
        let (store, clock) = (store(&db).await, ManualClock::default());
        let epoch = outbox::begin_anew(&store, "test", vec![event("1")], None, vec![], &clock).await.unwrap();
        let beside = Store::connect_to_read(&db.config(), "beside").await.unwrap();
        let seen = outbox::position(&beside, "test").await.unwrap();
        assert_eq!(seen, Position { epoch: Some(epoch), last: 1, delivered: 0 }, "{}", db.kind);
        let refused = outbox::begin_anew(&beside, "test", vec![], None, vec![], &clock).await.unwrap_err();
        assert!(refused.to_string().contains("for reading only"), "{refused}");
        beside.close().await.unwrap();
        store.close().await.unwrap();
        // What an orderly end left behind can be read too.
        let beside = Store::connect_to_read(&db.config(), "beside").await.unwrap();
        assert_eq!(outbox::position(&beside, "test").await.unwrap(), seen, "{}", db.kind);
        beside.close().await.unwrap();
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.db");
    let config = DatabaseConfig::at(format!("sqlite://{}?mode=rwc", file.display()));
    Store::connect_to_read(&config, "beside").await.unwrap_err();
    assert!(!file.exists());
}

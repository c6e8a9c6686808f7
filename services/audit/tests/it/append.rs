//! Appending: order, repeats, gaps, who may, concurrency, restart.

use pavior_audit_verifier::{CheckpointStatus, VerifierKey, verify_database};
use pavior_core::audit::AuditEvent;
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_testkit::{assert_problem, assert_refusal, db, fields};
use tonic::{Code, Response, Status};

use crate::support::{Fixture, batch, event};

#[tokio::test(flavor = "multi_thread")]
async fn repeated_batch_changes_nothing() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "catalog");
        let events = || (1..=5).map(|n| ("acme", n, event("acme", n))).collect::<Vec<_>>();
        for _ in 0..3 {
            let answer = fixture.append(&mut client, "catalog", "e1", events()).await.unwrap();
            assert_eq!(answer.into_inner().acknowledged_sequence, 5);
        }
        let mut reader = fixture.client(&running, "gateway");
        assert_eq!(fixture.checkpoint(&mut reader, "acme").await.tree_size, 5);
        // The same number in another epoch is another record.
        fixture.append(&mut client, "catalog", "e2", vec![("acme", 1, event("acme", 9))]).await.unwrap();
        assert_eq!(fixture.checkpoint(&mut reader, "acme").await.tree_size, 6);
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gap_is_named_and_nothing_of_the_call_is_taken() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "catalog");
        let mut append = async |numbers: &[i64]| {
            let events = numbers.iter().map(|n| ("acme", *n, event("acme", *n))).collect();
            let answer = fixture.append(&mut client, "catalog", "e1", events).await;
            answer.map(|answer| answer.into_inner().acknowledged_sequence)
        };
        for (numbers, expected, found) in [(&[2][..], "1", "2"), (&[1, 2, 4, 5], "3", "4"), (&[3], "1", "3")]
        {
            let metadata =
                [("service", "catalog"), ("epoch", "e1"), ("expected", expected), ("found", found)];
            let answer = append(numbers).await;
            assert_refusal(answer, Code::FailedPrecondition, "SEQUENCE_GAP", &metadata);
        }
        assert_eq!(append(&[1, 2, 3, 4, 5]).await.unwrap(), 5);
        assert_eq!(running.proven(&fixture).await.records(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_event_under_a_number_that_was_given_is_refused_with_both() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "catalog");
        let numbered = |n: i64, event| vec![("acme", n, event)];
        fixture.fill(&mut client, "acme", 1, 3).await;
        // Another event, and the same event that says something else.
        let changed = AuditEvent { summary: "something else".into(), ..event("acme", 2) };
        for other in [event("acme", 77), changed] {
            let id = other.event_id.to_string();
            let answer = fixture.append(&mut client, "catalog", "e1", numbered(2, other)).await;
            let (stored, offered) = diverged(answer, "2");
            assert!(offered.starts_with(&format!("{id} (sha256:")), "{offered}");
            assert!(stored.starts_with(&format!("{} (sha256:", event("acme", 2).event_id)), "{stored}");
            assert_ne!(offered, stored);
        }
        // What is new behind a repeat that is none is not taken either.
        let events = vec![("acme", 3, event("acme", 77)), ("acme", 4, event("acme", 4))];
        diverged(fixture.append(&mut client, "catalog", "e1", events).await, "3");
        let mut reader = fixture.client(&running, "gateway");
        assert_eq!(fixture.checkpoint(&mut reader, "acme").await.tree_size, 3);
        // The same event through another process of the service is a repeat.
        let mut again = batch("catalog", "e1", numbered(2, event("acme", 2)));
        again.producer.as_mut().unwrap().instance = "i2".into();
        fixture.clock.advance(std::time::Duration::from_secs(60));
        let answer = client.append_records(fixture.request("catalog", INSTALLATION, again)).await.unwrap();
        assert_eq!(answer.into_inner().acknowledged_sequence, 3);
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn producer_learns_how_far_the_log_is_with_it_and_with_nobody_else() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "catalog");
        let mut state = async |service: &str, epoch: &str| {
            let producer = batch(service, epoch, vec![]).producer;
            let message = recorder_pb::GetProducerStateRequest { producer };
            client
                .get_producer_state(fixture.request("catalog", INSTALLATION, message))
                .await
                .map(Response::into_inner)
        };
        assert_eq!(state("catalog", "900").await.unwrap(), recorder_pb::ProducerState::default());
        let mut producer = fixture.client(&running, "catalog");
        for (epoch, count) in [("900", 2), ("1000", 3)] {
            let events = (1..=count).map(|n| ("acme", n, event("acme", n + count))).collect();
            fixture.append(&mut producer, "catalog", epoch, events).await.unwrap();
        }
        let known = state("catalog", "900").await.unwrap();
        let last_event_id = event("acme", 4).event_id.to_string();
        let newest_epoch = "1000".to_owned();
        assert_eq!(known, recorder_pb::ProducerState { last_sequence: 2, last_event_id, newest_epoch });
        let unknown = state("catalog", "901").await.unwrap();
        assert_eq!((unknown.last_sequence, unknown.newest_epoch.as_str()), (0, "1000"));
        not_the_producer(state("policy", "900").await);
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn bad_events_are_refused_with_every_violation_and_nothing_is_written() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let mut client = fixture.client(&running, "catalog");
    let mut message = batch("catalog", "e1", (1..=5).map(|n| ("acme", n, event("acme", n))).collect());
    message.events[1].organization = String::new();
    message.events[2].sequence = 0;
    message.events[3].event = None;
    message.events[4].event.as_mut().unwrap().event_id = "x".into();
    let answer = client.append_records(fixture.request("catalog", INSTALLATION, message)).await;
    let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
    assert_eq!(
        fields(&problem),
        ["events[1].organization", "events[2].sequence", "events[3].event", "events[4].event"]
    );
    let mut reader = fixture.client(&running, "gateway");
    assert_eq!(fixture.checkpoint(&mut reader, "acme").await.tree_size, 0);
    running.stop().await;
}

/// `catalog` spoke for `policy`.
fn not_the_producer<T>(answer: Result<T, Status>) {
    let metadata = [("caller", "catalog"), ("producer", "policy")];
    let problem = assert_problem(answer, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &metadata);
    assert_eq!(problem.message, "`catalog` is not the producer `policy`");
}

/// What is stored under a number, and what was offered in its place.
pub(crate) fn diverged<T>(answer: Result<T, Status>, sequence: &str) -> (String, String) {
    let metadata = [("service", "catalog"), ("epoch", "e1"), ("sequence", sequence)];
    let mut problem =
        assert_refusal(answer, Code::FailedPrecondition, "PRODUCER_DIVERGED", &metadata).metadata;
    ["stored", "offered"].map(|key| problem.remove(key).unwrap()).into()
}

#[tokio::test]
async fn service_cannot_write_as_another_and_unknown_callers_not_at_all() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let forged = batch("policy", "e1", vec![("acme", 1, event("acme", 1))]);
    let mut client = fixture.client(&running, "catalog");
    not_the_producer(client.append_records(fixture.request("catalog", INSTALLATION, forged)).await);
    // A service may not read the trail, and who has no token may do nothing.
    let read = pavior_proto::pavior::audit::v1::GetAuditCheckpointRequest {
        name: "organizations/acme/auditCheckpoint".into(),
    };
    let answer = client.get_audit_checkpoint(fixture.request("catalog", "acme", read)).await;
    let method = [("caller", "catalog"), ("method", "/pavior.audit.v1.AuditService/GetAuditCheckpoint")];
    assert_problem(answer, Code::PermissionDenied, "CALLER_NOT_ALLOWED", &method);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_appenders_make_one_log_without_gap() {
    db::both(|db| async {
        let fixture = std::sync::Arc::new(Fixture::new(db));
        let running = std::sync::Arc::new(fixture.start().await);
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..64i64 {
            let (fixture, running) = (fixture.clone(), running.clone());
            tasks.spawn(async move {
                let mut client = fixture.client(&running, "catalog");
                let epoch = format!("w{worker}");
                for n in 1..=6 {
                    let log = if (worker + n) % 3 == 0 { "umbrella" } else { "acme" };
                    let events = vec![(log, n, event(log, worker * 100 + n))];
                    let answer = fixture.append(&mut client, "catalog", &epoch, events).await.unwrap();
                    assert_eq!(answer.into_inner().acknowledged_sequence, n);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let mut reader = fixture.client(&running, "gateway");
        let key = VerifierKey::parse(&fixture.checkpoint(&mut reader, "acme").await.verifier_key).unwrap();
        let other =
            VerifierKey::parse(&fixture.checkpoint(&mut reader, "umbrella").await.verifier_key).unwrap();
        // The database is verified while the service has it open.
        let report = verify_database(&fixture.db.url, Some(vec![key, other])).await.unwrap();
        assert_eq!((report.records(), report.producers), (64 * 6, 64));
        assert!(report.logs.iter().all(|log| log.checkpoint == CheckpointStatus::Trusted));
        std::sync::Arc::into_inner(running).unwrap().stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_goes_on_after_a_restart_across_tile_borders() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let mut expected = 0;
        for count in [1, 255, 1, 700] {
            let running = fixture.start().await;
            let mut client = fixture.client(&running, "catalog");
            fixture.fill(&mut client, "acme", expected + 1, count).await;
            expected += count;
            let mut reader = fixture.client(&running, "gateway");
            assert_eq!(fixture.checkpoint(&mut reader, "acme").await.tree_size, expected);
            assert_eq!(running.proven(&fixture).await.records(), expected as u64);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_on_postgres_take_turns() {
    let Some(db) = db::postgres().await else { return };
    let fixture = Fixture::new(db);
    let (one, two) = (fixture.start().await, fixture.start().await);
    let append = |running, epoch: &'static str| {
        let mut client = fixture.client(running, "catalog");
        let fixture = &fixture;
        async move {
            for n in 1..=40 {
                let log = if n % 2 == 0 { "acme" } else { "umbrella" };
                let events = vec![(log, n, event(log, n))];
                let answer = fixture.append(&mut client, "catalog", epoch, events).await.unwrap();
                assert_eq!(answer.into_inner().acknowledged_sequence, n);
            }
        }
    };
    tokio::join!(append(&one, "a"), append(&two, "b"), append(&one, "c"), append(&two, "d"));
    one.stop().await;
    let report = two.proven(&fixture).await;
    assert_eq!((report.records(), report.producers), (160, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_begin_the_same_log_at_once_hold_none() {
    let Some(db) = db::postgres().await else { return };
    let fixture = Fixture::new(db);
    let (one, two) = (fixture.start().await, fixture.start().await);
    let mut clients = [fixture.client(&one, "catalog"), fixture.client(&two, "catalog")];
    for n in 1..=100 {
        let log = format!("organization-{n}");
        let [first, second] = &mut clients;
        let append = |client, epoch| {
            let events = vec![(log.as_str(), n, event(&log, n))];
            fixture.append(client, "catalog", epoch, events)
        };
        let (first, second) = tokio::join!(append(first, "a"), append(second, "b"));
        assert_eq!(first.unwrap().into_inner().acknowledged_sequence, n);
        assert_eq!(second.unwrap().into_inner().acknowledged_sequence, n);
    }
    one.stop().await;
    let report = two.proven(&fixture).await;
    assert_eq!((report.records(), report.logs.len(), report.parked), (200, 100, 0));
}

#[cfg(unix)]
#[tokio::test]
async fn key_is_made_once_and_only_its_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new(db::sqlite());
    let mut keys = Vec::new();
    for _ in 0..2 {
        let running = fixture.start().await;
        let mut reader = fixture.client(&running, "gateway");
        keys.push(fixture.checkpoint(&mut reader, "acme").await.verifier_key);
        running.stop().await;
    }
    assert_eq!(keys[0], keys[1]);
    let file = fixture.config().signing_key_file.unwrap();
    // One key for the whole installation stands beside it, for whoever verifies.
    let published = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    assert_eq!(published.trim_end(), pavior_audit::verifier_key(&fixture.config()).unwrap());
    let key = VerifierKey::parse(&published).unwrap();
    let running = fixture.start().await;
    fixture.fill(&mut fixture.client(&running, "catalog"), "acme", 1, 2).await;
    let report = verify_database(&fixture.db.url, Some(vec![key])).await.unwrap();
    assert!(report.logs.iter().all(|log| log.checkpoint == CheckpointStatus::Trusted));
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_crash_is_there_after_it() {
    db::both(|db| async {
        let fixture = std::sync::Arc::new(Fixture::new(db));
        for round in 0..3 {
            let running = fixture.start().await;
            let mut tasks = tokio::task::JoinSet::new();
            for worker in 0..8 {
                let mut client = fixture.client(&running, "catalog");
                let fixture = fixture.clone();
                tasks.spawn(async move {
                    let epoch = format!("r{round}w{worker}");
                    let mut acknowledged = 0;
                    loop {
                        let events = vec![("acme", acknowledged + 1, event("acme", acknowledged))];
                        match fixture.append(&mut client, "catalog", &epoch, events).await {
                            Ok(answer) => acknowledged = answer.into_inner().acknowledged_sequence,
                            Err(_) => return acknowledged,
                        }
                    }
                });
            }
            let mut reader = fixture.client(&running, "gateway");
            let enough = async || match fixture.checkpoint(&mut reader.clone(), "acme").await.tree_size {
                size if size > 60 * (round + 1) => Ok(()),
                size => Err(size),
            };
            pavior_testkit::wait_for("records", std::time::Duration::from_secs(20), enough).await;
            let before = fixture.checkpoint(&mut reader, "acme").await.tree_size;
            drop(reader);
            // The writer dies where it stands; callers are told that it is gone.
            running.crash().await;
            let mut acknowledged = 0;
            while let Some(done) = tasks.join_next().await {
                acknowledged += done.unwrap();
            }
            let report = verify_database(&fixture.db.url, None).await.unwrap();
            assert!(report.records() as i64 >= before.max(acknowledged), "{report:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_producers_than_an_expression_can_be_deep_share_a_batch() {
    let fixture = std::sync::Arc::new(Fixture::new(db::sqlite()));
    let running = fixture.start().await;
    let client = fixture.client(&running, "catalog");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1_200i64 {
        let (fixture, mut client) = (fixture.clone(), client.clone());
        tasks.spawn(async move {
            let events = vec![("acme", 1, event("acme", n))];
            fixture.append(&mut client, "catalog", &format!("e{n}"), events).await.map(|a| a.into_inner())
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap().unwrap().acknowledged_sequence, 1);
    }
    drop(client);
    let report = running.proven(&fixture).await;
    assert_eq!((report.records(), report.producers), (1_200, 1_200));
}

#[tokio::test]
async fn nothing_that_a_caller_makes_up_holds_up_the_producer() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let sink = fixture.sink(&running, "catalog");
    let producer =
        pavior_rpc::audit::Producer { service: "catalog".into(), instance: "i".into(), epoch: "e1".into() };
    // As the outbox's relay ships them: an organization that cannot be, control characters, values beyond the limit.
    let mut denied = event("acme", 1);
    denied.target.as_mut().unwrap().name = "organizations/No Such\u{0}\n/things/x".into();
    let mut large = event("acme", 3);
    let text = "x".repeat(2 << 20);
    large.change.as_mut().unwrap().after = Some(serde_json::json!({ "text": text }));
    let rows = [denied, large, event("acme", 5)].into_iter().zip(1..).map(|(event, sequence)| {
        let organization = event.organization().to_owned();
        pavior_rpc::audit::Row { organization, sequence, event }
    });
    let shipped = sink.ship(&producer, rows.collect()).await;
    assert_eq!((shipped.acknowledged, shipped.error.map(|error| error.to_string())), (Some(3), None));
    let mut reader = fixture.client(&running, "gateway");
    let platform = fixture.all(&mut reader, INSTALLATION, "").await;
    let name = platform[0].event.as_ref().unwrap().target.as_ref().unwrap().name.clone();
    assert_eq!(name, "organizations/No Such\u{fffd}\u{fffd}/things/x");
    let own = fixture.all(&mut reader, "acme", "").await;
    assert_eq!(own.len(), 2);
    let change = own[0].event.as_ref().unwrap().change.clone().unwrap();
    let after: serde_json::Value = serde_json::from_slice(&change.after).unwrap();
    assert_eq!(after["omitted"]["bytes"], text.len() + r#"{"text":""}"#.len());
    assert_eq!(change.request_digest, pavior_core::digest::sha256_digest(b"request"));
    drop((sink, reader));
    assert_eq!(running.proven(&fixture).await.records(), 3);
}

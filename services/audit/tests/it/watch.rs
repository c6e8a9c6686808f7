//! Following a log.

use std::time::Duration;

use pavior_audit::Config;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_testkit::db;
use tonic::{Code, Streaming};

use crate::support::{Client, Fixture, Running};

async fn watch(
    fixture: &Fixture,
    client: &mut Client,
    from_index: i64,
    filter: &str,
) -> Streaming<pb::WatchAuditRecordsResponse> {
    let parent = "organizations/acme".to_owned();
    let message = pb::WatchAuditRecordsRequest { parent, from_index, filter: filter.into() };
    client.watch_audit_records(fixture.request("gateway", "acme", message)).await.unwrap().into_inner()
}

/// A stream must answer soon; a test that hangs says nothing.
async fn next(
    stream: &mut Streaming<pb::WatchAuditRecordsResponse>,
) -> Result<Option<pb::WatchAuditRecordsResponse>, tonic::Status> {
    tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("stream is silent")
}

async fn clients(fixture: &Fixture, running: &Running) -> (Client, Client) {
    (fixture.client(running, "catalog"), fixture.client(running, "gateway"))
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_resumes_without_gap_or_repeat_while_the_log_grows() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut writer, mut client) = clients(&fixture, &running).await;
        fixture.fill(&mut writer, "acme", 1, 120).await;
        let append = async {
            for n in 121..=260 {
                fixture.fill(&mut writer, "acme", n, 1).await;
            }
        };
        let follow = async {
            let (mut seen, mut resume) = (Vec::new(), 0);
            while seen.len() < 260 {
                // Cut off again and again, at places that divide nothing evenly.
                let mut stream = watch(&fixture, &mut client, resume, "").await;
                for _ in 0..37 {
                    if seen.len() == 260 {
                        break;
                    }
                    let item = next(&mut stream).await.unwrap().unwrap();
                    if let Some(record) = item.audit_record {
                        seen.push(record.index);
                        assert_eq!(item.resume_index, record.index + 1);
                    }
                    resume = item.resume_index;
                }
            }
            seen
        };
        let ((), seen) = tokio::join!(append, follow);
        assert_eq!(seen, (0..260).collect::<Vec<i64>>());
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filtered_watch_tells_in_bookmarks_how_far_it_is() {
    let fixture = Fixture::new(db::sqlite());
    let config = Config { bookmark_interval_ms: 5, ..fixture.config() };
    let running = fixture.start_with(config).await.unwrap();
    let (mut writer, mut client) = clients(&fixture, &running).await;
    fixture.fill(&mut writer, "acme", 1, 21).await;
    let mut stream = watch(&fixture, &mut client, 0, "status = denied").await;
    let mut seen = Vec::new();
    loop {
        let item = next(&mut stream).await.unwrap().unwrap();
        match item.audit_record {
            Some(record) => seen.push(record.index),
            None if item.resume_index == 21 => break,
            None => {}
        }
    }
    assert_eq!(seen, [9, 19]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_with_a_status_at_shutdown() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let (mut writer, mut client) = clients(&fixture, &running).await;
    fixture.fill(&mut writer, "acme", 1, 9).await;
    let mut stream = watch(&fixture, &mut client, 0, "index < 3").await;
    for index in 0..3 {
        assert_eq!(next(&mut stream).await.unwrap().unwrap().audit_record.unwrap().index, index);
    }
    running.stop().await;
    let status = next(&mut stream).await.unwrap_err();
    let told = pavior_rpc::problem::from_status(&status);
    assert_eq!((status.code(), told.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(told.retry_after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_sees_what_another_replica_writes() {
    let Some(db) = db::postgres().await else { return };
    let fixture = Fixture::new(db);
    let config = Config { poll_interval_ms: 10, ..fixture.config() };
    let (one, two) = (fixture.start().await, fixture.start_with(config).await.unwrap());
    let mut stream = watch(&fixture, &mut fixture.client(&two, "gateway"), 0, "").await;
    let mut writer = fixture.client(&one, "catalog");
    fixture.fill(&mut writer, "acme", 1, 3).await;
    for index in 0..3 {
        assert_eq!(next(&mut stream).await.unwrap().unwrap().audit_record.unwrap().index, index);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn watch_from_beyond_the_end_is_refused() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let mut client = fixture.client(&running, "gateway");
    for (from_index, code) in [(1, Code::OutOfRange), (-1, Code::InvalidArgument)] {
        let parent = "organizations/acme".to_owned();
        let message = pb::WatchAuditRecordsRequest { parent, from_index, filter: String::new() };
        let status =
            client.watch_audit_records(fixture.request("gateway", "acme", message)).await.err().unwrap();
        assert_eq!(status.code(), code);
    }
    running.stop().await;
}

//! Following a log.

use std::time::Duration;

use pavior_audit::Config;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::watch_audit_records_response::Response;
use pavior_proto::pavior::r#type::v1::stream_start::{Position, Start};
use pavior_proto::pavior::r#type::v1::{StreamBookmark, StreamStart};
use pavior_rpc::{convert, stream};
use pavior_testkit::{assert_problem, db, fields};
use tonic::{Code, Streaming};

use crate::support::{Client, Fixture, Running};

async fn watch(
    fixture: &Fixture,
    client: &mut Client,
    start: Option<StreamStart>,
    filter: &str,
) -> Streaming<pb::WatchAuditRecordsResponse> {
    let parent = "organizations/acme".to_owned();
    let message = pb::WatchAuditRecordsRequest { parent, start, filter: filter.into() };
    client.watch_audit_records(fixture.request("gateway", "acme", message)).await.unwrap().into_inner()
}

fn record(item: pb::WatchAuditRecordsResponse) -> Option<pb::AuditRecord> {
    match item.response? {
        Response::AuditRecord(record) => Some(record),
        Response::Bookmark(_) => None,
    }
}

fn at(start: Start) -> Option<StreamStart> {
    Some(StreamStart { start: Some(start) })
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
            let (mut seen, mut resume) = (Vec::new(), String::new());
            while seen.len() < 260 {
                // Cut off again and again, at places that divide nothing evenly.
                let mut stream = watch(&fixture, &mut client, stream::resume(&resume), "").await;
                for _ in 0..37 {
                    if seen.len() == 260 {
                        break;
                    }
                    let item = next(&mut stream).await.unwrap().unwrap();
                    resume.clone_from(&item.resume_token);
                    seen.extend(record(item).map(|record| record.index));
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
    let filter = "event.outcome.status = DENIED";
    let mut stream = watch(&fixture, &mut client, None, filter).await;
    let mut seen = Vec::new();
    let behind = loop {
        let item = next(&mut stream).await.unwrap().unwrap();
        let resume_token = item.resume_token.clone();
        match record(item) {
            Some(record) => seen.push(record.index),
            None if seen == [9, 19] => break resume_token,
            None => {}
        }
    };
    // A bookmark is behind all that did not match.
    fixture.fill(&mut writer, "acme", 22, 9).await;
    let mut stream = watch(&fixture, &mut client, stream::resume(&behind), filter).await;
    let mut item = next(&mut stream).await.unwrap().unwrap();
    while item.response == Some(Response::Bookmark(StreamBookmark {})) {
        item = next(&mut stream).await.unwrap().unwrap();
    }
    assert_eq!(record(item).unwrap().index, 29);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_with_a_status_at_shutdown() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let (mut writer, mut client) = clients(&fixture, &running).await;
    fixture.fill(&mut writer, "acme", 1, 9).await;
    let mut stream = watch(&fixture, &mut client, None, "index < 3").await;
    for index in 0..3 {
        assert_eq!(record(next(&mut stream).await.unwrap().unwrap()).unwrap().index, index);
    }
    running.stop().await;
    let problem = assert_problem(next(&mut stream).await, Code::Unavailable, "DRAINING", &[]);
    assert!(problem.retry_after.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_sees_what_another_replica_writes() {
    let Some(db) = db::postgres().await else { return };
    let fixture = Fixture::new(db);
    let config = Config { poll_interval_ms: 10, ..fixture.config() };
    let (one, two) = (fixture.start().await, fixture.start_with(config).await.unwrap());
    let mut stream = watch(&fixture, &mut fixture.client(&two, "gateway"), None, "").await;
    let mut writer = fixture.client(&one, "catalog");
    fixture.fill(&mut writer, "acme", 1, 3).await;
    for index in 0..3 {
        assert_eq!(record(next(&mut stream).await.unwrap().unwrap()).unwrap().index, index);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_begins_now_or_at_a_time() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut writer, mut client) = clients(&fixture, &running).await;
        fixture.fill(&mut writer, "acme", 1, 5).await;
        fixture.clock.advance(Duration::from_secs(300));
        let time = convert::to_timestamp(pavior_testkit::Clock::now(&*fixture.clock));
        fixture.fill(&mut writer, "acme", 6, 5).await;
        let mut since = watch(&fixture, &mut client, at(Start::StartTime(time)), "").await;
        let now = at(Start::Position(Position::Now.into()));
        let mut from_now = watch(&fixture, &mut client, now, "").await;
        fixture.fill(&mut writer, "acme", 11, 1).await;
        for index in 5..11 {
            assert_eq!(record(next(&mut since).await.unwrap().unwrap()).unwrap().index, index);
        }
        assert_eq!(record(next(&mut from_now).await.unwrap().unwrap()).unwrap().index, 10);
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn watch_goes_on_behind_its_own_tokens_only() {
    let mut fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let (mut writer, mut client) = clients(&fixture, &running).await;
    fixture.fill(&mut writer, "acme", 1, 2).await;
    let mut all = watch(&fixture, &mut client, None, "").await;
    next(&mut all).await.unwrap().unwrap();
    let token = next(&mut all).await.unwrap().unwrap().resume_token;
    let parent = "organizations/acme".to_owned();
    for (token, filter) in [("nonsense", ""), (token.as_str(), "index > 1")] {
        let start = stream::resume(token);
        let message = pb::WatchAuditRecordsRequest { parent: parent.clone(), start, filter: filter.into() };
        let answer = client.watch_audit_records(fixture.request("gateway", "acme", message)).await;
        let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_RESUME_TOKEN", &[]);
        assert_eq!(fields(&problem), ["start.resume_token"]);
    }
    drop((all, writer, client));
    running.stop().await;
    // The log was set back: nothing stands where the token was.
    fixture.db = db::sqlite();
    let running = fixture.start().await;
    let mut client = fixture.client(&running, "gateway");
    let message =
        pb::WatchAuditRecordsRequest { parent, start: stream::resume(&token), ..Default::default() };
    let answer = client.watch_audit_records(fixture.request("gateway", "acme", message)).await;
    assert_problem(answer, Code::OutOfRange, "RESUME_TOKEN_EXPIRED", &[]);
    running.stop().await;
}

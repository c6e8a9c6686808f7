//! One damaged log: its events wait for its repair, and nobody else notices.

use pavior_audit::Config;
use pavior_audit::restore::Ledger;
use pavior_audit_verifier::{VerifyError, verify_database};
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_testkit::{assert_problem, assert_refusal, db};
use sea_orm::Value;
use tonic::{Code, Status};

use crate::append::diverged;
use crate::cut::told;
use crate::support::{Client, Fixture, batch, event};
use crate::tamper::{Kind, LOG, Tables, changed};

/// A byte of a log's head that is changed, to be put back.
pub(crate) struct Damage {
    tables: Tables,
    before: Value,
}

impl Damage {
    pub(crate) async fn to(fixture: &Fixture) -> Self {
        let tables = Tables::open(&fixture.db).await;
        let kind = Kind::Bytes(3);
        let before = tables.read("audit_head", LOG, "root_hash", kind).await;
        tables.write("audit_head", LOG, "root_hash", changed(&before, kind)).await;
        Self { tables, before }
    }

    pub(crate) async fn repair(self) {
        self.tables.write("audit_head", LOG, "root_hash", self.before).await;
    }
}

/// Hands over events of logs under the numbers.
pub(crate) async fn ship(
    fixture: &Fixture,
    client: &mut Client,
    events: &[(&str, i64)],
) -> Result<i64, Status> {
    let events = events.iter().map(|(log, n)| (*log, *n, event(log, *n))).collect();
    let answer = fixture.append(client, "catalog", "e1", events).await?;
    Ok(answer.into_inner().acknowledged_sequence)
}

pub(crate) async fn size(fixture: &Fixture, reader: &mut Client, log: &str) -> i64 {
    fixture.checkpoint(reader, log).await.tree_size
}

/// The ids of a log's records, in order.
pub(crate) async fn ids(fixture: &Fixture, reader: &mut Client, log: &str) -> Vec<String> {
    let records = fixture.all(reader, log, "").await;
    records.into_iter().map(|record| record.event.unwrap().event_id).collect()
}

pub(crate) fn ids_of(log: &str, numbers: &[i64]) -> Vec<String> {
    numbers.iter().map(|n| event(log, *n).event_id.to_string()).collect()
}

/// What is wrong is for operators; a caller gets a reference.
fn internal<T>(answer: Result<T, Status>) {
    let problem = assert_problem(answer, Code::Internal, "INTERNAL", &[]);
    assert!(problem.message.starts_with("internal error, reference `"), "{problem:?}");
}

const MIXED: [(&str, i64); 4] = [("umbrella", 4), ("acme", 5), ("umbrella", 6), ("acme", 7)];

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_damaged_log_wait_for_its_repair_and_all_else_goes_on() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut client, mut reader) =
            (fixture.client(&running, "catalog"), fixture.client(&running, "gateway"));
        fixture.fill(&mut client, "acme", 1, 3).await;
        let damage = Damage::to(&fixture).await;

        assert_eq!(ship(&fixture, &mut client, &MIXED).await.unwrap(), 7);
        assert_eq!(ids(&fixture, &mut reader, "umbrella").await, ids_of("umbrella", &[4, 6]));
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &[1, 2, 3]));
        let said = running.degraded().await;
        assert_eq!(
            said,
            ["audit log `acme` is damaged (its tiles do not hash to its head): 2 events wait for its repair"]
        );
        // A repeat is compared with what waits as with a record.
        assert_eq!(ship(&fixture, &mut client, &MIXED).await.unwrap(), 7);
        assert_eq!(running.degraded().await, said);
        let other = vec![("acme", 5, event("acme", 77))];
        let (stored, _) = diverged(fixture.append(&mut client, "catalog", "e1", other).await, "5");
        assert!(stored.starts_with(&ids_of("acme", &[5])[0]), "{stored}");
        let answer = ship(&fixture, &mut client, &[("acme", 9)]).await;
        let gap = [("expected", "8"), ("found", "9")];
        assert_refusal(answer, Code::FailedPrecondition, "SEQUENCE_GAP", &gap);
        // The producer finds its last event, although it is no record yet.
        let producer = batch("catalog", "e1", vec![]).producer;
        let asked =
            fixture.request("catalog", INSTALLATION, recorder_pb::GetProducerStateRequest { producer });
        let state = client.get_producer_state(asked).await.unwrap().into_inner();
        assert_eq!((state.last_sequence, state.last_event_id), (7, ids_of("acme", &[7]).remove(0)));
        drop((client, reader));
        running.stop().await;
        let Err(VerifyError::Tampered(found)) = verify_database(&fixture.db.url, None).await else {
            panic!("the damage is hidden")
        };
        assert_eq!(found.log, "acme");

        // A restart changes nothing.
        let running = fixture.start().await;
        let (mut client, mut reader) =
            (fixture.client(&running, "catalog"), fixture.client(&running, "gateway"));
        assert_eq!(running.degraded().await, said);
        assert_eq!(ship(&fixture, &mut client, &[("acme", 7), ("acme", 8)]).await.unwrap(), 8);
        assert_eq!(size(&fixture, &mut reader, "acme").await, 3);

        damage.repair().await;
        running.well().await;
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &[1, 2, 3, 5, 7, 8]));
        assert_eq!(ship(&fixture, &mut client, &[("acme", 7), ("acme", 8), ("acme", 9)]).await.unwrap(), 9);
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &[1, 2, 3, 5, 7, 8, 9]));
        drop((client, reader));
        running.stop().await;
        let report = verify_database(&fixture.db.url, None).await.unwrap();
        assert_eq!((report.records(), report.parked), (9, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_what_may_wait_only_the_producers_of_the_damaged_log_are_refused() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let config = Config { max_parked_records: 2, ..fixture.config() };
        let running = fixture.start_with(config).await.unwrap();
        let (mut client, mut reader) =
            (fixture.client(&running, "catalog"), fixture.client(&running, "gateway"));
        let mut other = fixture.client(&running, "policy");
        fixture.fill(&mut client, "acme", 1, 3).await;
        let damage = Damage::to(&fixture).await;
        assert_eq!(ship(&fixture, &mut client, &[("acme", 4), ("acme", 5)]).await.unwrap(), 5);
        // Both at once, so that they are likely to share a batch.
        let more = [("umbrella", 6), ("acme", 7)];
        let refused = ship(&fixture, &mut client, &more);
        let sound = fixture.append(&mut other, "policy", "e1", vec![("umbrella", 1, event("umbrella", 1))]);
        let (refused, sound) = tokio::join!(refused, sound);
        internal(refused);
        assert_eq!(sound.unwrap().into_inner().acknowledged_sequence, 1);
        let said = running.degraded().await;
        assert!(said[0].ends_with("2 events wait for its repair, and no more can be parked"), "{said:?}");
        damage.repair().await;
        running.well().await;
        assert_eq!(ship(&fixture, &mut client, &more).await.unwrap(), 7);
        assert_eq!(size(&fixture, &mut reader, "acme").await, 6);
        drop((client, reader, other));
        running.stop().await;
        let report = verify_database(&fixture.db.url, None).await.unwrap();
        assert_eq!((report.records(), report.parked), (8, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_no_record_and_becomes_one_at_the_start_after_a_repair() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let config = || Config { max_batch_records: 3, ..fixture.config() };
        let running = fixture.start_with(config()).await.unwrap();
        let mut client = fixture.client(&running, "catalog");
        fixture.fill(&mut client, "acme", 1, 255).await;
        let damage = Damage::to(&fixture).await;
        for n in 256..264 {
            assert_eq!(ship(&fixture, &mut client, &[("acme", n)]).await.unwrap(), n);
        }
        drop(client);
        running.stop().await;
        damage.repair().await;
        // Nothing is missing, and nothing is shown that is in no tree.
        let report = verify_database(&fixture.db.url, None).await.unwrap();
        assert_eq!((report.records(), report.parked), (255, 8));
        let running = fixture.start_with(config()).await.unwrap();
        running.well().await;
        let mut reader = fixture.client(&running, "gateway");
        let numbers: Vec<i64> = (1..264).collect();
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &numbers));
        drop(reader);
        running.stop().await;
        let report = verify_database(&fixture.db.url, None).await.unwrap();
        assert_eq!((report.records(), report.parked), (263, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_whose_head_is_gone_or_ends_too_early_is_not_begun_anew() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "catalog");
        fixture.fill(&mut client, "acme", 1, 300).await;
        let tables = Tables::open(&fixture.db).await;
        let keep = "CREATE TABLE kept AS SELECT * FROM audit_head WHERE log = 'acme'";
        tables.run(keep, vec![]).await;
        let mut next = 301;
        for (damage, why) in [
            ("DELETE FROM audit_head WHERE log = 'acme'", "its head is gone"),
            (
                "UPDATE audit_head SET tree_size = 256, root_hash = (SELECT hashes FROM audit_tile \
              WHERE log = 'acme' AND level = 1 AND idx = 0) WHERE log = 'acme'",
                "do not end where its head says",
            ),
        ] {
            assert_eq!(tables.run(damage, vec![]).await, 1);
            let mixed = [("acme", next), ("umbrella", next + 1)];
            assert_eq!(ship(&fixture, &mut client, &mixed).await.unwrap(), next + 1);
            let said = running.degraded().await;
            assert!(said.len() == 1 && said[0].contains(why) && said[0].contains(": 1 events"), "{said:?}");
            tables.run("DELETE FROM audit_head WHERE log = 'acme'", vec![]).await;
            tables.run("INSERT INTO audit_head SELECT * FROM kept", vec![]).await;
            running.well().await;
            tables.run("DELETE FROM kept", vec![]).await;
            tables.run("INSERT INTO kept SELECT * FROM audit_head WHERE log = 'acme'", vec![]).await;
            next += 2;
        }
        tables.run("DROP TABLE kept", vec![]).await;
        drop(client);
        running.stop().await;
        let report = verify_database(&fixture.db.url, None).await.unwrap();
        assert_eq!((report.records(), report.parked), (304, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_record_holds_no_repeat_up() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "catalog");
        fixture.fill(&mut client, "acme", 1, 3).await;
        let tables = Tables::open(&fixture.db).await;
        let row = "log = 'acme' AND idx = 1";
        // The brace that begins it.
        let before = tables.read("audit_record", row, "body", Kind::Bytes(0)).await;
        tables.write("audit_record", row, "body", changed(&before, Kind::Bytes(0))).await;
        let again = [("acme", 1), ("acme", 2), ("acme", 3), ("umbrella", 4)];
        assert_eq!(ship(&fixture, &mut client, &again).await.unwrap(), 4);
        let other = vec![("acme", 2, event("acme", 77))];
        let (stored, _) = diverged(fixture.append(&mut client, "catalog", "e1", other).await, "2");
        assert_eq!(stored, format!("{} (damaged)", ids_of("acme", &[2])[0]));
        running.stop().await;
    })
    .await;
}

/// Without the reader in the background, and without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_changed_record_has_its_log_held_and_an_operator_finds_it() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running =
            fixture.start_with(Config { check_records_per_second: 0, ..fixture.config() }).await.unwrap();
        let (mut client, mut reader) =
            (fixture.client(&running, "catalog"), fixture.client(&running, "gateway"));
        fixture.fill(&mut client, "acme", 1, 3).await;
        let tables = Tables::open(&fixture.db).await;
        for (row, column, index) in [(1, "body", 1), (0, "leaf_hash", 0)] {
            let row = format!("log = 'acme' AND idx = {row}");
            let before = tables.read("audit_record", &row, column, Kind::Bytes(9)).await;
            tables.write("audit_record", &row, column, changed(&before, Kind::Bytes(9))).await;
            internal(fixture.list(&mut reader, "acme", Default::default()).await);
            let why = format!("record {index} is not what its tile says");
            told(&running, &why).await;
            tables.write("audit_record", &row, column, before).await;
            running.well().await;
        }
        drop((client, reader));
        running.stop().await;

        // One that nobody has read yet.
        let row = "log = 'acme' AND idx = 1";
        let before = tables.read("audit_record", row, "body", Kind::Bytes(9)).await;
        tables.write("audit_record", row, "body", changed(&before, Kind::Bytes(9))).await;
        let ledger = Ledger::open(&fixture.config(), fixture.db.connect().await).unwrap();
        let found = ledger.look().await.unwrap();
        let why = found.iter().map(|found| found.damage.as_deref()).collect::<Vec<_>>();
        assert_eq!(why, [Some("record 1 is not what its tile says")]);
        assert_eq!(found[0].lost(), None);
        tables.write("audit_record", row, "body", before).await;
        assert_eq!(ledger.look().await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_parked_events_are_missing_is_not_let_go() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut client, mut reader) =
            (fixture.client(&running, "catalog"), fixture.client(&running, "gateway"));
        fixture.fill(&mut client, "acme", 1, 3).await;
        let damage = Damage::to(&fixture).await;
        assert_eq!(ship(&fixture, &mut client, &[("acme", 4), ("acme", 5)]).await.unwrap(), 5);
        let gone = "DELETE FROM audit_parked WHERE arrival = (SELECT MIN(arrival) FROM audit_parked)";
        let tables = Tables::open(&fixture.db).await;
        assert_eq!(tables.run(gone, vec![]).await, 1);
        damage.repair().await;
        told(&running, "1 parked records of").await;
        // Where others look for it, too.
        let why = tables.read("audit_held", LOG, "why", Kind::Text).await;
        assert!(format!("{why:?}").contains("1 parked records of"), "{why:?}");
        assert_eq!(size(&fixture, &mut reader, "acme").await, 3, "the others wait on");
        drop((client, reader));
        running.stop().await;
    })
    .await;
}

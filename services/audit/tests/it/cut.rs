//! A log that is cut, emptied or replaced while the service runs: it is held, and what was signed of it stays known.

use std::path::Path;
use std::time::Duration;

use pavior_audit::Config;
use pavior_audit::restore::{Ledger, LogFinding};
use pavior_core::audit::{AuditClass, AuditEvent};
use pavior_core::clock::Clock as _;
use pavior_testkit::{db, wait_for};

use crate::damage::{ids, ids_of, ship, size};
use crate::restore::{checkpoints, config};
use crate::support::{Client, Fixture, Running, event};
use crate::tamper::Tables;

const LIMIT: Duration = Duration::from_secs(20);
const TABLES: [&str; 4] = ["audit_head", "audit_checkpoint", "audit_tile", "audit_record"];

/// Keeps the rows of a log as they are.
pub(crate) async fn keep(tables: &Tables, name: &str) {
    for table in TABLES {
        tables
            .run(&format!("CREATE TABLE {name}_{table} AS SELECT * FROM {table} WHERE log = 'acme'"), vec![])
            .await;
    }
}

/// Takes the rows of a log away, and puts those that were kept there.
pub(crate) async fn put(tables: &Tables, name: Option<&str>) {
    let statements = TABLES.iter().flat_map(|table| {
        let put = name.map(|name| format!("INSERT INTO {table} SELECT * FROM {name}_{table}"));
        [Some(format!("DELETE FROM {table} WHERE log = 'acme'")), put].into_iter().flatten()
    });
    tables.run_together(statements.collect()).await;
}

/// Records 303 events of a log and sets it back to the first 300.
async fn cut_back(fixture: &Fixture, client: &mut Client) -> Tables {
    let tables = Tables::open(&fixture.db).await;
    fixture.fill(client, "acme", 1, 300).await;
    keep(&tables, "older").await;
    fixture.fill(client, "acme", 301, 3).await;
    put(&tables, Some("older")).await;
    tables
}

pub(crate) async fn kept(fixture: &Fixture, size: &str) {
    kept_in(&checkpoints(fixture), size).await;
}

async fn kept_in(folder: &Path, size: &str) {
    let file = folder.join("acme.checkpoint");
    wait_for("the checkpoint", LIMIT, async || {
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        if found.lines().nth(1) == Some(size) { Ok(()) } else { Err(found) }
    })
    .await;
}

pub(crate) async fn told(running: &Running, part: &str) {
    wait_for("the damage to be told", LIMIT, async || {
        let said = running.degraded().await;
        if said.iter().any(|why| why.contains(part)) { Ok(()) } else { Err(said) }
    })
    .await;
}

pub(crate) fn clients(fixture: &Fixture, running: &Running) -> (Client, Client) {
    (fixture.client(running, "catalog"), fixture.client(running, "gateway"))
}

pub(crate) fn lost(found: &LogFinding) -> AuditEvent {
    AuditEvent {
        audit_class: AuditClass::Required,
        action: "platform.restore".into(),
        summary: found.lost().unwrap(),
        ..event(&found.log, 1_000)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_is_cut_or_emptied_while_it_runs_is_held_and_its_checkpoint_stays() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let (mut client, mut reader) = clients(&fixture, &running);
        let tables = Tables::open(&fixture.db).await;
        fixture.fill(&mut client, "acme", 1, 5).await;
        keep(&tables, "older").await;
        fixture.fill(&mut client, "acme", 6, 3).await;
        kept(&fixture, "8").await;
        keep(&tables, "newer").await;
        for (copy, next, has) in [(Some("older"), 9, 5), (None, 11, 0)] {
            let signed = (next + 7) / 2;
            kept(&fixture, &signed.to_string()).await;
            put(&tables, copy).await;
            assert_eq!(
                ship(&fixture, &mut client, &[("acme", next), ("umbrella", next + 1)]).await.unwrap(),
                next + 1
            );
            let why = format!("it has {has} records, but {signed} were signed");
            told(&running, &why).await;
            assert_eq!(size(&fixture, &mut reader, "acme").await, has);
            kept(&fixture, &signed.to_string()).await;
            put(&tables, Some("newer")).await;
            running.well().await;
            assert_eq!(size(&fixture, &mut reader, "acme").await, signed + 1);
            for table in TABLES {
                tables.run(&format!("DROP TABLE newer_{table}"), vec![]).await;
            }
            keep(&tables, "newer").await;
        }
        assert_eq!(
            ids(&fixture, &mut reader, "acme").await,
            ids_of("acme", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11])
        );
        kept(&fixture, "10").await;
        // One that was cut while nobody looked is found at the start, which goes on all the same.
        drop((client, reader));
        running.stop().await;
        put(&tables, Some("older")).await;
        for next in [13, 15] {
            let running = fixture.start_with(config(&fixture)).await.unwrap();
            let (mut client, mut reader) = clients(&fixture, &running);
            told(&running, "it has 5 records, but 10 were signed").await;
            assert_eq!(
                ship(&fixture, &mut client, &[("umbrella", next), ("acme", next + 1)]).await.unwrap(),
                next + 1
            );
            assert_eq!(size(&fixture, &mut reader, "acme").await, 5);
            drop((client, reader));
            running.stop().await;
            kept(&fixture, "10").await;
        }
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        told(&running, "2 events wait for its repair").await;
        put(&tables, Some("newer")).await;
        running.well().await;
        let (client, mut reader) = clients(&fixture, &running);
        assert_eq!(
            ids(&fixture, &mut reader, "acme").await,
            ids_of("acme", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 16])
        );
        drop((client, reader));
        running.stop().await;
    })
    .await;
}

/// Processes that know what is lost drop it when an operator has accepted the loss, whoever looks first.
#[tokio::test(flavor = "multi_thread")]
async fn loss_that_is_accepted_while_processes_run_stays_accepted() {
    let Some(db) = db::postgres().await else { return };
    let fixture = Fixture::new(db);
    let busy = fixture.start_with(config(&fixture)).await.unwrap();
    let (mut client, reader) = clients(&fixture, &busy);
    let tables = Tables::open(&fixture.db).await;
    fixture.fill(&mut client, "acme", 1, 300).await;
    keep(&tables, "older").await;
    fixture.fill(&mut client, "acme", 301, 3).await;
    kept(&fixture, "303").await;
    // On another host, with a folder of its own that `pavior restore` never sees.
    let folder = tempfile::tempdir().unwrap();
    let apart = Config { checkpoints_dir: Some(folder.path().to_owned()), ..config(&fixture) };
    let idle = fixture.start_with(apart.clone()).await.unwrap();
    put(&tables, Some("older")).await;
    assert_eq!(ship(&fixture, &mut client, &[("acme", 304)]).await.unwrap(), 304);
    told(&busy, "it has 300 records, but 303 were signed").await;

    let ledger = Ledger::open(&config(&fixture), fixture.db.connect().await).unwrap();
    ledger.accept(&ledger.look().await.unwrap(), lost, fixture.clock.now()).await.1.unwrap();
    busy.well().await;
    idle.well().await;
    assert_eq!(ship(&fixture, &mut client, &[("acme", 305)]).await.unwrap(), 305);
    busy.well().await;
    drop((client, reader));
    busy.stop().await;
    let (mut client, mut reader) = clients(&fixture, &idle);
    assert_eq!(ship(&fixture, &mut client, &[("acme", 306)]).await.unwrap(), 306);
    idle.well().await;
    assert_eq!(ledger.look().await.unwrap(), []);
    let mut expected: Vec<i64> = (1..=300).collect();
    expected.extend([1_000, 304, 305, 306]);
    assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &expected));
    let names = std::fs::read_dir(checkpoints(&fixture)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".lost-")).count(), 1);
    // Neither does it know better after a restart.
    drop((client, reader));
    idle.stop().await;
    assert!(folder.path().join("acme.checkpoint.lost-303-0").is_file());
    let idle = fixture.start_with(apart).await.unwrap();
    idle.well().await;
    let (client, reader) = clients(&fixture, &idle);
    // What was accepted once excuses nothing that is lost later.
    kept_in(folder.path(), "304").await;
    put(&tables, Some("older")).await;
    told(&idle, "it has 300 records, but 304 were signed").await;
    drop((client, reader));
    idle.stop().await;
}

/// Also while nobody writes to it.
#[tokio::test(flavor = "multi_thread")]
async fn idle_log_that_was_cut_is_told() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut client, reader) = clients(&fixture, &running);
        let tables = cut_back(&fixture, &mut client).await;
        told(&running, "it has 300 records, but 303 were signed").await;
        put(&tables, None).await;
        drop((client, reader));
        running.stop().await;
    })
    .await;
}

/// What a process knew of a log that was cut outlives it, without a second place too.
#[tokio::test(flavor = "multi_thread")]
async fn log_that_was_cut_stays_held_over_a_restart_until_the_loss_is_accepted() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut client, reader) = clients(&fixture, &running);
        cut_back(&fixture, &mut client).await;
        assert_eq!(ship(&fixture, &mut client, &[("acme", 304)]).await.unwrap(), 304);
        told(&running, "it has 300 records, but 303 were signed").await;
        drop((client, reader));
        running.stop().await;

        let running = fixture.start().await;
        let (mut client, reader) = clients(&fixture, &running);
        assert_eq!(ship(&fixture, &mut client, &[("acme", 305)]).await.unwrap(), 305);
        told(&running, "it has 300 records, but 303 were signed").await;
        drop((client, reader));
        running.stop().await;

        let ledger = Ledger::open(&fixture.config(), fixture.db.connect().await).unwrap();
        let found = ledger.look().await.unwrap();
        assert_eq!((found.len(), found[0].waiting, found[0].missing), (1, 2, None));
        let said = "audit log `acme` has 300 records, but 303 were signed: its database is older";
        assert_eq!(found[0].lost().as_deref(), Some(said));
        ledger.accept(&found, lost, fixture.clock.now()).await.1.unwrap();
        drop(ledger);
        let running = fixture.start().await;
        running.well().await;
        let (client, mut reader) = clients(&fixture, &running);
        let mut expected: Vec<i64> = (1..=300).collect();
        expected.extend([1_000, 304, 305]);
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &expected));
        drop((client, reader));
        assert_eq!(running.proven(&fixture).await.accepted_losses, 3);
    })
    .await;
}

/// Whether a database is an older copy is told by what was acknowledged and accepted; only what is signed was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn acceptance_that_nobody_signed_stops_no_start() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let (mut client, reader) = clients(&fixture, &running);
        fixture
            .append(&mut client, "catalog", "e2", vec![("umbrella", 1, event("umbrella", 1))])
            .await
            .unwrap();
        let tables = Tables::open(&fixture.db).await;
        fixture.fill(&mut client, "acme", 1, 5).await;
        keep(&tables, "older").await;
        fixture.fill(&mut client, "acme", 6, 3).await;
        kept(&fixture, "8").await;
        drop((client, reader));
        running.stop().await;
        put(&tables, Some("older")).await;
        let accept = async || {
            let ledger = Ledger::open(&config(&fixture), fixture.db.connect().await).unwrap();
            ledger.accept(&ledger.look().await.unwrap(), lost, fixture.clock.now()).await.1.unwrap();
            ledger.look().await.unwrap()
        };
        assert_eq!(accept().await, []);
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let (mut client, reader) = clients(&fixture, &running);
        fixture.fill(&mut client, "acme", 9, 4).await;
        kept(&fixture, "10").await;
        drop((client, reader));
        running.stop().await;
        put(&tables, Some("older")).await;
        tables.run("UPDATE audit_accepted SET absent = 1000000", vec![]).await;
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        told(&running, "it has 5 records, but 10 were signed").await;
        running.stop().await;
        // Neither keeps it the operator from going on, nor that no acceptance is known in the database any more.
        assert_eq!(accept().await, []);
        tables.run("DELETE FROM audit_accepted", vec![]).await;
        put(&tables, Some("older")).await;
        assert_eq!(accept().await, []);
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        running.well().await;
        // One that is signed keeps the log from falling behind it, also where nothing is kept outside.
        running.stop().await;
        std::fs::remove_dir_all(checkpoints(&fixture)).unwrap();
        put(&tables, Some("older")).await;
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        told(&running, "it has 5 records, but 6 were signed").await;
        running.stop().await;
    })
    .await;
}

/// Replicas know different things of a log: who has not seen what was cut off may have grown it meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn log_that_another_process_grew_from_an_older_copy_is_held() {
    let Some(db) = db::postgres().await else { return };
    let fixture = Fixture::new(db);
    let running = fixture.start().await;
    let (mut client, mut reader) = clients(&fixture, &running);
    let tables = Tables::open(&fixture.db).await;
    fixture.fill(&mut client, "acme", 1, 5).await;
    keep(&tables, "older").await;
    fixture.fill(&mut client, "acme", 6, 3).await;
    put(&tables, Some("older")).await;
    let other = fixture.start().await;
    let mut policy = fixture.client(&other, "policy");
    let events = (1..=9).map(|n| ("acme", n, event("acme", 100 + n))).collect();
    fixture.append(&mut policy, "policy", "e1", events).await.unwrap();
    assert_eq!(ship(&fixture, &mut client, &[("acme", 9)]).await.unwrap(), 9);
    let why = "its first 8 of 14 records are not those that were signed";
    told(&running, why).await;
    told(&other, why).await;
    assert_eq!(size(&fixture, &mut reader, "acme").await, 14);
    drop((client, reader, policy));
    running.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_with_a_record_that_was_changed_is_held_until_it_is_as_before() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let config = || Config { check_records_per_second: 1_000_000, ..fixture.config() };
        let running = fixture.start_with(config()).await.unwrap();
        let (mut client, reader) = clients(&fixture, &running);
        fixture.fill(&mut client, "acme", 1, 600).await;
        drop((client, reader));
        running.stop().await;
        let tables = Tables::open(&fixture.db).await;
        let row = "log = 'acme' AND idx = 300";
        let keep = format!("CREATE TABLE kept AS SELECT body FROM audit_record WHERE {row}");
        tables.run(&keep, vec![]).await;
        let other = format!("UPDATE audit_record SET body = (SELECT body FROM audit_record WHERE log = 'acme' AND idx = 301) WHERE {row}");
        assert_eq!(tables.run(&other, vec![]).await, 1);

        // The checker reads once after each start; the second start finds what the first one said.
        for next in [601, 602] {
            let running = fixture.start_with(config()).await.unwrap();
            let (mut client, mut reader) = clients(&fixture, &running);
            told(&running, "record 300 is not what its tile says").await;
            assert_eq!(ship(&fixture, &mut client, &[("acme", next)]).await.unwrap(), next);
            assert_eq!(size(&fixture, &mut reader, "acme").await, 600);
            drop((client, reader));
            running.stop().await;
        }
        let running = fixture.start_with(config()).await.unwrap();
        told(&running, "2 events wait for its repair").await;
        tables.run(&format!("UPDATE audit_record SET body = (SELECT body FROM kept) WHERE {row}"), vec![]).await;
        running.well().await;
        tables.run("DROP TABLE kept", vec![]).await;
        assert_eq!(running.proven(&fixture).await.records(), 602);
    })
    .await;
}

/// SQLite takes any value in any column.
#[tokio::test(flavor = "multi_thread")]
async fn value_of_another_type_damages_the_log_that_it_is_of_and_no_other() {
    for (column, damage) in [
        ("`tree_size`", "UPDATE audit_head SET tree_size = 'many' WHERE log = 'acme'"),
        ("`note`", "UPDATE audit_checkpoint SET note = X'ff00ff' WHERE log = 'acme'"),
        ("`body_bytes`", "UPDATE audit_record SET body_bytes = 'x' WHERE log = 'acme' AND idx = 2"),
        ("`width`", "UPDATE audit_tile SET width = 'x' WHERE log = 'acme'"),
    ] {
        let fixture = Fixture::new(db::sqlite());
        let running = fixture.start().await;
        let (mut client, reader) = clients(&fixture, &running);
        fixture.fill(&mut client, "acme", 1, 3).await;
        let tables = Tables::open(&fixture.db).await;
        assert!(tables.run(damage, vec![]).await > 0);
        // Whether it is noticed by growing depends on the row; from a start on it is.
        drop((client, reader));
        running.stop().await;
        let running = fixture.start().await;
        let (mut client, mut reader) = clients(&fixture, &running);
        let why = format!("audit log `acme` is damaged (the stored value of column {column} cannot be read)");
        told(&running, &why).await;
        assert_eq!(
            ship(&fixture, &mut client, &[("umbrella", 4), ("acme", 5), ("umbrella", 6)]).await.unwrap(),
            6
        );
        assert_eq!(ids(&fixture, &mut reader, "umbrella").await, ids_of("umbrella", &[4, 6]));
        drop((client, reader));
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_whose_head_becomes_unreadable_while_it_runs_stops_nobody() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let (mut client, mut reader) = clients(&fixture, &running);
    fixture.fill(&mut client, "acme", 1, 3).await;
    let tables = Tables::open(&fixture.db).await;
    assert_eq!(tables.run("UPDATE audit_head SET tree_size = 'many' WHERE log = 'acme'", vec![]).await, 1);
    assert_eq!(ship(&fixture, &mut client, &[("acme", 4), ("umbrella", 5)]).await.unwrap(), 5);
    told(&running, "column `tree_size` cannot be read): 1 events wait").await;
    assert_eq!(ids(&fixture, &mut reader, "umbrella").await, ids_of("umbrella", &[5]));
    tables.run("UPDATE audit_head SET tree_size = 3 WHERE log = 'acme'", vec![]).await;
    running.well().await;
    assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &[1, 2, 3, 4]));
    drop((client, reader));
    running.stop().await;
}

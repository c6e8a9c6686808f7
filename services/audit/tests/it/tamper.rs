//! Whatever is changed in the database, the verifier says so, and names the first bad record where there is one.

use pavior_audit::Config;
use pavior_audit_verifier::{
    CheckpointStatus, Failure, Options, VerifierKey, VerifyError, leaf_hash, verify_database,
    verify_database_with,
};
use pavior_testkit::db::{self, TestDb};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement, TransactionTrait as _, Value};

use crate::support::{Fixture, event};

/// A column of one row: what is found when it is changed.
struct Place {
    table: &'static str,
    row: &'static str,
    column: &'static str,
    kind: Kind,
    log: &'static str,
    index: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Text,
    Number,
    /// The byte to flip.
    Bytes(usize),
}

const RECORD: &str = "log = 'acme' AND idx = 300";
const TILE: &str = "log = 'acme' AND level = 0 AND idx = 1";
const UPPER: &str = "log = 'acme' AND level = 1 AND idx = 0";
pub(crate) const LOG: &str = "log = 'acme'";
const PRODUCER: &str = "service = 'catalog' AND epoch = 'e1'";

fn places() -> Vec<Place> {
    use Kind::{Bytes, Number, Text};
    let at = |table, row, column, kind, log, index| Place { table, row, column, kind, log, index };
    let mut places: Vec<Place> = [
        "event_id",
        "audit_class",
        "action",
        "principal",
        "target",
        "target_type",
        "project",
        "effect",
        "status",
        "call_id",
        "request_id",
        "operation",
        "service",
        "epoch",
    ]
    .map(|column| at("audit_record", RECORD, column, Text, "acme", Some(300)))
    .into();
    places.extend(
        ["idx", "body_bytes", "receive_time", "event_time", "seq"]
            .map(|column| at("audit_record", RECORD, column, Number, "acme", Some(300))),
    );
    places
        .extend([0, 17, 400].map(|byte| at("audit_record", RECORD, "body", Bytes(byte), "acme", Some(300))));
    places.extend([
        at("audit_record", RECORD, "leaf_hash", Bytes(31), "acme", Some(300)),
        at("audit_record", RECORD, "log", Text, "acmf", Some(300)),
        at("audit_tile", TILE, "hashes", Bytes(44 * 32 + 5), "acme", Some(300)),
        at("audit_tile", TILE, "width", Number, "acme", Some(512)),
        at("audit_tile", TILE, "idx", Number, "acme", Some(256)),
        at("audit_tile", TILE, "level", Number, "acme", Some(256)),
        at("audit_tile", TILE, "log", Text, "acmf", None),
        at("audit_tile", UPPER, "hashes", Bytes(32), "acme", Some(256)),
        at("audit_head", LOG, "log", Text, "acme", Some(0)),
        at("audit_head", LOG, "origin", Text, "acme", None),
        at("audit_head", LOG, "tree_size", Number, "acme", None),
        at("audit_head", LOG, "root_hash", Bytes(0), "acme", None),
        at("audit_checkpoint", LOG, "log", Text, "acmf", None),
        at("audit_checkpoint", LOG, "tree_size", Number, "acme", None),
        at("audit_checkpoint", LOG, "root_hash", Bytes(0), "acme", None),
        at("audit_checkpoint", LOG, "note", Text, "acme", None),
        at("audit_checkpoint", LOG, "verifier_key", Text, "acme", None),
        at("audit_checkpoint", LOG, "sign_time", Number, "acme", None),
        at("audit_producer", PRODUCER, "service", Text, "acme", Some(0)),
        at("audit_producer", PRODUCER, "epoch", Text, "acme", Some(0)),
        at("audit_producer", PRODUCER, "last_seq", Number, "(all)", None),
    ]);
    places
}

pub(crate) struct Tables {
    connection: DatabaseConnection,
}

impl Tables {
    pub(crate) async fn open(db: &TestDb) -> Self {
        Self { connection: Database::connect(&db.url).await.unwrap() }
    }

    pub(crate) async fn run(&self, sql: &str, values: Vec<Value>) -> u64 {
        let statement = Statement::from_sql_and_values(self.connection.get_database_backend(), sql, values);
        self.connection.execute_raw(statement).await.unwrap().rows_affected()
    }

    /// All in one transaction.
    pub(crate) async fn run_together(&self, statements: Vec<String>) {
        let tx = self.connection.begin().await.unwrap();
        for sql in statements {
            tx.execute_unprepared(&sql).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    pub(crate) async fn read(&self, table: &str, row: &str, column: &str, kind: Kind) -> Value {
        let sql = format!("SELECT {column} AS found FROM {table} WHERE {row}");
        let statement = Statement::from_string(self.connection.get_database_backend(), sql);
        let found = self.connection.query_one_raw(statement).await.unwrap().unwrap();
        match kind {
            Kind::Text => found.try_get::<String>("", "found").unwrap().into(),
            Kind::Bytes(_) => found.try_get::<Vec<u8>>("", "found").unwrap().into(),
            Kind::Number => match found.try_get::<i64>("", "found") {
                Ok(number) => number.into(),
                Err(_) => found.try_get::<i32>("", "found").unwrap().into(),
            },
        }
    }

    /// Marks the row by its place in the table, which no change of a column moves.
    async fn pin(&self, table: &str, row: &str) -> String {
        let column = match self.connection.get_database_backend() {
            sea_orm::DbBackend::Sqlite => "CAST(rowid AS TEXT)",
            _ => "CAST(ctid AS TEXT)",
        };
        let Value::String(Some(at)) = self.read(table, row, column, Kind::Text).await else { panic!() };
        match self.connection.get_database_backend() {
            sea_orm::DbBackend::Sqlite => format!("rowid = {at}"),
            _ => format!("ctid = '{at}'"),
        }
    }

    pub(crate) async fn write(&self, table: &str, row: &str, column: &str, value: Value) {
        assert_eq!(self.run(&format!("UPDATE {table} SET {column} = $1 WHERE {row}"), vec![value]).await, 1);
    }
}

pub(crate) fn changed(value: &Value, kind: Kind) -> Value {
    match (value.clone(), kind) {
        (Value::String(Some(text)), _) => {
            // The last character, or one more where there is none.
            let mut text: String = text;
            let last = text.pop();
            text.push(if last == Some('f') { 'g' } else { 'f' });
            text.into()
        }
        (Value::Bytes(Some(mut bytes)), Kind::Bytes(at)) => {
            bytes[at] ^= 1;
            Value::Bytes(Some(bytes))
        }
        (Value::BigInt(Some(number)), _) => {
            // Beyond every other key.
            (number + 1_000_000).into()
        }
        (Value::Int(Some(number)), _) => (number + 5).into(),
        other => panic!("{other:?}"),
    }
}

async fn failure(db: &TestDb, keys: &Option<Vec<VerifierKey>>) -> Failure {
    match verify_database(&db.url, keys.clone()).await {
        Err(VerifyError::Tampered(failure)) => failure,
        other => panic!("not found: {other:?}"),
    }
}

/// Two logs, one producer: 600 records, then 50.
async fn filled(db: TestDb) -> (Fixture, Option<Vec<VerifierKey>>) {
    let fixture = Fixture::new(db);
    let running = fixture.start().await;
    let mut writer = fixture.client(&running, "catalog");
    fixture.fill(&mut writer, "acme", 1, 600).await;
    fixture.fill(&mut writer, "umbrella", 601, 50).await;
    let mut reader = fixture.client(&running, "gateway");
    let mut keys = Vec::new();
    for log in ["acme", "umbrella"] {
        keys.push(VerifierKey::parse(&fixture.checkpoint(&mut reader, log).await.verifier_key).unwrap());
    }
    running.stop().await;
    (fixture, Some(keys))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_column_is_found() {
    db::both(|db| async {
        let (fixture, keys) = filled(db).await;
        let tables = Tables::open(&fixture.db).await;
        for place in places() {
            let Place { table, row, column, kind, log, index } = place;
            let label = format!("{table}.{column} on {}", fixture.db.kind);
            let before = tables.read(table, row, column, kind).await;
            let mut row = tables.pin(table, row).await;
            tables.write(table, &row, column, changed(&before, kind)).await;
            let found = failure(&fixture.db, &keys).await;
            assert_eq!((found.log.as_str(), found.first_bad_index), (log, index), "{label}: {found}");
            if index == Some(300) && !["idx", "event_id"].contains(&column) {
                let event_id = event("acme", 301).event_id.to_string();
                assert_eq!(found.event_id, Some(event_id), "{label}");
            }
            if fixture.db.kind == "postgres" {
                // An update moves the row there; the changed value finds it.
                row = tables.pin(table, &moved(&place_row(table), column, &changed(&before, kind))).await;
            }
            tables.write(table, &row, column, before).await;
        }
        let report = verify_database(&fixture.db.url, keys).await.unwrap();
        assert_eq!(report.records(), 650);
    })
    .await;
}

/// How a table's row under test is found without the column that was changed.
fn place_row(table: &str) -> Vec<(&'static str, &'static str)> {
    match table {
        "audit_record" => vec![("log", "'acme'"), ("idx", "300")],
        "audit_tile" => vec![("log", "'acme'")],
        "audit_producer" => vec![("service", "'catalog'"), ("epoch", "'e1'")],
        _ => vec![("log", "'acme'")],
    }
}

fn moved(keys: &[(&str, &str)], column: &str, value: &Value) -> String {
    let value = match value {
        Value::String(Some(text)) => format!("'{text}'"),
        Value::Bytes(Some(bytes)) => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("'\\x{hex}'::bytea")
        }
        Value::BigInt(Some(number)) => number.to_string(),
        Value::Int(Some(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let others =
        keys.iter().filter(|(key, _)| *key != column).map(|(key, value)| format!(" AND {key} = {value}"));
    format!("{column} = {value}{}", others.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_and_swapped_rows_are_found() {
    db::both(|db| async {
        let (fixture, keys) = filled(db).await;
        let tables = Tables::open(&fixture.db).await;
        let copy = |table: &str, row: &str| {
            let sql = format!("CREATE TABLE kept AS SELECT * FROM {table} WHERE {row}");
            let back = format!("INSERT INTO {table} SELECT * FROM kept");
            (sql, format!("DELETE FROM {table} WHERE {row}"), back)
        };
        for (table, row, log, index) in [
            ("audit_record", RECORD, "acme", Some(300)),
            ("audit_record", "log = 'acme' AND idx >= 590", "acme", Some(590)),
            ("audit_record", "log = 'acme' AND idx = 0", "acme", Some(0)),
            ("audit_record", LOG, "acme", Some(0)),
            ("audit_tile", TILE, "acme", Some(256)),
            ("audit_tile", UPPER, "acme", Some(0)),
            ("audit_head", LOG, "acme", Some(0)),
            ("audit_checkpoint", LOG, "acme", None),
            ("audit_producer", PRODUCER, "acme", Some(0)),
        ] {
            let (keep, remove, back) = copy(table, row);
            tables.run(&keep, vec![]).await;
            tables.run(&remove, vec![]).await;
            let found = failure(&fixture.db, &keys).await;
            assert_eq!((found.log.as_str(), found.first_bad_index), (log, index), "{table} {row}: {found}");
            tables.run(&back, vec![]).await;
            tables.run("DROP TABLE kept", vec![]).await;
        }
        let swap =
            |a: i64, b: i64| format!("UPDATE audit_record SET idx = {b} WHERE log = 'acme' AND idx = {a}");
        for (a, b) in [(10, -1), (20, 10), (-1, 20)] {
            assert_eq!(tables.run(&swap(a, b), vec![]).await, 1);
        }
        let found = failure(&fixture.db, &keys).await;
        assert_eq!((found.log.as_str(), found.first_bad_index), ("acme", Some(10)), "{found}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_was_cut_clean_through_is_found_by_what_was_acknowledged() {
    // Records, tiles, head and checkpoint of a smaller log, all of them genuine: taken from a copy.
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let mut writer = fixture.client(&running, "catalog");
    fixture.fill(&mut writer, "acme", 1, 100).await;
    // The file stays locked while anything can reach the service.
    drop(writer);
    running.stop().await;
    let path = fixture.db.url.trim_start_matches("sqlite://").trim_end_matches("?mode=rwc").to_owned();
    let copy = fixture.folder.path().join("copy.db").display().to_string();
    Tables::open(&fixture.db).await.run(&format!("VACUUM INTO '{copy}'"), vec![]).await;

    let running = fixture.start().await;
    let mut writer = fixture.client(&running, "catalog");
    fixture.fill(&mut writer, "acme", 101, 50).await;
    let mut reader = fixture.client(&running, "gateway");
    let seen = fixture.checkpoint(&mut reader, "acme").await;
    running.stop().await;
    let keys = Some(vec![VerifierKey::parse(&seen.verifier_key).unwrap()]);
    let options = Options { keys: keys.clone(), remembered: vec![seen.note], indexes: true };
    // The log itself goes on from what was seen; the copy is sound but behind it.
    verify_database_with(&path, options.clone()).await.unwrap();
    assert_eq!(verify_database(&copy, keys.clone()).await.unwrap().records(), 100);
    let error = verify_database_with(&copy, options).await.unwrap_err();
    assert_eq!(error.failure().unwrap().first_bad_index, Some(100), "{error}");

    // The same rows put into the newer database are betrayed by the producer's number.
    let tables = Tables::open(&fixture.db).await;
    tables.run(&format!("ATTACH '{copy}' AS old"), vec![]).await;
    for table in ["audit_record", "audit_tile", "audit_head", "audit_checkpoint"] {
        tables.run(&format!("DELETE FROM {table}"), vec![]).await;
        tables.run(&format!("INSERT INTO {table} SELECT * FROM old.{table}"), vec![]).await;
    }
    let error = verify_database(&path, keys).await.unwrap_err();
    assert!(error.to_string().contains("150 was acknowledged"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forger_without_the_key_is_found_out() {
    let (fixture, keys) = filled(db::sqlite()).await;
    // Another installation with another key and other records of the same names.
    let (forged, forged_keys) = filled(db::sqlite()).await;
    let report = verify_database(&forged.db.url, None).await.unwrap();
    assert!(report.logs.iter().all(|log| log.checkpoint == CheckpointStatus::SelfDeclared));
    let found = failure(&forged.db, &keys).await;
    assert!(found.why.contains("no signature by key"), "{found}");
    assert!(verify_database(&forged.db.url, forged_keys).await.is_ok());

    // A record rewritten with its leaf hash, which its tile betrays; then with the tile too, which the next level does.
    let tables = Tables::open(&fixture.db).await;
    let Value::Bytes(Some(body)) = tables.read("audit_record", RECORD, "body", Kind::Bytes(0)).await else {
        panic!()
    };
    let text = String::from_utf8(body.clone())
        .unwrap()
        .replace("bob did", "eve did")
        .replace("alice did", "eve did");
    let leaf = leaf_hash(text.as_bytes());
    let bytes = text.clone().into_bytes();
    tables.write("audit_record", RECORD, "body", Value::Bytes(Some(bytes.clone()))).await;
    tables.write("audit_record", RECORD, "body_bytes", (bytes.len() as i64).into()).await;
    tables.write("audit_record", RECORD, "leaf_hash", Value::Bytes(Some(leaf.to_vec()))).await;
    let found = failure(&fixture.db, &keys).await;
    assert_eq!(found.first_bad_index, Some(300), "{found}");
    let Value::Bytes(Some(mut hashes)) = tables.read("audit_tile", TILE, "hashes", Kind::Bytes(0)).await
    else {
        panic!()
    };
    hashes[44 * 32..45 * 32].copy_from_slice(&leaf);
    tables.write("audit_tile", TILE, "hashes", Value::Bytes(Some(hashes))).await;
    let found = failure(&fixture.db, &keys).await;
    assert_eq!(found.first_bad_index, Some(256), "{found}");
    // With every hash recomputed only the signature is left, and it holds for another root.
    let mut upper = pavior_audit_verifier::Tree::new();
    let Value::Bytes(Some(level0)) = tables.read("audit_tile", TILE, "hashes", Kind::Bytes(0)).await else {
        panic!()
    };
    level0.chunks(32).for_each(|hash| upper.push(hash.try_into().unwrap()));
    let Value::Bytes(Some(mut level1)) = tables.read("audit_tile", UPPER, "hashes", Kind::Bytes(0)).await
    else {
        panic!()
    };
    level1[32..64].copy_from_slice(&upper.root());
    tables.write("audit_tile", UPPER, "hashes", Value::Bytes(Some(level1))).await;
    let found = failure(&fixture.db, &keys).await;
    assert!(found.first_bad_index.is_none() && found.why.contains("signed root"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_of_the_note_counts() {
    let (fixture, keys) = filled(db::sqlite()).await;
    let tables = Tables::open(&fixture.db).await;
    let Value::String(Some(note)) = tables.read("audit_checkpoint", LOG, "note", Kind::Text).await else {
        panic!()
    };
    let note: String = note;
    let characters: Vec<char> = note.chars().collect();
    for at in 0..characters.len() {
        let mut forged = characters.clone();
        forged[at] = if forged[at] == 'A' { 'B' } else { 'A' };
        let forged: String = forged.into_iter().collect();
        tables.write("audit_checkpoint", LOG, "note", forged.into()).await;
        assert_eq!(failure(&fixture.db, &keys).await.log, "acme", "character {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_anywhere_in_the_file_never_pass_as_another_log() {
    let (fixture, keys) = filled(db::sqlite()).await;
    let copy = fixture.folder.path().join("copy.db");
    let tables = Tables::open(&fixture.db).await;
    tables.run(&format!("VACUUM INTO '{}'", copy.display()), vec![]).await;
    let path = copy.display().to_string();
    let sound = verify_database(&path, keys.clone()).await.unwrap();
    let file = std::fs::read(&copy).unwrap();
    let mut found = 0;
    // Pages over the whole file, however many there are, and each at another place.
    let (page, pages) = (4_096, file.len() / 4_096);
    for at in (0..48).map(|n| n * pages / 48 * page + (101 + n * 1_237) % page) {
        let mut bytes = file.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&copy, &bytes).unwrap();
        let options = Options { keys: keys.clone(), indexes: true, ..Options::default() };
        match verify_database_with(&path, options).await {
            // Unused space.
            Ok(report) => assert_eq!(report, sound),
            Err(_) => found += 1,
        }
    }
    assert!(found > 24, "only {found} of 48 flips were found");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_starts_degraded_by_a_log_that_does_not_fit_together_and_not_with_another_key() {
    db::both(|db| async {
        let (fixture, _) = filled(db).await;
        let tables = Tables::open(&fixture.db).await;
        let last_tile = "log = 'acme' AND level = 0 AND idx = 2";
        let last_record = "log = 'acme' AND idx = 599";
        for (table, row, column, kind, why) in [
            ("audit_head", LOG, "root_hash", Kind::Bytes(3), "tiles do not hash to its head"),
            ("audit_head", LOG, "origin", Kind::Text, "its name is"),
            ("audit_tile", last_tile, "hashes", Kind::Bytes(9), "tiles do not hash to its head"),
            ("audit_tile", UPPER, "hashes", Kind::Bytes(9), "tiles do not hash to its head"),
            ("audit_checkpoint", LOG, "root_hash", Kind::Bytes(9), "last checkpoint is not that of its head"),
            ("audit_checkpoint", LOG, "note", Kind::Text, "not signed by the configured key"),
            ("audit_checkpoint", LOG, "verifier_key", Kind::Text, "not signed by the configured key"),
            ("audit_record", last_record, "body", Kind::Bytes(9), "last record was changed"),
            ("audit_record", last_record, "idx", Kind::Number, "records do not end where its head says"),
        ] {
            let before = tables.read(table, row, column, kind).await;
            let after = changed(&before, kind);
            tables.write(table, row, column, after.clone()).await;
            let running = fixture.start().await;
            let said = running.degraded().await;
            assert_eq!(said.len(), 1, "{table}.{column}: {said:?}");
            let about = said[0].starts_with("audit log `acme` is damaged (") && said[0].contains(why);
            assert!(
                about && said[0].ends_with("): 0 events wait for its repair"),
                "{table}.{column}: {said:?}"
            );
            let row = if column == "idx" { "log = 'acme' AND idx = 1000599" } else { row };
            tables.write(table, row, column, before).await;
            running.well().await;
            running.stop().await;
        }
        // Another key than the one that signed.
        let key = fixture.config().signing_key_file.unwrap();
        std::fs::rename(&key, key.with_extension("old")).unwrap();
        let error = fixture.start_with(fixture.config()).await.err().unwrap().to_string();
        assert!(error.contains("not signed by the configured key"), "{error}");
        std::fs::rename(key.with_extension("old"), &key).unwrap();
        // Another name for all logs.
        let config = Config { origin: "elsewhere".into(), ..fixture.config() };
        let error = fixture.start_with(config).await.err().unwrap().to_string();
        assert!(error.contains("its name is `pavior.dev/audit/acme`"), "{error}");
        fixture.start().await.stop().await;
    })
    .await;
}

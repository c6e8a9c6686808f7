//! A database that was set back to an older copy, and the checkpoints that are kept outside of it.

use std::path::PathBuf;

use pavior_audit::Config;
use pavior_audit::restore::{Ledger, LogFinding, Records};
use pavior_audit_verifier::verify_database;
use pavior_core::audit::{Affected, AuditClass, AuditEvent};
use pavior_core::clock::Clock as _;
use pavior_testkit::db;

use crate::support::{Fixture, event};

pub(crate) fn checkpoints(fixture: &Fixture) -> PathBuf {
    fixture.folder.path().join("checkpoints")
}

pub(crate) fn config(fixture: &Fixture) -> Config {
    Config { checkpoints_dir: Some(checkpoints(fixture)), ..fixture.config() }
}

/// Appends so many records to two logs and stops in order.
async fn run(fixture: &Fixture, config: Config, first: i64, count: i64) {
    let running = fixture.start_with(config).await.unwrap();
    let mut client = fixture.client(&running, "catalog");
    let log = |n: i64| if n % 3 == 0 { "umbrella" } else { "acme" };
    let events = (first..first + count).map(|n| (log(n), n, event(log(n), n))).collect();
    fixture.append(&mut client, "catalog", "e1", events).await.unwrap();
    running.stop().await;
}

pub(crate) async fn refused(fixture: &Fixture) -> String {
    match fixture.start_with(config(fixture)).await {
        Ok(_) => panic!("a log that was set back is served"),
        Err(error) => format!("{error:#}"),
    }
}

/// As `pavior restore` does.
async fn accept(fixture: &Fixture) -> Vec<LogFinding> {
    let ledger = Ledger::open(&config(fixture), fixture.db.connect().await).unwrap();
    let found = ledger.look().await.unwrap();
    let record = |lost: &LogFinding| AuditEvent {
        audit_class: AuditClass::Required,
        action: "platform.restore".into(),
        summary: lost.lost().unwrap(),
        ..event(&lost.log, 1_000)
    };
    ledger.accept(&found, record, fixture.clock.now()).await.1.unwrap();
    assert_eq!(ledger.look().await.unwrap(), []);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_was_set_back_is_refused_until_the_loss_is_accepted_and_recorded() {
    db::both(|db| async {
        let mut fixture = Fixture::new(db);
        run(&fixture, config(&fixture), 1, 300).await;
        let copy = fixture.db.copy().await;
        run(&fixture, config(&fixture), 301, 300).await;
        fixture.db = copy;
        let why = refused(&fixture).await;
        for part in [
            "audit log `acme` has 200 records, but 400 were signed",
            "audit log `umbrella` has 100 records, but 200 were signed",
            "put the newest copy of the audit database back",
            "`pavior restore --accept-lost-records --reason \"...\"`",
        ] {
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(accept(&fixture).await.len(), 2);
        // Accepting twice is as once.
        assert_eq!(accept(&fixture).await, []);

        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let mut reader = fixture.client(&running, "gateway");
        for (log, size) in [("acme", 201), ("umbrella", 101)] {
            assert_eq!(fixture.checkpoint(&mut reader, log).await.tree_size, size);
            let said = fixture.all(&mut reader, log, "event.action = \"platform.restore\"").await;
            assert_eq!(said.len(), 1);
            assert!(said[0].event.as_ref().unwrap().summary.contains("were signed"), "{said:?}");
        }
        // The checkpoint of what was lost is still there to be looked at.
        let names = std::fs::read_dir(checkpoints(&fixture)).unwrap();
        let aside = names.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("acme.checkpoint.lost-400-")
        });
        assert_eq!(aside.count(), 1);
        drop(reader);
        running.stop().await;
        run(&fixture, config(&fixture), 301, 10).await;
        assert_eq!(verify_database(&fixture.db.url, None).await.unwrap().records(), 312);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_went_another_way_is_refused_although_it_is_longer() {
    db::both(|db| async {
        let mut fixture = Fixture::new(db);
        run(&fixture, config(&fixture), 1, 30).await;
        let copy = fixture.db.copy().await;
        run(&fixture, config(&fixture), 31, 30).await;
        fixture.db = copy;
        // Without its second place the copy goes on, and has other records under the same numbers.
        run(&fixture, fixture.config(), 31, 270).await;
        let why = refused(&fixture).await;
        assert!(
            why.contains("the first 40 of 200 records of audit log `acme` are not those that were signed"),
            "{why}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_kept_at_an_orderly_end_and_only_signed_checkpoints_count() {
    let fixture = Fixture::new(db::sqlite());
    run(&fixture, config(&fixture), 1, 10).await;
    run(&fixture, config(&fixture), 11, 10).await;
    let read = |name: &str| std::fs::read_to_string(checkpoints(&fixture).join(name)).unwrap();
    assert_eq!(read("acme.checkpoint").lines().nth(1), Some("14"));
    assert_eq!(read("acme.checkpoint.previous").lines().nth(1), Some("7"));
    // A log that the folder does not know is kept from the next start on.
    std::fs::remove_file(checkpoints(&fixture).join("umbrella.checkpoint")).unwrap();
    run(&fixture, config(&fixture), 21, 1).await;
    assert_eq!(read("umbrella.checkpoint").lines().nth(1), Some("7"));
    let forged = read("acme.checkpoint").replacen("15", "12", 1).replacen("14", "12", 1);
    std::fs::write(checkpoints(&fixture).join("acme.checkpoint"), forged).unwrap();
    let why = refused(&fixture).await;
    assert!(why.contains("acme.checkpoint` is not a checkpoint that the configured key"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_did_after_a_number_or_in_a_later_epoch_is_named() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start_with(fixture.config()).await.unwrap();
        let mut client = fixture.client(&running, "catalog");
        let numbered = |n: i64| ("acme", n, event("acme", n));
        let earlier = (1..=6).map(numbered).collect();
        fixture.append(&mut client, "catalog", "5", earlier).await.unwrap();
        let restored = AuditEvent { action: "platform.restore".into(), ..event("acme", 11) };
        // A user goes, and the memberships of the user with it.
        let member = "organizations/umbrella/groups/g/memberships/eve";
        let along = AuditEvent {
            action: "identity.users.delete".into(),
            affected: vec![Affected::new("identity.pavior.dev/Membership", member)],
            ..event("umbrella", 19)
        };
        let later = vec![
            ("acme", 1, restored),
            ("umbrella", 2, event("umbrella", 10)),
            ("umbrella", 3, event("umbrella", 12)),
            ("umbrella", 4, along),
        ];
        fixture.append(&mut client, "catalog", "6", later).await.unwrap();
        drop(client);
        running.stop().await;
        let store = fixture.db.connect().await;
        let records = Records::of(store.clone());
        let of = async |epoch, seq| -> Vec<String> {
            let undone = records.undone("catalog", epoch, seq).await.unwrap();
            let kinds = undone.iter().flat_map(|kind| {
                assert_eq!(kind.count, kind.resources.len() as u64);
                let short = |name: &str| name.rsplit('/').next().unwrap().to_owned();
                kind.resources
                    .iter()
                    .map(move |one| format!("{} {} {}", kind.log, short(&one.name), one.done.join("+")))
            });
            kinds.collect()
        };
        // Number 10 was denied, and what an operator did is nothing of the service's.
        assert_eq!(
            of(5, 4).await,
            [
                "acme c5 components.get",
                "acme c6 components.create",
                "umbrella c5 components.create+users.delete",
                "acme other components.get+components.create",
                "umbrella other components.create",
                "umbrella eve users.delete"
            ]
        );
        assert_eq!(
            of(6, 0).await,
            [
                "umbrella c5 components.create+users.delete",
                "umbrella other components.create",
                "umbrella eve users.delete"
            ]
        );
        assert_eq!(of(6, 4).await, Vec::<String>::new());
        assert_eq!(of(7, 0).await, Vec::<String>::new());
        store.close().await.unwrap();
    })
    .await;
}

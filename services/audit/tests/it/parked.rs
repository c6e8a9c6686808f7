//! Events that wait for a log that is held: gone, told to another log, or under numbers that stand for others.

use pavior_audit::restore::{Ledger, LogFinding, Missing};
use pavior_core::clock::Clock as _;
use pavior_testkit::db;

use crate::cut::{clients, keep, kept, lost, put, told};
use crate::damage::{Damage, ids, ids_of, ship};
use crate::restore::{checkpoints, config};
use crate::support::{Fixture, event};
use crate::tamper::Tables;

#[tokio::test(flavor = "multi_thread")]
async fn parked_events_of_a_log_that_is_not_held_become_records_before_anything_new() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let (mut client, mut reader) = clients(&fixture, &running);
        let tables = Tables::open(&fixture.db).await;
        fixture.fill(&mut client, "acme", 1, 3).await;
        for (next, restart) in [(4, false), (7, true)] {
            let damage = Damage::to(&fixture).await;
            assert_eq!(
                ship(&fixture, &mut client, &[("acme", next), ("acme", next + 1)]).await.unwrap(),
                next + 1
            );
            tables.run("UPDATE audit_parked SET log = 'elsewhere'", vec![]).await;
            damage.repair().await;
            told(&running, "2 parked records of").await;
            let statements = ["DELETE FROM audit_held", "UPDATE audit_parked SET log = 'acme'"];
            tables.run_together(statements.map(str::to_owned).into()).await;
            if restart {
                continue;
            }
            assert_eq!(ship(&fixture, &mut client, &[("acme", next + 2)]).await.unwrap(), next + 2);
            running.well().await;
        }
        drop((client, reader));
        running.crash().await;
        let running = fixture.start().await;
        running.well().await;
        (client, reader) = clients(&fixture, &running);
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &[1, 2, 3, 4, 5, 6, 7, 8]));
        drop((client, reader));
        let report = running.proven(&fixture).await;
        assert_eq!((report.records(), report.parked), (8, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_whose_parked_events_are_gone_goes_on_when_the_loss_is_accepted_and_recorded() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let (mut client, reader) = clients(&fixture, &running);
        fixture.fill(&mut client, "acme", 1, 3).await;
        let damage = Damage::to(&fixture).await;
        assert_eq!(ship(&fixture, &mut client, &[("acme", 4), ("acme", 5)]).await.unwrap(), 5);
        let gone = "DELETE FROM audit_parked WHERE arrival = (SELECT MIN(arrival) FROM audit_parked)";
        let tables = Tables::open(&fixture.db).await;
        assert_eq!(tables.run(gone, vec![]).await, 1);
        drop((client, reader));
        running.stop().await;

        // Damage is no loss: it is for a copy to mend.
        let ledger = Ledger::open(&config(&fixture), fixture.db.connect().await).unwrap();
        let found = ledger.look().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].lost(), found[0].damage.as_deref()),
            (None, Some("its tiles do not hash to its head"))
        );
        damage.repair().await;
        let found = ledger.look().await.unwrap();
        let Some(Missing { records: 1, bytes }) = found[0].missing else { panic!("{found:?}") };
        let said = format!("1 events of {bytes} bytes that waited for audit log `acme` are gone");
        assert_eq!(found[0].lost().as_ref(), Some(&said));
        ledger.accept(&found, lost, fixture.clock.now()).await.1.unwrap();
        assert_eq!(
            ledger.look().await.unwrap(),
            [LogFinding { log: "acme".into(), waiting: 1, ..LogFinding::default() }]
        );
        drop(ledger);

        let running = fixture.start_with(config(&fixture)).await.unwrap();
        running.well().await;
        let (client, mut reader) = clients(&fixture, &running);
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &[1, 2, 3, 1_000, 5]));
        let records = fixture.all(&mut reader, "acme", "event.action = \"platform.restore\"").await;
        assert_eq!(records[0].event.as_ref().unwrap().summary, said);
        drop((client, reader));
        assert_eq!(running.proven(&fixture).await.accepted_losses, 1);
    })
    .await;
}

/// A log whose rows were exchanged for those of a copy that went on elsewhere, under the same numbers.
#[tokio::test(flavor = "multi_thread")]
async fn events_whose_numbers_stand_for_others_are_recorded_under_new_ones_when_the_loss_is_accepted() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let (mut client, reader) = clients(&fixture, &running);
        let tables = Tables::open(&fixture.db).await;
        fixture.fill(&mut client, "acme", 1, 12).await;
        keep(&tables, "fork").await;
        put(&tables, None).await;
        for table in ["audit_producer", "audit_held", "audit_parked"] {
            tables.run(&format!("DELETE FROM {table}"), vec![]).await;
        }
        drop((client, reader));
        running.stop().await;
        std::fs::remove_dir_all(checkpoints(&fixture)).unwrap();

        let running = fixture.start_with(config(&fixture)).await.unwrap();
        let (mut client, reader) = clients(&fixture, &running);
        let told_by = |first: i64, last: i64| {
            (first..=last).map(|n| ("acme", n, event("acme", n + 100))).collect::<Vec<_>>()
        };
        fixture.append(&mut client, "catalog", "e1", told_by(1, 9)).await.unwrap();
        kept(&fixture, "9").await;
        put(&tables, Some("fork")).await;
        fixture.append(&mut client, "catalog", "e1", told_by(10, 14)).await.unwrap();
        told(&running, "5 events wait for its repair").await;
        drop((client, reader));
        running.stop().await;

        let ledger = Ledger::open(&config(&fixture), fixture.db.connect().await).unwrap();
        let found = ledger.look().await.unwrap();
        assert_eq!((found.len(), found[0].waiting, found[0].conflicting), (1, 5, 3), "{found:?}");
        let said = found[0].lost().unwrap();
        assert!(
            said.contains("the numbers of 3 events that wait for audit log `acme` stand for others"),
            "{said}"
        );
        ledger.accept(&found, lost, fixture.clock.now()).await.1.unwrap();
        drop(ledger);

        let running = fixture.start_with(config(&fixture)).await.unwrap();
        running.well().await;
        let (client, mut reader) = clients(&fixture, &running);
        let mut expected: Vec<i64> = (1..=12).collect();
        expected.extend([1_000, 110, 111, 112, 113, 114]);
        assert_eq!(ids(&fixture, &mut reader, "acme").await, ids_of("acme", &expected));
        drop((client, reader));
        assert_eq!(running.proven(&fixture).await.parked, 0);
    })
    .await;
}

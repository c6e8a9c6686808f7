//! Reading: names, filters, pages, proofs, tiles, and that no organization sees another.

use pavior_audit_verifier::{
    Hash, ProofError, VerifierKey, VerifyError, leaf_hash, verify_consistency, verify_export,
    verify_inclusion,
};
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_testkit::{assert_problem, db, fields};
use tonic::{Code, Status};

use crate::support::{Client, Fixture, event};

/// NOT_FOUND with the type and the whole name.
fn not_found<T>(answer: Result<T, Status>, message: &str, name: &str) {
    let problem = assert_problem(answer, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
    let resource = problem.resource.unwrap();
    assert_eq!(
        (resource.r#type.as_str(), resource.name.as_str()),
        (&*format!("audit.pavior.dev/{message}"), name)
    );
}

fn malformed_name<T>(answer: Result<T, Status>) {
    let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
    assert_eq!(fields(&problem), ["name"], "{problem:?}");
}

fn hashes(hashes: &[Vec<u8>]) -> Vec<Hash> {
    hashes.iter().map(|hash| Hash::try_from(hash.as_slice()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_what_they_say_on_both_databases() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut writer = fixture.client(&running, "catalog");
        fixture.fill(&mut writer, "acme", 1, 60).await;
        let mut client = fixture.client(&running, "gateway");
        let operation = "organizations/acme/operations/four";
        type Matches = fn(i64) -> bool;
        let table: Vec<(String, Matches)> = vec![
            (String::new(), |_| true),
            ("event.principal.name = \"organizations/acme/users/alice\"".into(), |n| n % 2 == 0),
            ("event.principal.on_behalf_of = \"organizations/acme/users/carol\"".into(), |n| n % 11 == 0),
            ("-event.principal.on_behalf_of:*".into(), |n| n % 11 != 0),
            ("event.principal.on_behalf_of = null".into(), |n| n % 11 != 0),
            ("event.principal.name = \"*/alice\" event.audit_class = AUDIT_CLASS_REQUIRED".into(), |n| {
                n % 2 == 0 && n % 3 == 0
            }),
            ("event.target.name = \"organizations/acme/components/c3\"".into(), |n| n % 7 == 3),
            ("event.target.type = \"catalog.pavior.dev/Component\" index < 10".into(), |n| n <= 10),
            ("event.target.project = \"organizations/acme/projects/hello\"".into(), |n| n % 5 == 0),
            ("event.action = \"catalog.components.create\"".into(), |n| n % 3 == 0),
            ("event.decision.effect = DENY OR event.outcome.status = SUCCEEDED".into(), |_| true),
            ("event.outcome.status = STATUS_DENIED".into(), |n| n % 10 == 0),
            ("NOT event.decision.effect = EFFECT_DENY".into(), |n| n % 10 != 0),
            ("event.cause.request_id = \"request-17\"".into(), |n| n == 17),
            ("event.cause.call_id = \"call-18\"".into(), |n| n == 18),
            (format!("event.cause.operation = \"{operation}\""), |n| n % 4 == 0),
            ("event.event_time > \"2026-03-01T10:00:50Z\"".into(), |n| n > 50),
            ("receive_time >= \"2000-01-01T00:00:00Z\"".into(), |_| true),
            ("receive_time < \"2000-01-01T00:00:00Z\"".into(), |_| false),
            // A bare word is looked for in the names and the action; what else was changed is no target.
            ("components/c3".into(), |n| n % 7 == 3),
            ("components/other".into(), |_| false),
        ];
        for (filter, matches) in table {
            let found = fixture.all(&mut client, "acme", &filter).await;
            let found: Vec<i64> = found.iter().map(|record| record.index + 1).collect();
            let expected: Vec<i64> = (1..=60).filter(|n| matches(*n)).collect();
            assert_eq!(found, expected, "{filter} on {}", fixture.db.kind);
        }
        running.stop().await;
    })
    .await;
}

/// What a list of records says to a filter that it does not take.
async fn refusal(fixture: &Fixture, client: &mut Client, filter: &str) -> String {
    let message = pb::ListAuditRecordsRequest { filter: filter.into(), ..Default::default() };
    let answer = fixture.list(client, "acme", message).await;
    let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FILTER", &[]);
    assert_eq!(fields(&problem), ["filter"], "{filter}");
    problem.violations[0].description.clone()
}

const FIELDS: &str = "`event.action`, `event.audit_class`, `event.cause.call_id`, `event.cause.operation`, \
    `event.cause.request_id`, `event.decision.effect`, `event.event_time`, `event.outcome.status`, \
    `event.principal.name`, `event.principal.on_behalf_of`, `event.target.name`, `event.target.project`, \
    `event.target.type`, `index`, `receive_time`";

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_could_find_nothing_are_refused_with_what_would_be_right() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut client = fixture.client(&running, "gateway");
        for field in [
            "nothing",
            "principal",
            "target",
            "target_type",
            "project",
            "action",
            "audit_class",
            "effect",
            "status",
            "call_id",
            "request_id",
            "operation",
            "event_time",
            "event",
            "event.principal.via",
            "event.affected.name",
            "event.target",
        ] {
            let told = refusal(&fixture, &mut client, &format!("{field} = x")).await;
            assert_eq!(told, format!("`{field}` is not a field here; known are {FIELDS}"));
        }
        for field in [
            "event.principal.name",
            "event.principal.on_behalf_of",
            "event.target.name",
            "event.target.project",
            "event.cause.operation",
        ] {
            for value in ["hello", "", "users/alice"] {
                let told = refusal(&fixture, &mut client, &format!("{field} = \"{value}\"")).await;
                let right =
                    "a full resource name as in `organizations/acme/users/alice`, or with `*` a part of one";
                assert_eq!(told, format!("`{field}` must be {right}, not `{value}`"));
            }
        }
        for bad in ["event.principal.name = ", "event.audit_class = Z", "event.outcome.status = ok"] {
            refusal(&fixture, &mut client, bad).await;
        }
        let told = refusal(&fixture, &mut client, "event.event_time > yesterday").await;
        assert_eq!(told, "`event.event_time` must be a time as in `2026-01-31T12:00:00Z`, not `yesterday`");
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn record_is_the_event_that_was_handed_over() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut writer = fixture.client(&running, "catalog");
        fixture.fill(&mut writer, "acme", 1, 3).await;
        let mut client = fixture.client(&running, "gateway");
        let sent = event("acme", 3);
        let name = format!("organizations/acme/auditRecords/{}", sent.event_id);
        let message = pb::GetAuditRecordRequest { name: name.clone() };
        let record =
            client.get_audit_record(fixture.request("gateway", "acme", message)).await.unwrap().into_inner();
        assert_eq!((record.name.as_str(), record.index), (name.as_str(), 2));
        assert_eq!(record.event.unwrap(), pavior_rpc::audit::encode(sent));
        assert_eq!(record.leaf_hash, leaf_hash(&record.canonical));
        let absent = "organizations/acme/auditRecords/00000000-0000-0000-0000-000000000000".to_owned();
        let message = pb::GetAuditRecordRequest { name: absent.clone() };
        let answer = client.get_audit_record(fixture.request("gateway", "acme", message)).await;
        not_found(answer, "AuditRecord", &absent);
        for id in ["1", "x", "00000000-0000-0000-0000-00000000000"] {
            let message = pb::GetAuditRecordRequest { name: format!("organizations/acme/auditRecords/{id}") };
            let answer = client.get_audit_record(fixture.request("gateway", "acme", message)).await;
            malformed_name(answer);
        }
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_of_one_tree_while_the_log_grows() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut writer = fixture.client(&running, "catalog");
        fixture.fill(&mut writer, "acme", 1, 50).await;
        let mut client = fixture.client(&running, "gateway");
        for (order_by, expected) in
            [("", (0..50).collect::<Vec<i64>>()), ("index desc", (0..50).rev().collect::<Vec<i64>>())]
        {
            let size = fixture.checkpoint(&mut client, "acme").await.tree_size;
            let (mut found, mut page_token) = (Vec::new(), String::new());
            let filter = if size == 50 { "" } else { "index < 50" };
            loop {
                let message = pb::ListAuditRecordsRequest {
                    page_size: 7,
                    page_token: page_token.clone(),
                    filter: filter.into(),
                    order_by: order_by.into(),
                    ..Default::default()
                };
                let page = fixture.list(&mut client, "acme", message).await.unwrap();
                assert!(page.audit_records.len() <= 7);
                found.extend(page.audit_records.iter().map(|record| record.index));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
                let next = fixture.checkpoint(&mut client, "acme").await.tree_size + 1;
                fixture.fill(&mut writer, "acme", next, 3).await;
            }
            assert_eq!(found, expected, "{order_by}");
        }
        let message = pb::ListAuditRecordsRequest { page_size: 2, ..Default::default() };
        let token = fixture.list(&mut client, "acme", message).await.unwrap().next_page_token;
        for (filter, page_token) in [("index > 1", token.as_str()), ("", "nonsense")] {
            let message = pb::ListAuditRecordsRequest {
                filter: filter.into(),
                page_token: page_token.into(),
                ..Default::default()
            };
            let answer = fixture.list(&mut client, "acme", message).await;
            assert_problem(answer, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[]);
        }
        running.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_hold_for_an_independent_verifier() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut writer = fixture.client(&running, "catalog");
        let mut client = fixture.client(&running, "gateway");
        fixture.fill(&mut writer, "acme", 1, 130).await;
        let early = fixture.checkpoint(&mut client, "acme").await;
        fixture.fill(&mut writer, "acme", 131, 500).await;
        let key = VerifierKey::parse(&early.verifier_key).unwrap();
        let records = fixture.all(&mut client, "acme", "").await;
        let name = || "organizations/acme/auditCheckpoint".to_owned();
        for index in [0, 1, 255, 256, 257, 511, 512, 600, 629] {
            let message = pb::ProveInclusionRequest { name: name(), index, tree_size: 0 };
            let request = fixture.request("gateway", "acme", message);
            let proof = client.prove_inclusion(request).await.unwrap().into_inner();
            let record = &records[index as usize];
            assert_eq!(proof.leaf_hash, record.leaf_hash);
            let note = proof.checkpoint.unwrap().note;
            let path = hashes(&proof.hashes);
            verify_inclusion(&record.canonical, index as u64, &path, &note, &key).unwrap();
            let other = verify_inclusion(b"{}", index as u64, &path, &note, &key).unwrap_err();
            assert!(matches!(other, ProofError::WrongRoot), "{other}");
        }
        let message = pb::ProveConsistencyRequest { name: name(), from_size: 130, to_size: 0 };
        let request = fixture.request("gateway", "acme", message);
        let proof = client.prove_consistency(request).await.unwrap().into_inner();
        let checkpoint = |note: &str| {
            pavior_audit_verifier::Checkpoint::verified(note, std::slice::from_ref(&key)).unwrap()
        };
        let (from, to) = (checkpoint(&early.note), checkpoint(&proof.checkpoint.unwrap().note));
        verify_consistency(&from, &to, &hashes(&proof.hashes)).unwrap();

        let mut export: Vec<u8> = records.iter().flat_map(|r| [&r.canonical[..], b"\n"].concat()).collect();
        let last = fixture.checkpoint(&mut client, "acme").await.note;
        export.extend(serde_json::to_vec(&serde_json::json!({ "checkpoint": last })).unwrap());
        assert_eq!(verify_export(&export[..], std::slice::from_ref(&key)).unwrap().records, 630);
        let at = export.len() / 2;
        export[at] ^= 1;
        let changed = verify_export(&export[..], std::slice::from_ref(&key)).unwrap_err();
        assert!(matches!(changed, VerifyError::Tampered(_)), "{changed}");

        for (level, index, width) in [(0, 0, 256), (0, 2, 118), (1, 0, 2)] {
            let name = format!("organizations/acme/auditTiles/{level}-{index}");
            let message = pb::GetAuditTileRequest { name: name.clone() };
            let tile = client
                .get_audit_tile(fixture.request("gateway", "acme", message))
                .await
                .unwrap()
                .into_inner();
            assert_eq!((tile.width, tile.hashes.len()), (width, width as usize * 32));
            assert_eq!((tile.name, tile.level, tile.index), (name, level, index));
        }
        for id in ["0-3", "1-1", "2-0", "99-0", "99999999999-0"] {
            let name = format!("organizations/acme/auditTiles/{id}");
            let message = pb::GetAuditTileRequest { name: name.clone() };
            let answer = client.get_audit_tile(fixture.request("gateway", "acme", message)).await;
            not_found(answer, "AuditTile", &name);
        }
        for id in ["-1-0", "0--1", "0-01", "0-+1", "0", "x"] {
            let message = pb::GetAuditTileRequest { name: format!("organizations/acme/auditTiles/{id}") };
            malformed_name(client.get_audit_tile(fixture.request("gateway", "acme", message)).await);
        }
        for (index, tree_size) in [(630, 0), (0, 631), (10, 10), (i64::MAX, 0)] {
            let message = pb::ProveInclusionRequest { name: name(), index, tree_size };
            let answer = client.prove_inclusion(fixture.request("gateway", "acme", message)).await;
            let problem = assert_problem(answer, Code::OutOfRange, "INVALID_FIELD", &[]);
            assert_eq!(fields(&problem), [if tree_size == 631 { "tree_size" } else { "index" }]);
        }
        running.stop().await;
    })
    .await;
}

#[tokio::test]
async fn permit_for_one_organization_opens_no_other() {
    let fixture = Fixture::new(db::sqlite());
    let running = fixture.start().await;
    let mut writer = fixture.client(&running, "catalog");
    let events = vec![
        ("acme", 1, event("acme", 1)),
        ("umbrella", 2, event("umbrella", 2)),
        (INSTALLATION, 3, event("acme", 3)),
    ];
    fixture.append(&mut writer, "catalog", "e1", events).await.unwrap();
    let mut client = fixture.client(&running, "gateway");
    for (own, other) in [("acme", "umbrella"), ("acme", INSTALLATION), (INSTALLATION, "acme")] {
        assert_eq!(fixture.all(&mut client, own, "").await.len(), 1);
        let parent = format!("organizations/{other}");
        let name = format!("{parent}/auditRecords/{}", event("umbrella", 2).event_id);
        let checkpoint = format!("{parent}/auditCheckpoint");
        macro_rules! denied {
            ($method:ident, $message:expr) => {
                let answer = client.$method(fixture.request("gateway", own, $message)).await;
                assert_problem(answer, Code::PermissionDenied, "ACCESS_DENIED", &[]);
            };
        }
        denied!(get_audit_record, pb::GetAuditRecordRequest { name });
        denied!(
            list_audit_records,
            pb::ListAuditRecordsRequest { parent: parent.clone(), ..Default::default() }
        );
        denied!(
            watch_audit_records,
            pb::WatchAuditRecordsRequest { parent: parent.clone(), ..Default::default() }
        );
        denied!(get_audit_checkpoint, pb::GetAuditCheckpointRequest { name: checkpoint.clone() });
        denied!(
            prove_inclusion,
            pb::ProveInclusionRequest { name: checkpoint.clone(), ..Default::default() }
        );
        denied!(
            prove_consistency,
            pb::ProveConsistencyRequest { name: checkpoint.clone(), ..Default::default() }
        );
        denied!(get_audit_tile, pb::GetAuditTileRequest { name: format!("{parent}/auditTiles/0-0") });
    }
    // The record of another organization is not found under one's own name either.
    let name = format!("organizations/acme/auditRecords/{}", event("umbrella", 2).event_id);
    let message = pb::GetAuditRecordRequest { name: name.clone() };
    let answer = client.get_audit_record(fixture.request("gateway", "acme", message)).await;
    not_found(answer, "AuditRecord", &name);
    running.stop().await;
}

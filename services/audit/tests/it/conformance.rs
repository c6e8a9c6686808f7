//! What every resource of the audit service must keep to.

use futures::future::{BoxFuture, LocalBoxFuture};
use pavior_testkit::conformance::{self, Existing, Subject};
use pavior_testkit::{db, dynamic};
use serde_json::Value as Json;

use crate::support::{Fixture, event};

const ACME: &str = "organizations/acme";

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_keeps_to_what_all_resources_do() {
    db::both(|db| async {
        let fixture = Fixture::new(db);
        let running = fixture.start().await;
        let mut writer = fixture.client(&running, "catalog");
        fixture.fill(&mut writer, "acme", 1, 20).await;
        let transport = fixture.transport(&running, "gateway");
        let ask = |organization: &'static str| {
            let (fixture, transport) = (&fixture, &transport);
            move |method: dynamic::MethodDescriptor, json: Json| {
                let (request, transport) =
                    (fixture.request("gateway", organization, json), transport.clone());
                Box::pin(async move { dynamic::call(transport, &method, request).await }) as BoxFuture<'_, _>
            }
        };
        let of = |message, ids: &[&str], missing: &str| {
            let names = ids.iter().map(|id| format!("{ACME}/{id}")).collect();
            let missing = if missing.is_empty() { String::new() } else { format!("{ACME}/{missing}") };
            Existing { message, parent: ACME.to_owned(), names, missing }
        };
        let records = [1, 2].map(|n| format!("auditRecords/{}", event("acme", n).event_id));
        let existing = vec![
            of(
                "AuditRecord",
                &records.each_ref().map(String::as_str),
                "auditRecords/00000000-0000-0000-0000-000000000000",
            ),
            of("AuditCheckpoint", &["auditCheckpoint"], ""),
            of("AuditTile", &["auditTiles/0-0"], "auditTiles/2-0"),
        ];
        // It writes no events of its own.
        let audited = || Box::pin(std::future::ready(Vec::new())) as LocalBoxFuture<'_, _>;
        let insert = |_: &'static str| {
            let (fixture, mut writer) = (&fixture, fixture.client(&running, "catalog"));
            Box::pin(async move { fixture.fill(&mut writer, "acme", 21, 1).await }) as LocalBoxFuture<'_, _>
        };
        let (ask, outsider, audited) = (&ask("acme"), &ask("umbrella"), &audited);
        let subject = Subject {
            role: pavior_audit::ROLE,
            samples: Vec::new(),
            existing,
            ask,
            outsider,
            insert: &insert,
            audited,
        };
        conformance::check(&subject).await;
        running.stop().await;
    })
    .await;
}

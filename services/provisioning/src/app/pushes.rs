//! Pushes to repositories that projects have: recorded before they happen.

use pavior_core::audit::{Actor, AuditClass, AuditEvent, Cause, Change, Object, Outcome, Phase};
use pavior_driver::{Push, PushRecorder, RefUpdate, async_trait};
use serde_json::json;

use crate::store::Db;

/// Keeps the record of each push in the outbox of this service.
#[derive(Debug, Clone)]
pub(crate) struct PushLog(pub(crate) Db);

#[async_trait]
impl PushRecorder for PushLog {
    async fn record(&self, push: Push) -> Result<(), String> {
        let event = event(&self.0, push);
        self.0.record(event).await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }
}

/// Announces the push, or says that it was refused. Who pushes is known by the repository's own credential only, so that is the actor.
fn event(db: &Db, push: Push) -> AuditEvent {
    let Push { organization, repository, updates, refused } = push;
    let name = format!("organizations/{organization}/repositories/{repository}");
    let references: Vec<&str> = updates.iter().map(|update| update.name.as_str()).collect();
    let (does, phase, status, code) = match &refused {
        None => (String::new(), Phase::Intent, "accepted", "OK"),
        Some(why) => (format!(" refused ({why})"), Phase::Outcome, "denied", "PERMISSION_DENIED"),
    };
    let summary = format!("push to `{repository}`{does}: {}", references.join(", "));
    let moved = |object: fn(&RefUpdate) -> &str| {
        let moved = updates.iter().map(|update| (update.name.clone(), json!(object(update))));
        json!({ "references": serde_json::Map::from_iter(moved) })
    };
    AuditEvent {
        event_id: db.ids.uuid(),
        time: db.now(),
        class: AuditClass::A,
        action: "provisioning.repositories.push".to_owned(),
        phase,
        actor: Actor {
            kind: "service".to_owned(),
            reference: format!("{name}/credential"),
            via: Some(pavior_core::principal::service_name("git")),
            session: None,
        },
        object: Object { r#type: "provisioning.pavior.dev/Repository".to_owned(), name, project: None },
        cause: Cause::default(),
        decision: None,
        outcome: Outcome { status: status.to_owned(), code: code.to_owned(), duration_ms: 0 },
        change: Some(Change {
            before: Some(moved(|update| &update.before)),
            after: Some(moved(|update| &update.after)),
            ..Change::default()
        }),
        summary,
    }
}

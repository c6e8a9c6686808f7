//! Pushes to repositories that projects have: recorded before they happen.

use pavior_core::audit::{
    Affected, AuditEvent, Change, Code, Outcome, Phase, PrincipalKind, PrincipalRef, Status,
};
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
        self.0.record_unscoped(event).await.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }
}

/// Announces the push, or says that it was refused. Who pushes is known by the repository's own credential only, so that is who acts.
fn event(db: &Db, push: Push) -> AuditEvent {
    let Push { organization, repository, updates, refused } = push;
    let name = format!("organizations/{organization}/repositories/{repository}");
    let references: Vec<&str> = updates.iter().map(|update| update.name.as_str()).collect();
    let (does, phase, outcome) = match &refused {
        None => (String::new(), Phase::Intent, Outcome::ok(Status::Accepted)),
        Some(why) => (
            format!(" refused ({why})"),
            Phase::Outcome,
            Outcome::error(Status::Denied, Code::PermissionDenied, "ACCESS_DENIED"),
        ),
    };
    let summary = format!("push to `{repository}`{does}: {}", references.join(", "));
    let moved = |object: fn(&RefUpdate) -> &str| {
        let moved = updates.iter().map(|update| (update.name.clone(), json!(object(update))));
        json!({ "references": serde_json::Map::from_iter(moved) })
    };
    let credential = PrincipalRef::new(PrincipalKind::ServiceAccount, format!("{name}/credential"));
    AuditEvent {
        phase,
        target: Some(Affected::new("provisioning.pavior.dev/Repository", name)),
        outcome,
        change: Some(Change {
            before: Some(moved(|update| &update.before)),
            after: Some(moved(|update| &update.after)),
            ..Change::default()
        }),
        summary,
        ..AuditEvent::new(db.ids.uuid(), db.now(), "provisioning.repositories.push", credential)
    }
}

//! How the database of a service and the audit log are apart, and what was done that the database does not know of.

use std::collections::HashSet;

use anyhow::Context as _;
use pavior_audit::restore::{Produced, Records, Undone, UndoneResource};
use pavior_core::principal::INSTALLATION;
use pavior_store::Store;
use pavior_store::installation::{self, Survey};
use pavior_store::outbox::{self, Apart, Difference, Position, Standing};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::config::Config;
use super::super::role::Role;

/// The services with an outbox.
pub(super) const PRODUCERS: [Role; 3] = [Role::Catalog, Role::Policy, Role::Provisioning];

pub(super) async fn survey(store: &Store, role: Role) -> anyhow::Result<Survey> {
    let found = installation::survey(store).await;
    found.with_context(|| format!("the database of {}", role.name()))
}

/// A service's numbers and the log's.
#[derive(Debug)]
pub(super) struct Divergence {
    pub(super) role: Role,
    pub(super) position: Position,
    pub(super) produced: Produced,
    pub(super) apart: Apart,
    /// Up to which number of its epoch the database has what the log has.
    pub(super) shared: i64,
    /// What the log has and the database does not.
    pub(super) undone: Vec<Undone>,
}

impl Divergence {
    /// Compares; nothing when both are of one history. An outbox of a database that has no tables yet cannot be asked, nor
    /// need it be.
    pub(super) async fn look(role: Role, store: &Store, records: &Records) -> anyhow::Result<Option<Self>> {
        let (name, failed) = (role.name(), || format!("the database of {}", role.name()));
        let has_outbox = survey(store, role).await?.has_schema;
        let position = match has_outbox {
            true => outbox::position(store, name).await.with_context(failed)?,
            false => Position::default(),
        };
        let produced = records.produced(name, position.epoch.unwrap_or(0)).await?;
        let Produced { last, last_event, newest_epoch } = produced.clone();
        let there = outbox::Recorded { last, last_event, newest_epoch };
        let standing = match has_outbox {
            true => outbox::compare(store, name, &position, &there).await.with_context(failed)?,
            false => newest_epoch.map_or(Standing::Fits, |recorded| {
                Standing::Apart(Difference::OlderEpoch { epoch: None, recorded }.of(name))
            }),
        };
        let Standing::Apart(mut apart) = standing else { return Ok(None) };
        let clash = match has_outbox {
            true => first_clash(name, store, &position, last, records).await.with_context(failed)?,
            false => None,
        };
        let told = match apart.how {
            Difference::Diverged { seq, .. } => Some(seq),
            _ => None,
        };
        let shared = clash.or(told).map_or(position.last, |seq| position.last.min(seq - 1));
        if let Difference::Behind { last, .. } = &mut apart.how {
            *last = shared;
        }
        let undone = records.undone(name, position.epoch.unwrap_or(0), shared).await?;
        Ok(Some(Self { role, position, produced, apart, shared, undone }))
    }

    /// The audit log is the older of the two.
    pub(super) fn is_of_the_log(&self) -> bool {
        matches!(self.apart.how, Difference::LogBehind { .. })
    }

    /// For people: how they are apart, and a line for each kind of resources that was lost with it.
    pub(super) fn describe(&self) -> String {
        let lost = self.undone.iter().map(|undone| format!("\n  lost with them: {}", list(undone)));
        self.summary() + &lost.collect::<String>()
    }

    pub(super) fn summary(&self) -> String {
        let role = self.role.name();
        match &self.apart.how {
            Difference::Behind { epoch, last, recorded } => format!(
                "the database of {role} was set back: its changes {} to {recorded} of epoch {epoch} are recorded and undone",
                last + 1
            ),
            Difference::OlderEpoch { epoch: None, recorded } => format!(
                "the database of {role} was lost: its changes up to epoch {recorded} are recorded and undone"
            ),
            Difference::OlderEpoch { epoch: Some(epoch), recorded } => format!(
                "the database of {role} was set back to change {} of epoch {epoch}: its changes after it, up to epoch \
                 {recorded}, are recorded and undone, and those up to it are in force, also where an earlier restoration \
                 recorded them as undone",
                self.shared
            ),
            Difference::LogBehind { epoch, delivered, recorded } => format!(
                "the audit database was set back: the records {} to {delivered} of {role}, epoch {epoch}, are missing",
                recorded + 1
            ),
            Difference::Diverged { epoch, seq, .. } => format!(
                "the database of {role} or that of audit was set back: events {} to {seq} of epoch {epoch} are recorded as \
                 others, and what they did is undone",
                self.shared + 1
            ),
        }
    }

    /// The same for programs, with what was lost in all logs.
    pub(super) fn detail(&self) -> Value {
        let mut detail = self.gap();
        if !self.undone.is_empty() {
            detail["undone"] = self.undone.iter().map(value).collect();
        }
        detail
    }

    /// What is recorded of it in a log, each with its summary: the gap, and what was lost of each kind. A record for each
    /// has room for all that is named. The log of an organization names nothing of another one.
    pub(super) fn records(&self, log: &str) -> Vec<(String, Value)> {
        let role = self.role.name();
        let told = self.undone.iter().filter(|undone| log == INSTALLATION || undone.log == log);
        let lost = told.map(|undone| {
            let Undone { log, count, .. } = undone;
            let kind = short(&undone.kind);
            let mut detail = self.gap();
            detail["undone"] = json!([value(undone)]);
            (format!("lost with the older copy of the database of {role}: {count} {kind} of {log}"), detail)
        });
        std::iter::once((self.summary(), self.gap())).chain(lost).collect()
    }

    /// Which numbers are concerned.
    fn gap(&self) -> Value {
        let database = self.role.name();
        match &self.apart.how {
            Difference::Behind { epoch, last, recorded } => {
                json!({ "database": database, "epoch": epoch, "undoneFrom": last + 1, "undoneTo": recorded })
            }
            Difference::OlderEpoch { epoch, recorded } => {
                let mut gap = json!({ "database": database, "epoch": epoch, "undoneUpToEpoch": recorded });
                if epoch.is_some() {
                    gap["inForceTo"] = self.shared.into();
                }
                gap
            }
            Difference::LogBehind { epoch, delivered, recorded } => json!({
                "database": "audit", "service": database, "epoch": epoch, "missingFrom": recorded + 1,
                "missingTo": delivered,
            }),
            Difference::Diverged { epoch, seq, here, there } => json!({
                "database": database, "epoch": epoch, "undoneFrom": self.shared + 1, "undoneTo": seq,
                "here": here.to_string(), "there": there.to_string(),
            }),
        }
    }
}

/// The first number up to `last` that waits here with an event and is recorded with another: an older copy has taken
/// changes, or a restoration of it has broken off.
async fn first_clash(
    name: &str,
    store: &Store,
    position: &Position,
    last: i64,
    records: &Records,
) -> anyhow::Result<Option<i64>> {
    let mut waiting = outbox::waiting(store, name).await?;
    waiting.retain(|waiting| Some(waiting.epoch) == position.epoch && waiting.seq <= last);
    let ids: Vec<Uuid> = waiting.iter().map(|waiting| waiting.event).collect();
    let recorded: HashSet<Uuid> = records.recorded(&ids).await?.into_iter().collect();
    Ok(waiting.iter().find(|waiting| !recorded.contains(&waiting.event)).map(|waiting| waiting.seq))
}

/// What was done to resources of a kind: their names, as far as they are given, and how many more there are.
fn list(Undone { log, kind, resources, count }: &Undone) -> String {
    let kind = short(kind);
    let named = resources.iter().map(|UndoneResource { name, done }| format!("{name} ({})", done.join(", ")));
    let more = count.saturating_sub(resources.len() as u64);
    let more = (more > 0).then(|| format!("and {more} more"));
    let all: Vec<String> = named.chain(more).collect();
    format!("{count} {kind} of {log}: {}", all.join(", "))
}

/// A type without its domain.
fn short(kind: &str) -> &str {
    kind.rsplit('/').next().unwrap_or(kind)
}

fn value(Undone { log, kind, resources, count }: &Undone) -> Value {
    let named = resources.iter().map(|UndoneResource { name, done }| json!({ "name": name, "done": done }));
    let named: Vec<Value> = named.collect();
    json!({ "log": log, "type": kind, "count": count, "resources": named })
}

/// What `pavior restore` would find of the services' databases, and what to do about each, read beside a platform that
/// may run: nothing is locked or changed.
pub(crate) async fn divergences(config: &Config) -> anyhow::Result<Vec<(String, &'static str)>> {
    let mut stores = Vec::new();
    for (role, database) in config.databases() {
        let store = Store::connect_to_read(database, role.name()).await;
        stores.push((role, store.with_context(|| format!("the database of {}", role.name()))?));
    }
    let audit = stores.iter().find(|(role, _)| *role == Role::Audit).context("no audit database")?.1.clone();
    anyhow::ensure!(
        survey(&audit, Role::Audit).await?.has_schema,
        "the database of audit is empty: put the newest copy of it back"
    );
    let records = Records::of(audit);
    let mut found = Vec::new();
    for (role, store) in stores.iter().filter(|(role, _)| PRODUCERS.contains(role)) {
        let divergence = Divergence::look(*role, store, &records).await?;
        found.extend(divergence.map(|divergence| (divergence.describe(), divergence.apart.remedy())));
    }
    for (_, store) in stores {
        store.close().await?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use pavior_core::audit::{AuditEvent, Change, PrincipalKind, PrincipalRef};
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn undone(log: &str, count: u64) -> Undone {
        let name = format!("organizations/{log}/roles/one");
        let resources = vec![UndoneResource { name, done: vec!["create".to_owned(), "update".to_owned()] }];
        Undone { log: log.to_owned(), kind: "policy.pavior.dev/Role".to_owned(), resources, count }
    }

    #[test]
    fn what_is_lost_is_named_and_each_log_says_only_its_own() {
        let found = Divergence {
            role: Role::Policy,
            position: Position { epoch: Some(5), last: 3, delivered: 3 },
            produced: Produced { last: 9, last_event: None, newest_epoch: Some(5) },
            apart: Difference::Behind { epoch: 5, last: 3, recorded: 9 }.of("policy"),
            shared: 3,
            undone: vec![undone("acme", 1), undone("globex", 22)],
        };
        let said = found.describe();
        for line in [
            "the database of policy was set back: its changes 4 to 9 of epoch 5 are recorded and undone",
            "  lost with them: 1 Role of acme: organizations/acme/roles/one (create, update)",
            "  lost with them: 22 Role of globex: organizations/globex/roles/one (create, update), and 21 more",
        ] {
            assert!(said.lines().any(|said| said == line), "{line}\n{said}");
        }
        assert_eq!(found.detail()["undone"].as_array().map(Vec::len), Some(2));
        let acme = found.records("acme");
        let summaries: Vec<&str> = acme.iter().map(|(summary, _)| summary.as_str()).collect();
        let lost = "lost with the older copy of the database of policy: 1 Role of acme";
        assert_eq!(summaries, [found.summary().as_str(), lost]);
        assert_eq!(acme[1].1["undone"][0]["resources"][0]["name"], "organizations/acme/roles/one");
        assert_eq!((&acme[0].1["undone"], &acme[1].1["undoneTo"]), (&Value::Null, &json!(9)));
        assert!(!format!("{acme:?}").contains("globex"), "{acme:?}");
        assert_eq!(found.records(INSTALLATION).len(), 3);
        // What an earlier restoration has recorded as undone may be in force again.
        let older = Difference::OlderEpoch { epoch: Some(5), recorded: 7 }.of("policy");
        let found = Divergence { apart: older, ..found };
        assert!(found.summary().contains("was set back to change 3 of epoch 5"), "{}", found.summary());
        assert_eq!(found.detail()["inForceTo"], 3);
    }

    /// The longest names that a record may have, of as many resources as are named, with more than can be done to one.
    #[test]
    fn what_is_lost_is_never_told_by_its_digest() {
        let resource = |n: usize| UndoneResource {
            name: format!("{n:02}{}", "\"".repeat(2_046)),
            done: (0..40).map(|verb| format!("{verb:02}{}", "v".repeat(62))).collect(),
        };
        let kind = || Undone { resources: (0..20).map(resource).collect(), ..undone("acme", 1_000) };
        let found = Divergence {
            role: Role::Policy,
            position: Position { epoch: Some(5), last: 3, delivered: 3 },
            produced: Produced { last: 9, last_event: None, newest_epoch: Some(5) },
            apart: Difference::Behind { epoch: 5, last: 3, recorded: 9 }.of("policy"),
            shared: 3,
            undone: (0..100).map(|_| kind()).collect(),
        };
        let records = found.records("acme");
        assert_eq!(records.len(), 101);
        for (summary, detail) in records {
            let operator = PrincipalRef::new(PrincipalKind::Operator, "o");
            let now = OffsetDateTime::UNIX_EPOCH;
            let event = AuditEvent {
                change: Some(Change { after: Some(detail), ..Change::default() }),
                summary,
                ..AuditEvent::new(Uuid::nil(), now, "platform.restore", operator)
            };
            assert_eq!(event.clone().bounded(), event);
        }
    }
}

//! `pavior restore`: goes on after a database was set back to an older copy, or lost.
//!
//! The audit log and each service count the same events, so which of them is older shows by comparing. Nothing that was
//! lost comes back; what can be had is that nothing is given out twice, that the gap is part of the record, and that
//! nothing which was under way goes on by itself. Each step is one transaction and leaves nothing to do a second time,
//! so the command can be repeated.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use pavior_audit::restore::{Ledger, LogFinding, Missing, Produced};
use pavior_core::audit::{Affected, AuditEvent, Change, PrincipalKind, PrincipalRef};
use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id::{IdGen, SystemIds};
use pavior_core::principal::{INSTALLATION, installation_name};
use pavior_policy::restore::Pending;
use pavior_provisioning::restore::UnderWay;
use pavior_store::installation::Survey;
use pavior_store::outbox::{self, Apart, Position, Standing};
use pavior_store::{DatabaseConfig, Store};
use serde_json::{Value, json};

use super::config::{self, Config};
use super::installation::Installation;
use super::role::Role;
use super::{keys, operator};
use crate::cli::args::RestoreArgs;
use crate::cli::exit::Exit;
use crate::cli::failure::Ended;
use crate::cli::output::{self, Printer};

/// The services with an outbox.
const PRODUCERS: [Role; 3] = [Role::Catalog, Role::Policy, Role::Provisioning];
/// The next step for the operator.
const AFTERWARDS: &str =
    "Start the services, then look at `pavior doctor` for what drivers have and nobody declares.";

/// A difference between databases that has to be repaired.
#[derive(Debug)]
enum Finding {
    /// A service's numbers and the log's.
    Producer { role: Role, position: Position, produced: Produced, apart: Apart },
    /// A log of which something is gone or damaged, or that is held.
    Log(LogFinding),
    /// Operations that would go on although their database was set back.
    UnderWay(Vec<String>),
    /// Approvals about operations that provisioning does not know any more.
    Orphaned(Vec<Pending>),
    /// Environments that would be taken down, although their time may have been prolonged since.
    Expiring(Vec<String>),
}

/// `pavior restore`.
pub async fn run(args: &RestoreArgs, printer: Printer) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    let restoration = Restoration::open(&config, args).await?;
    let findings = restoration.look().await?;
    let lost: Vec<String> = findings.iter().filter_map(Finding::lost).collect();
    if !args.dry_run && !args.accept_lost_records && !lost.is_empty() {
        let message = format!(
            "audit records would be given up for good: {}. Put the newest copy of the audit database back and run this \
             again; where there is none, say --accept-lost-records and why with --reason",
            lost.join("; ")
        );
        return Err(Ended { message, exit: Exit::Failed }.into());
    }
    let (done, repaired) = match args.dry_run {
        true => (Vec::new(), Ok(())),
        false => restoration.repair_all(&findings).await,
    };
    // Reported even after a failure: a repaired finding is not found by the next run.
    report(&findings, (!args.dry_run).then_some(done.as_slice()), printer)?;
    repaired.context("not all of it is done; run this again")?;
    if !args.dry_run {
        for store in restoration.installation.stores.values() {
            store.close().await?;
        }
    }
    let damaged: Vec<&str> = findings.iter().filter_map(Finding::damaged).collect();
    let message = match (args.dry_run, findings.is_empty(), damaged.is_empty()) {
        (_, true, _) | (false, _, true) => return Ok(()),
        (true, ..) => "there is something to restore".to_owned(),
        (false, ..) => format!("stays held, because this cannot mend it: {}", damaged.join(", ")),
    };
    Err(Ended { message, exit: Exit::Failed }.into())
}

async fn survey(store: &Store, role: Role) -> anyhow::Result<Survey> {
    let found = pavior_store::installation::survey(store).await;
    found.with_context(|| format!("the database of {}", role.name()))
}

struct Restoration {
    installation: Installation,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
    /// Who runs this, and why as far as it was said.
    operator: String,
    reason: Option<String>,
    /// Holds the log that stands in for one without tables.
    _scratch: Option<tempfile::TempDir>,
}

impl Restoration {
    async fn open(config: &Config, args: &RestoreArgs) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn IdGen> = Arc::new(SystemIds);
        let installation = Installation::survey(config, &Role::ALL, ids.as_ref()).await?;
        installation.check_owners()?;
        let make = installation.first_start || (args.accept_keys && !args.dry_run);
        let secrets = keys::secrets(config, &Role::ALL, make)?;
        if !args.accept_keys {
            installation.check_keys(&secrets.checks)?;
        }
        if !args.dry_run {
            keys::Trust::load(config, &Role::ALL, make, &clock, &ids)?;
            installation.claim(config, &secrets.checks).await?;
        }
        let mut audit = installation.stores.get(&Role::Audit).context("no audit database")?.clone();
        let mut scratch = None;
        if !survey(&audit, Role::Audit).await?.has_schema {
            // Nothing is changed by looking: what would be asked of the empty log is asked of one beside it.
            let folder = pavior_files::temporary_directory("pavior-restore-")?;
            let url = format!("sqlite://{}?mode=rwc", folder.path().join("audit.db").display());
            audit = Store::connect(&DatabaseConfig::at(url), Role::Audit.name()).await?;
            Role::Audit.migrate(&audit).await?;
            scratch = Some(folder);
        }
        let ledger = Ledger::open(&config.audit, audit)?;
        let (operator, reason) = (operator::name(), args.reason.clone());
        Ok(Self { installation, ledger, clock, ids, operator, reason, _scratch: scratch })
    }

    /// An outbox of a database that has no tables yet cannot be asked, nor need it be.
    fn producer(&self, role: Role) -> Option<&Store> {
        self.installation.stores.get(&role)
    }

    async fn look(&self) -> anyhow::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let logs = self.ledger.look().await.context("the audit log")?;
        for role in PRODUCERS {
            let Some(store) = self.producer(role) else { continue };
            let failed = || format!("the database of {}", role.name());
            let has_outbox = survey(store, role).await?.has_schema;
            let position = match has_outbox {
                true => outbox::position(store, role.name()).await.with_context(failed)?,
                false => Position::default(),
            };
            let produced = self.ledger.produced(role.name(), position.epoch.unwrap_or(0)).await?;
            let Produced { last, last_event, newest_epoch } = produced.clone();
            let there = outbox::Recorded { last, last_event, newest_epoch };
            let standing = match has_outbox {
                true => outbox::compare(store, role.name(), &position, &there).await.with_context(failed)?,
                false => newest_epoch.map_or(Standing::Fits, |recorded| {
                    Standing::Apart(Apart::OlderEpoch { epoch: None, recorded })
                }),
            };
            let Standing::Apart(apart) = standing else { continue };
            if role == Role::Provisioning && !matches!(apart, Apart::LogBehind { .. }) {
                let orphaned = self.orphaned(has_outbox).await?;
                findings.extend((!orphaned.is_empty()).then_some(Finding::Orphaned(orphaned)));
            }
            // Before the epoch that tells: a repetition after a crash must find it again.
            if role == Role::Provisioning && has_outbox && !matches!(apart, Apart::LogBehind { .. }) {
                let under_way = pavior_provisioning::restore::under_way(
                    store.clone(),
                    self.clock.clone(),
                    self.ids.clone(),
                );
                let under_way = under_way.await.with_context(failed)?;
                let UnderWay { operations, environments } = under_way;
                findings.extend((!operations.is_empty()).then_some(Finding::UnderWay(operations)));
                findings.extend((!environments.is_empty()).then_some(Finding::Expiring(environments)));
            }
            findings.push(Finding::Producer { role, position, produced, apart });
        }
        findings.extend(logs.into_iter().map(Finding::Log));
        Ok(findings)
    }

    /// Pending approvals whose operation provisioning no longer knows.
    async fn orphaned(&self, provisioning_has_schema: bool) -> anyhow::Result<Vec<Pending>> {
        let Some(policy) = self.producer(Role::Policy) else { return Ok(Vec::new()) };
        if !survey(policy, Role::Policy).await?.has_schema {
            return Ok(Vec::new());
        }
        let mut pending = pavior_policy::restore::pending(policy).await.context("the database of policy")?;
        if let (Some(store), true) = (self.producer(Role::Provisioning), provisioning_has_schema) {
            let names = pending.iter().map(|request| request.operation.clone()).collect();
            let unknown = pavior_provisioning::restore::unknown(store.clone(), names).await;
            let unknown = unknown.context("the database of provisioning")?;
            pending.retain(|request| unknown.contains(&request.operation));
        }
        Ok(pending)
    }

    /// Goes through the findings up to the first that fails; says of each whether it is done.
    async fn repair_all(&self, findings: &[Finding]) -> (Vec<bool>, anyhow::Result<()>) {
        let mut done = vec![false; findings.len()];
        let repaired = self.repair_each(findings, &mut done).await;
        (done, repaired)
    }

    async fn repair_each(&self, findings: &[Finding], done: &mut [bool]) -> anyhow::Result<()> {
        for (finding, done) in findings.iter().zip(done.iter_mut()) {
            *done = self.repair(finding).await?;
        }
        // The logs are one step: what is missing is the same for all of them.
        let lost: Vec<LogFinding> = findings.iter().filter_map(Finding::lost_log).cloned().collect();
        let event = |found: &LogFinding| {
            self.event(&found.log, "audit", found.lost().unwrap_or_default(), log_detail(found))
        };
        let (accepted, result) = self.ledger.accept(&lost, event, self.clock.now()).await;
        for (finding, done) in findings.iter().zip(done.iter_mut()) {
            // A damaged log stays so: only a copy mends it.
            let going_on = finding.lost_log().is_none_or(|found| accepted.contains(&found.log));
            *done |= finding.damaged().is_none() && going_on;
        }
        result.context("the audit log")
    }

    /// Does what is to be done about a finding by itself; false when nothing is.
    async fn repair(&self, finding: &Finding) -> anyhow::Result<bool> {
        match finding {
            Finding::Producer { role, position, produced, apart } => {
                let store = self.producer(*role).context("no database")?;
                let events = self.events(*role, position, apart).await?;
                let waiting = outbox::waiting_ids(store, role.name()).await?;
                let recorded = self.ledger.recorded(&waiting).await?;
                let newest = produced.newest_epoch;
                outbox::begin_anew(store, role.name(), events, newest, recorded, self.clock.as_ref()).await?;
            }
            Finding::Orphaned(lost) => {
                let store = self.producer(Role::Policy).context("no database")?;
                pavior_policy::restore::invalidate(store, &self.clock, &self.ids, &self.acting(), lost)
                    .await?;
            }
            Finding::UnderWay(_) => {
                let store = self.producer(Role::Provisioning).context("no database")?.clone();
                let (clock, ids) = (self.clock.clone(), self.ids.clone());
                pavior_provisioning::restore::park(store, clock, ids, &self.acting()).await?;
            }
            Finding::Expiring(_) => {
                let store = self.producer(Role::Provisioning).context("no database")?.clone();
                let (clock, ids) = (self.clock.clone(), self.ids.clone());
                pavior_provisioning::restore::spare(store, clock, ids, &self.acting()).await?;
            }
            Finding::Log(_) => return Ok(false),
        }
        Ok(true)
    }

    /// The events for the log of the installation and of every affected organization.
    async fn events(
        &self,
        role: Role,
        position: &Position,
        apart: &Apart,
    ) -> anyhow::Result<Vec<AuditEvent>> {
        let epoch = position.epoch.unwrap_or(0);
        let mut logs: BTreeSet<String> =
            self.ledger.logs_after(role.name(), epoch, position.last).await?.into_iter().collect();
        logs.insert(INSTALLATION.to_owned());
        let detail = detail(role, apart);
        let event = |log: &String| self.event(log, role.name(), describe(role, apart), detail.clone());
        Ok(logs.iter().map(event).collect())
    }

    fn acting(&self) -> PrincipalRef {
        PrincipalRef::new(PrincipalKind::Operator, &self.operator)
    }

    fn event(&self, log: &str, database: &str, summary: String, mut detail: Value) -> AuditEvent {
        if let Some(reason) = &self.reason {
            detail["reason"] = reason.as_str().into();
        }
        let name = match log {
            INSTALLATION => format!("{}/databases/{database}", installation_name()),
            organization => format!("organizations/{organization}"),
        };
        AuditEvent {
            target: Some(Affected::new("platform.pavior.dev/Database", name)),
            change: Some(Change { after: Some(detail), ..Change::default() }),
            summary,
            ..AuditEvent::new(self.ids.uuid(), self.clock.now(), "platform.restore", self.acting())
        }
    }
}

/// A difference between a service and the audit log, for people.
fn describe(role: Role, apart: &Apart) -> String {
    let role = role.name();
    match apart {
        Apart::Behind { epoch, last, recorded } => format!(
            "the database of {role} was set back: its changes {} to {recorded} of epoch {epoch} are recorded and undone",
            last + 1
        ),
        Apart::OlderEpoch { epoch: None, recorded } => format!(
            "the database of {role} was lost: its changes up to epoch {recorded} are recorded and undone"
        ),
        Apart::OlderEpoch { epoch: Some(epoch), recorded } => format!(
            "the database of {role} was set back to epoch {epoch}: its changes after it, up to epoch {recorded}, are recorded \
             and undone"
        ),
        Apart::LogBehind { epoch, delivered, recorded } => format!(
            "the audit database was set back: the records {} to {delivered} of {role}, epoch {epoch}, are missing",
            recorded + 1
        ),
        Apart::Diverged { epoch, seq, .. } => format!(
            "the database of {role} or that of audit was set back: event {seq} of epoch {epoch} is recorded as another"
        ),
    }
}

fn detail(role: Role, apart: &Apart) -> Value {
    let database = role.name();
    match apart {
        Apart::Behind { epoch, last, recorded } => {
            json!({ "database": database, "epoch": epoch, "undoneFrom": last + 1, "undoneTo": recorded })
        }
        Apart::OlderEpoch { epoch, recorded } => {
            json!({ "database": database, "epoch": epoch, "undoneUpToEpoch": recorded })
        }
        Apart::LogBehind { epoch, delivered, recorded } => json!({
            "database": "audit", "service": database, "epoch": epoch, "missingFrom": recorded + 1,
            "missingTo": delivered,
        }),
        Apart::Diverged { epoch, seq, here, there } => json!({
            "database": database, "epoch": epoch, "sequence": seq, "here": here.to_string(), "there": there.to_string(),
        }),
    }
}

fn log_detail(found: &LogFinding) -> Value {
    let LogFinding { log, waiting, damage, rollback, missing, conflicting } = found;
    let mut detail = json!({ "database": "audit", "log": log, "waiting": waiting });
    if let Some(damage) = damage {
        detail["damage"] = damage.as_str().into();
    }
    if let Some(rollback) = rollback {
        detail["has"] = rollback.has.into();
        detail["signed"] = rollback.signed.into();
        detail["forked"] = rollback.forked.into();
    }
    if let Some(Missing { records, bytes }) = missing {
        detail["missing"] = (*records).into();
        detail["missingBytes"] = (*bytes).into();
    }
    if *conflicting > 0 {
        detail["clashing"] = (*conflicting).into();
    }
    detail
}

/// What is wrong with a log, and what is done about it.
fn describe_log(found: &LogFinding) -> (String, &'static str) {
    let LogFinding { log, waiting, .. } = found;
    match (&found.damage, found.lost()) {
        (Some(why), _) => (
            format!("audit log `{log}` is damaged ({why}): {waiting} events wait for its repair"),
            "nothing; put a copy of its rows, or of the audit database, back that is whole: it then goes on by itself with \
             what waits",
        ),
        (None, Some(lost)) => (lost, "records the gap, begins a new line of checkpoints"),
        (None, None) => (
            format!("audit log `{log}` was held and is whole: {waiting} events wait"),
            "nothing; it goes on with them when the audit service is started",
        ),
    }
}

impl Finding {
    /// The log that is damaged and stays so.
    fn damaged(&self) -> Option<&str> {
        match self {
            Self::Log(found) => found.damage.is_some().then_some(found.log.as_str()),
            Self::Producer { .. } | Self::UnderWay(_) | Self::Orphaned(_) | Self::Expiring(_) => None,
        }
    }

    /// The log that goes on without what is gone of it.
    fn lost_log(&self) -> Option<&LogFinding> {
        match self {
            Self::Log(found) => Some(found).filter(|found| found.lost().is_some()),
            Self::Producer { .. } | Self::UnderWay(_) | Self::Orphaned(_) | Self::Expiring(_) => None,
        }
    }

    /// The records that are given up by going on, in words.
    fn lost(&self) -> Option<String> {
        match self {
            Self::Log(found) => found.lost(),
            Self::Producer { role, apart: apart @ Apart::LogBehind { .. }, .. } => {
                Some(describe(*role, apart))
            }
            Self::Producer { .. } | Self::UnderWay(_) | Self::Orphaned(_) | Self::Expiring(_) => None,
        }
    }

    /// What is wrong, what is done about it, and the same for programs.
    fn describe(&self) -> (String, &'static str, Value) {
        match self {
            Self::Producer { role, apart, .. } => (
                describe(*role, apart),
                "begins a new epoch, records the gap, hands over what still waits",
                detail(*role, apart),
            ),
            Self::Log(found) => {
                let (what, action) = describe_log(found);
                (what, action, log_detail(found))
            }
            Self::UnderWay(names) => (
                format!("under way in the older copy of provisioning: {}", names.join(", ")),
                "parks them as stuck, to be retried with `pavior op retry`",
                json!({ "database": "provisioning", "operations": names }),
            ),
            Self::Orphaned(lost) => {
                let names: Vec<&str> = lost.iter().map(|request| request.name.as_str()).collect();
                (
                    format!("approvals of operations that are lost: {}", names.join(", ")),
                    "ends them as void: nobody asks any more",
                    json!({ "database": "policy", "approvals": names }),
                )
            }
            Self::Expiring(names) => (
                format!("about to expire in the older copy of provisioning: {}", names.join(", ")),
                "lets them stand for another day, in which they can be prolonged",
                json!({ "database": "provisioning", "environments": names }),
            ),
        }
    }
}

/// Prints the findings, each with whether it is repaired; `done` is absent for a dry run.
fn report(findings: &[Finding], done: Option<&[bool]>, printer: Printer) -> anyhow::Result<()> {
    let is_done = |at: usize| done.and_then(|done| done.get(at).copied());
    if printer.is_json() {
        let described = findings.iter().enumerate().map(|(at, finding)| {
            let (what, action, detail) = finding.describe();
            let done = is_done(at).unwrap_or_default();
            json!({ "finding": what, "action": action, "done": done, "detail": detail })
        });
        let described: Vec<Value> = described.collect();
        let next = if findings.is_empty() || done.is_none() { Value::Null } else { AFTERWARDS.into() };
        return printer.value(&json!({ "dryRun": done.is_none(), "findings": described, "next": next }));
    }
    if findings.is_empty() {
        return output::say(
            "all databases, the audit log and its checkpoints fit together: there is nothing to restore",
        );
    }
    for (at, finding) in findings.iter().enumerate() {
        let (what, action, _) = finding.describe();
        let done = match is_done(at) {
            None => "would be done",
            Some(true) => "done",
            Some(false) => "not done",
        };
        output::say(&format!("{what}\n  {done}: {action}"))?;
    }
    if done.is_none() { Ok(()) } else { output::say(AFTERWARDS) }
}

//! `pavior restore`: goes on after a database was set back to an older copy, or lost.
//!
//! The audit log and each service count the same events, so which of them is older shows by comparing. Nothing that was
//! lost comes back; what can be had is that nothing is given out twice, that the gap is part of the record, and that
//! nothing which was under way goes on by itself. Each step is one transaction and leaves nothing to do a second time,
//! so the command can be repeated.

mod divergence;
mod finding;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use pavior_audit::restore::{Ledger, LogFinding, Records};
use pavior_core::audit::{Affected, AuditEvent, Change, PrincipalKind, PrincipalRef};
use pavior_core::clock::{Clock, SystemClock};
use pavior_core::id_gen::{IdGen, SystemIds};
use pavior_core::principal::{INSTALLATION, installation_name};
use pavior_policy::restore::Pending;
use pavior_provisioning::restore::UnderWay;
use pavior_store::{DatabaseConfig, Store, outbox};
use serde_json::Value;

use self::divergence::{Divergence, PRODUCERS, survey};
use self::finding::{Finding, log_detail, report};
use super::config::{self, Config};
use super::installation::Installation;
use super::role::Role;
use super::{keys, operator};
use crate::cli::args::RestoreArgs;
use crate::cli::exit::Exit;
use crate::cli::failure::Ended;
use crate::cli::output::Printer;

pub(crate) use divergence::divergences;

/// The next step for the operator.
const AFTERWARDS: &str =
    "Start the services, then look at `pavior doctor` for what drivers have and nobody declares.";

/// The same after a look that changed nothing.
const REPAIRS: &str = "The same command without --dry-run does it; no service may run meanwhile.";
/// The same where audit records are gone.
const ACCEPT: &str = "Put the newest copy of the audit database back and run this again; where there is none, \
                      `pavior restore --accept-lost-records --reason \"...\"`, with why in it, goes on without them";

/// `pavior restore`.
pub async fn run(args: &RestoreArgs, printer: Printer) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    let restoration = Restoration::open(&config, args).await?;
    let findings = restoration.look().await?;
    let lost: Vec<String> = findings.iter().filter_map(Finding::lost).collect();
    let gives_up = !args.accept_lost_records && !lost.is_empty();
    if !args.dry_run && gives_up {
        let message = format!("audit records would be given up for good: {}. {ACCEPT}", lost.join("; "));
        return Err(Ended { message, exit: Exit::Failed }.into());
    }
    let (done, repaired) = match args.dry_run {
        true => (Vec::new(), Ok(())),
        false => restoration.repair_all(&findings).await,
    };
    // Reported even after a failure: a repaired finding is not found by the next run.
    let next = match (args.dry_run, gives_up) {
        (false, _) => AFTERWARDS,
        (true, false) => REPAIRS,
        (true, true) => ACCEPT,
    };
    report(&findings, (!args.dry_run).then_some(done.as_slice()), next, printer)?;
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

struct Restoration {
    installation: Installation,
    ledger: Ledger,
    records: Records,
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
        let records = ledger.records();
        let (operator, reason) = (operator::name(), args.reason.clone());
        Ok(Self { installation, ledger, records, clock, ids, operator, reason, _scratch: scratch })
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
            let Some(found) = Divergence::look(role, store, &self.records).await? else { continue };
            if role == Role::Provisioning && !found.is_of_the_log() {
                findings.extend(self.would_go_on(store).await?);
            }
            findings.push(Finding::Producer(Box::new(found)));
        }
        findings.extend(logs.into_iter().map(Finding::Log));
        Ok(findings)
    }

    /// What an older copy of provisioning would do by itself. Before the epoch that tells: a repetition after a crash must
    /// find it again.
    async fn would_go_on(&self, store: &Store) -> anyhow::Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let has_schema = survey(store, Role::Provisioning).await?.has_schema;
        let orphaned = self.orphaned(has_schema).await?;
        findings.extend((!orphaned.is_empty()).then_some(Finding::Orphaned(orphaned)));
        if has_schema {
            let (store, clock, ids) = (store.clone(), self.clock.clone(), self.ids.clone());
            let under_way = pavior_provisioning::restore::under_way(store, clock, ids).await;
            let UnderWay { operations, environments } = under_way.context("the database of provisioning")?;
            findings.extend((!operations.is_empty()).then_some(Finding::UnderWay(operations)));
            findings.extend((!environments.is_empty()).then_some(Finding::Expiring(environments)));
        }
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
            Finding::Producer(found) => {
                let name = found.role.name();
                let store = self.producer(found.role).context("no database")?;
                let events = self.events(found).await?;
                let waiting = outbox::waiting(store, name).await?;
                let waiting: Vec<_> = waiting.iter().map(|waiting| waiting.event).collect();
                let recorded = self.records.recorded(&waiting).await?;
                let newest = found.produced.newest_epoch;
                outbox::begin_anew(store, name, events, newest, recorded, self.clock.as_ref()).await?;
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
    async fn events(&self, found: &Divergence) -> anyhow::Result<Vec<AuditEvent>> {
        let (name, position) = (found.role.name(), &found.position);
        let epoch = position.epoch.unwrap_or(0);
        let mut logs: BTreeSet<String> =
            self.records.logs_after(name, epoch, found.shared).await?.into_iter().collect();
        logs.insert(INSTALLATION.to_owned());
        let said = |log: &String| {
            let said = found.records(log).into_iter();
            said.map(|(summary, detail)| self.event(log, name, summary, detail)).collect::<Vec<_>>()
        };
        Ok(logs.iter().flat_map(said).collect())
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

//! What drivers have against what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pavior_auth::Permit;
use pavior_core::PrincipalKind;
use pavior_driver::{Driver, Failure, FailureCode, Health, ListRequest, Listed};
use pavior_rpc::Problem;

use super::App;
use super::drivers::condition;
use super::standing::Sight;
use crate::domain::names;
use crate::domain::standing::Drift;
use crate::error::Result;
use crate::store::Recorded;

/// The action that policy decides on.
const ACTION: &str = "provisioning.resources.diagnose";
/// The installation as a parent.
const PLATFORM: &str = "organizations/-";
/// Most differences in an answer.
const MAX_FINDINGS: usize = 1_000;
/// What a driver is asked for at once, and how often at most.
const PAGE: usize = 1_000;
const MAX_PAGES: usize = 200;
/// How long a driver may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kinds of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Orphan,
    Missing,
    Driverless,
    Different,
}

impl Kind {
    /// What can be done about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Orphan => {
                "look whether it is still needed: save what is in it, then remove it with the means of its driver; \
                 nothing starts it or changes it"
            }
            Self::Missing => {
                "update its environment to make it anew, or delete the environment; what was in it has to come from a backup"
            }
            Self::Different => {
                "repeat the change that the record has lost (update the environment, or deploy that version again), or \
                 ask for what is recorded to have that instead: either way it is applied again"
            }
            Self::Driverless => {
                "configure the driver again: without it the resource can be neither changed nor deleted"
            }
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    pub(crate) driver: String,
    pub(crate) identity: String,
    pub(crate) resource_type: String,
    pub(crate) organization: String,
    pub(crate) resource: String,
}

/// How a driver is, and whether it was compared.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) driver: String,
    pub(crate) health: Health,
    pub(crate) compared: bool,
    pub(crate) count: usize,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) findings: Vec<Finding>,
    pub(crate) truncated: bool,
    pub(crate) drivers: Vec<Condition>,
}

impl App {
    /// Compares. Drivers are asked first and the database after them: what was made meanwhile is recorded by then, or
    /// its operation is under way.
    pub(crate) async fn diagnose(&self, permit: &Permit, parent: &str) -> Result<Diagnosis> {
        let organization = scope(permit, parent)?;
        let organization = organization.as_deref();
        let mut listed: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        let mut drivers = Vec::new();
        for driver in self.engine.drivers().all() {
            let id = driver.info().id;
            let mut health = condition(&*driver).await;
            let things = match all(&*driver).await {
                Ok(things) => Some(things),
                Err(failure) => {
                    if failure.code != FailureCode::Unsupported && health == Health::Ok {
                        health =
                            Health::Degraded(format!("it does not say what it has: {}", failure.message));
                    }
                    None
                }
            };
            let things = things.map(|things| {
                let own = things
                    .into_iter()
                    .filter(|thing| organization.is_none_or(|own| thing.organization == own));
                own.collect::<Vec<_>>()
            });
            let (compared, count) = (things.is_some(), things.as_ref().map_or(0, Vec::len));
            drivers.push(Condition { driver: id.clone(), health, compared, count });
            listed.extend(things.map(|things| (id, things)));
        }
        let under_way = self.db.under_way_unscoped().await?;
        let recorded = self.db.recorded_unscoped(organization).await?;
        let known: BTreeSet<(&str, &str)> =
            recorded.iter().map(|row| (row.driver.as_str(), row.identity.as_str())).collect();
        let mut findings = Vec::new();
        for (driver, things) in &listed {
            for thing in things {
                if !known.contains(&(driver.as_str(), thing.identity.as_str()))
                    && !under_way.keys.contains(&thing.key)
                {
                    findings.push(orphan(driver, thing));
                }
            }
        }
        let mut suspects = Vec::new();
        for row in
            recorded.iter().filter(|row| row.state == "ACTIVE" && !under_way.resources.contains(&row.name))
        {
            if findings.len() + suspects.len() > MAX_FINDINGS {
                break;
            }
            if self.engine.drivers().get(&row.driver).is_none() {
                findings.push(of_row(Kind::Driverless, row));
                continue;
            }
            let Some(things) = listed.get(&row.driver) else { continue };
            let thing = things.binary_search_by(|thing| thing.identity.as_str().cmp(&row.identity));
            match thing.ok().and_then(|index| things.get(index)) {
                Some(thing) if self.is_told(thing, row).await? => {}
                thing => suspects.push((row, thing)),
            }
        }
        findings.extend(self.confirmed(&suspects).await?);
        findings.sort_by(|a, b| (&a.driver, &a.identity).cmp(&(&b.driver, &b.identity)));
        let truncated = findings.len() > MAX_FINDINGS;
        findings.truncate(MAX_FINDINGS);
        Ok(Diagnosis { findings, truncated, drivers })
    }

    /// Whether the driver was last told what is recorded, as far as it says so.
    async fn is_told(&self, thing: &Listed, row: &Recorded) -> Result<bool> {
        if thing.declaration.is_empty() {
            return Ok(true);
        }
        let recorded = self.engine.declaration(&row.name, &row.inputs, &row.sealed_inputs).await?;
        Ok(thing.declaration == recorded)
    }

    /// Looks once more: what a driver named, or did not, may have been made or changed since, and be recorded by now.
    async fn confirmed(&self, suspects: &[(&Recorded, Option<&Listed>)]) -> Result<Vec<Finding>> {
        let rows: Vec<Recorded> = suspects.iter().map(|(row, _)| (*row).clone()).collect();
        let seen = self.look(rows).await?;
        let findings = suspects.iter().filter_map(|(row, listed)| {
            let Sight { standing, declaration } = seen.get(&row.name)?;
            let kind = match (standing.drift()?, listed) {
                (Drift::Gone, _) => Kind::Missing,
                (Drift::Different, Some(listed)) if listed.declaration != *declaration => return None,
                (Drift::Broken | Drift::Different, Some(_)) => Kind::Different,
                (Drift::Broken | Drift::Different, None) => return None,
            };
            Some(of_row(kind, row))
        });
        Ok(findings.collect())
    }
}

/// The organization that is asked about; nothing for all. Policy has let the call in; that nobody but an operator sees
/// those of all is looked at once more.
fn scope(permit: &Permit, parent: &str) -> Result<Option<String>> {
    if parent != PLATFORM {
        return Ok(Some(
            App::name(permit, ACTION, "parent", parent, names::ORGANIZATION)?.organization().to_owned(),
        ));
    }
    let principal = permit.principal();
    let operator = principal.platform_admin || principal.kind == PrincipalKind::Service;
    if permit.organization() == "-" && operator {
        return Ok(None);
    }
    Err(Problem::permission_denied(ACTION, parent).into())
}

/// Everything that a driver has, in order of identity.
pub(super) async fn all(driver: &dyn Driver) -> std::result::Result<Vec<Listed>, Failure> {
    let mut things: Vec<Listed> = Vec::new();
    for _ in 0..MAX_PAGES {
        let after = things.last().map(|thing| thing.identity.clone()).unwrap_or_default();
        let page =
            tokio::time::timeout(PATIENCE, driver.list(ListRequest { after: after.clone(), limit: PAGE }));
        let page = page.await.map_err(|_| Failure::new(FailureCode::Timeout, "it takes too long"))??;
        let last = page.len() < PAGE;
        let behind = page.iter().all(|thing| thing.identity > after)
            && page.is_sorted_by(|a, b| a.identity < b.identity);
        if !behind {
            return Err(Failure::new(FailureCode::Internal, "its answer is not in order of identity"));
        }
        things.extend(page);
        if last {
            return Ok(things);
        }
    }
    Err(Failure::new(FailureCode::Unsupported, "it has more than can be compared"))
}

fn orphan(driver: &str, thing: &Listed) -> Finding {
    let Listed { identity, resource_type, organization, resource, key: _, declaration: _ } = thing.clone();
    Finding { kind: Kind::Orphan, driver: driver.to_owned(), identity, resource_type, organization, resource }
}

fn of_row(kind: Kind, row: &Recorded) -> Finding {
    let Recorded { driver, identity, name, organization, type_id, state: _, inputs: _, sealed_inputs: _ } =
        row.clone();
    Finding { kind, driver, identity, resource_type: type_id, organization, resource: name }
}

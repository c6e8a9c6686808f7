//! What drivers have against what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pavior_auth::Permit;
use pavior_core::principal::{INSTALLATION, PrincipalKind};
use pavior_driver::{Driver, Failure, FailureCode, Health, ListRequest, Listed};
use pavior_rpc::Problem;
use serde::{Deserialize, Serialize};

use super::App;
use super::drivers::condition;
use super::standing::Sight;
use crate::domain::names;
use crate::domain::standing::Drift;
use crate::error::Result;
use crate::store::Recorded;

/// The action that policy decides on.
const ACTION: &str = "provisioning.resources.diagnose";
/// All organizations as a parent (AIP-159), and what belongs to none.
const ALL: &str = "organizations/-";
/// What a driver is asked for at once, and how often at most.
const PAGE: usize = 1_000;
const MAX_PAGES: usize = 200;
/// So many suspects are looked at together, at least.
const TOGETHER: usize = 50;
/// How long a driver may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kinds of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Orphaned,
    Missing,
    Driverless,
    Drifted,
}

impl Kind {
    /// What can be done about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Orphaned => {
                "look whether it is still needed: save what is in it, then remove it with the means of its driver; \
                 nothing starts it or changes it"
            }
            Self::Missing => {
                "update its environment to make it anew, or delete the environment; what was in it has to come from a backup"
            }
            Self::Drifted => {
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

impl Finding {
    /// Where it stands among all.
    pub(crate) fn place(&self) -> Place {
        let Self { driver, identity, resource, .. } = self;
        Place { driver: driver.clone(), identity: identity.clone(), resource: resource.clone() }
    }
}

/// Where a difference stands among all: pages go on behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    driver: String,
    identity: String,
    resource: String,
}

/// What may be a difference.
#[derive(Debug)]
enum Candidate<'a> {
    Orphan(Finding),
    Row(&'a Recorded),
}

impl Candidate<'_> {
    fn place(&self) -> Place {
        match self {
            Self::Orphan(finding) => finding.place(),
            Self::Row(row) => Place {
                driver: row.driver.clone(),
                identity: row.identity.clone(),
                resource: row.name.clone(),
            },
        }
    }
}

/// What is a difference, or looks like one.
#[derive(Debug)]
enum Suspect<'a> {
    Sure(Finding),
    /// What is recorded, and what the driver named of it.
    Row(&'a Recorded, Option<&'a Listed>),
}

/// What drivers have, by their ids.
type Listing = BTreeMap<String, Vec<Listed>>;

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
    /// In order of driver and identity.
    pub(crate) findings: Vec<Finding>,
    pub(crate) drivers: Vec<Condition>,
}

impl App {
    /// Compares. Drivers are asked first and the database after them: what was made meanwhile is recorded by then, or
    /// its operation is under way. At most `limit` differences, those `after` a place; the drivers are told of in full.
    pub(crate) async fn diagnose(
        &self,
        permit: &Permit,
        parent: &str,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Diagnosis> {
        let organization = scope(permit, parent)?;
        let organization = organization.as_deref();
        let (drivers, listed) = self.listed(organization).await;
        let under_way = self.db.under_way_unscoped().await?;
        let recorded = self.db.recorded_unscoped(organization).await?;
        let known: BTreeSet<(&str, &str)> =
            recorded.iter().map(|row| (row.driver.as_str(), row.identity.as_str())).collect();
        let orphans =
            listed.iter().flat_map(|(driver, things)| things.iter().map(move |thing| (driver, thing)));
        let orphans = orphans.filter(|(driver, thing)| {
            !known.contains(&(driver.as_str(), thing.identity.as_str()))
                && !under_way.keys.contains(&thing.key)
        });
        let rows = recorded.iter();
        let rows = rows.filter(|row| row.state == "ACTIVE" && !under_way.resources.contains(&row.name));
        let orphans = orphans.map(|(driver, thing)| Candidate::Orphan(orphan(driver, thing)));
        let mut candidates: Vec<Candidate<'_>> = orphans.chain(rows.map(Candidate::Row)).collect();
        candidates.retain(|candidate| after.is_none_or(|after| candidate.place() > *after));
        candidates.sort_by_cached_key(Candidate::place);
        let mut findings = Vec::new();
        let mut open = Vec::new();
        for candidate in candidates {
            if findings.len() >= limit {
                break;
            }
            open.extend(self.suspected(candidate, &listed).await?);
            // Most suspects may be none: they are looked at together.
            if open.len() >= (limit - findings.len()).max(TOGETHER) {
                findings.extend(self.confirmed(std::mem::take(&mut open)).await?);
            }
        }
        findings.extend(self.confirmed(open).await?);
        findings.truncate(limit);
        Ok(Diagnosis { findings, drivers })
    }

    /// How each driver is, and what those have of an organization, or of all, that say it.
    async fn listed(&self, organization: Option<&str>) -> (Vec<Condition>, Listing) {
        let mut listed = Listing::new();
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
        (drivers, listed)
    }

    /// A difference as far as it can be told without looking once more; nothing where there is none.
    async fn suspected<'a>(
        &self,
        candidate: Candidate<'a>,
        listed: &'a Listing,
    ) -> Result<Option<Suspect<'a>>> {
        let row = match candidate {
            Candidate::Orphan(finding) => return Ok(Some(Suspect::Sure(finding))),
            Candidate::Row(row) => row,
        };
        if self.engine.drivers().get(&row.driver).is_none() {
            return Ok(Some(Suspect::Sure(of_row(Kind::Driverless, row))));
        }
        let Some(things) = listed.get(&row.driver) else { return Ok(None) };
        let thing = things.binary_search_by(|thing| thing.identity.as_str().cmp(&row.identity));
        match thing.ok().and_then(|index| things.get(index)) {
            Some(thing) if self.is_told(thing, row).await? => Ok(None),
            thing => Ok(Some(Suspect::Row(row, thing))),
        }
    }

    /// Whether the driver was last told what is recorded, as far as it says so.
    async fn is_told(&self, thing: &Listed, row: &Recorded) -> Result<bool> {
        if thing.declaration_digest.is_empty() {
            return Ok(true);
        }
        let recorded = self.engine.declaration(&row.name, &row.inputs, &row.sealed_inputs).await?;
        Ok(thing.declaration_digest == recorded)
    }

    /// Looks once more: what a driver named, or did not, may have been made or changed since, and be recorded by now.
    async fn confirmed(&self, suspects: Vec<Suspect<'_>>) -> Result<Vec<Finding>> {
        let rows = suspects.iter().filter_map(|suspect| match suspect {
            Suspect::Row(row, _) => Some((*row).clone()),
            Suspect::Sure(_) => None,
        });
        let seen = self.look(rows.collect()).await?;
        let findings = suspects.into_iter().filter_map(|suspect| {
            let (row, listed) = match suspect {
                Suspect::Sure(finding) => return Some(finding),
                Suspect::Row(row, listed) => (row, listed),
            };
            let Sight { standing, declaration } = seen.get(&row.name)?;
            let kind = match (standing.drift()?, listed) {
                (Drift::Gone, _) => Kind::Missing,
                (Drift::Different, Some(listed)) if listed.declaration_digest != *declaration => return None,
                (Drift::Broken | Drift::Different, Some(_)) => Kind::Drifted,
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
    if parent != ALL {
        return Ok(Some(
            App::name(permit, ACTION, "parent", parent, names::ORGANIZATION)?.organization().to_owned(),
        ));
    }
    let principal = permit.principal();
    let operator = principal.installation_operator || principal.kind == PrincipalKind::Service;
    if permit.organization() == INSTALLATION && operator {
        return Ok(None);
    }
    Err(Problem::permission_denied(ACTION, parent).into())
}

/// Everything that a driver has, in order of identity.
pub(super) async fn all(driver: &dyn Driver) -> std::result::Result<Vec<Listed>, Failure> {
    let mut things: Vec<Listed> = Vec::new();
    let mut page_token = String::new();
    for _ in 0..MAX_PAGES {
        let page = tokio::time::timeout(PATIENCE, driver.list(ListRequest { page_size: PAGE, page_token }));
        let page = page.await.map_err(|_| Failure::new(FailureCode::Timeout, "it takes too long"))??;
        let seen = things.len();
        things.extend(page.resources);
        // From the last of the page before.
        let behind = things.get(seen.saturating_sub(1)..).unwrap_or_default();
        if !behind.is_sorted_by(|a, b| a.identity < b.identity) {
            return Err(Failure::new(FailureCode::Internal, "its answer is not in order of identity"));
        }
        if page.next_page_token.is_empty() {
            return Ok(things);
        }
        page_token = page.next_page_token;
    }
    Err(Failure::new(FailureCode::Unsupported, "it has more than can be compared"))
}

fn orphan(driver: &str, thing: &Listed) -> Finding {
    let Listed { identity, resource_type, organization, resource, key: _, declaration_digest: _ } =
        thing.clone();
    Finding {
        kind: Kind::Orphaned,
        driver: driver.to_owned(),
        identity,
        resource_type,
        organization,
        resource,
    }
}

fn of_row(kind: Kind, row: &Recorded) -> Finding {
    let Recorded { driver, identity, name, organization, type_id, state: _, inputs: _, sealed_inputs: _ } =
        row.clone();
    Finding { kind, driver, identity, resource_type: type_id, organization, resource: name }
}

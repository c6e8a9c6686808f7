//! What drivers have against what is recorded.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_core::principal::{INSTALLATION, PrincipalKind};
use pavior_driver::{FailureCode, Health, Listed};
use pavior_rpc::Problem;
use serde::{Deserialize, Serialize};

use super::App;
use super::drift::Sight;
use super::driver::{all, condition};
use crate::domain::drift::Drift;
use crate::domain::names;
use crate::domain::resource::ResourceState;
use crate::error::Result;
use crate::store::ResourceRecord;

/// The action that policy decides on.
const ACTION: &str = "provisioning.resources.diagnose";
/// All organizations as a parent (AIP-159), and what belongs to none.
const ALL: &str = "organizations/-";
/// So many suspects are looked at together, at least.
const TOGETHER: usize = 50;

/// Kinds of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Orphaned,
    Missing,
    Driverless,
    Drifted,
    Overdue,
}

impl Kind {
    /// What can be done about it.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Orphaned => {
                "look whether it is still needed: save what is in it, then remove it with DeleteOrphan (`pavior resource \
                 delete-orphan DRIVER EXTERNAL_ID`); nothing starts it or changes it"
            }
            Self::Missing => {
                "update its environment to make it anew (`pavior env update`; of what the project has itself: `pavior project \
                 repair`), or delete the environment; what was in it has to come from a backup"
            }
            Self::Drifted => {
                "repeat the change that the record has lost (update the environment, or deploy that version again), or \
                 ask for what is recorded to have that instead (`pavior env update`; of what the project has itself: `pavior \
                 project repair`): either way it is applied again"
            }
            Self::Driverless => {
                "configure the driver again: without it the resource can be neither changed nor deleted"
            }
            Self::Overdue => {
                "something else needs what is in it, or policy does not allow its deletion: plan to delete it to see which, and \
                 remove that, or give the environment a later end; until then it is tried again now and then"
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
    Sure(Finding),
    Row(&'a ResourceRecord),
}

impl Candidate<'_> {
    fn place(&self) -> Place {
        match self {
            Self::Sure(finding) => finding.place(),
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
    Row(&'a ResourceRecord, Option<&'a Listed>),
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
        let overdue = self.overdue(organization).await?;
        let known: BTreeSet<(&str, &str)> =
            recorded.iter().map(|row| (row.driver.as_str(), row.identity.as_str())).collect();
        let orphans =
            listed.iter().flat_map(|(driver, things)| things.iter().map(move |thing| (driver, thing)));
        let orphans = orphans.filter(|(driver, thing)| {
            !known.contains(&(driver.as_str(), thing.identity.as_str()))
                && !under_way.keys.contains(&thing.key)
        });
        // What an operation is to change that waits for people is as it is recorded until they have agreed.
        let stands = |row: &&ResourceRecord| {
            use ResourceState::{Active, Deleting, Updating};
            matches!(row.state, Active | Updating | Deleting) && !under_way.resources.contains(&row.name)
        };
        let rows = recorded.iter().filter(stands);
        let orphans = orphans.map(|(driver, thing)| orphan(driver, thing));
        let sure = orphans.chain(overdue).map(Candidate::Sure);
        let mut candidates: Vec<Candidate<'_>> = sure.chain(rows.map(Candidate::Row)).collect();
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

    /// Environments that stand although their time is over.
    async fn overdue(&self, organization: Option<&str>) -> Result<Vec<Finding>> {
        let found = self.db.overdue_unscoped(organization).await?.into_iter().map(|environment| Finding {
            kind: Kind::Overdue,
            driver: String::new(),
            identity: String::new(),
            resource_type: String::new(),
            organization: environment.organization,
            resource: environment.name,
        });
        Ok(found.collect())
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
            Candidate::Sure(finding) => return Ok(Some(Suspect::Sure(finding))),
            Candidate::Row(row) => row,
        };
        if self.engine.drivers().get(&row.driver).is_none() {
            return Ok(Some(Suspect::Sure(of_row(Kind::Driverless, row))));
        }
        let Some(things) = listed.get(&row.driver) else { return Ok(None) };
        let thing = things.binary_search_by(|thing| thing.identity.as_str().cmp(&row.identity));
        match thing.ok().and_then(|index| things.get(index)) {
            Some(thing) if thing.resource == row.name && self.is_told(thing, row).await? => Ok(None),
            thing => Ok(Some(Suspect::Row(row, thing))),
        }
    }

    /// Whether the driver was last told what is recorded, as far as it says so.
    async fn is_told(&self, thing: &Listed, row: &ResourceRecord) -> Result<bool> {
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
        let under_way = self.db.under_way_unscoped().await?;
        let findings = suspects.into_iter().filter_map(|suspect| {
            let (row, listed) = match suspect {
                Suspect::Sure(finding) => return Some(finding),
                Suspect::Row(row, listed) => (row, listed),
            };
            if under_way.resources.contains(&row.name) {
                return None;
            }
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

fn of_row(kind: Kind, row: &ResourceRecord) -> Finding {
    let ResourceRecord {
        driver,
        identity,
        name,
        organization,
        type_id,
        state: _,
        inputs: _,
        sealed_inputs: _,
    } = row.clone();
    Finding { kind, driver, identity, resource_type: type_id, organization, resource: name }
}

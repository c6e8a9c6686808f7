//! What callers were told about entities, and whether it is true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use pavior::cli::client::request_id;
use pavior_proto::pavior::audit::v1::ListAuditRecordsRequest;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_tests::Person;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

const KIND: &str = "organizations/acme/kinds/component";
/// The label that counts up with every change of an entity.
const LABEL: &str = "n";
/// How long the audit log may take to get the last events.
pub(crate) const DELIVERY: Duration = Duration::from_secs(90);

/// What is known of one entity. Only one task writes to it.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The highest number that was answered OK; 0 when none was.
    acknowledged: u64,
    /// The highest number that was sent.
    tried: u64,
    /// How often the answer was that it failed for now.
    refused: u64,
}

/// What was told and what was only tried. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    entities: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// The figures of a check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
}

impl Ledger {
    fn note(&self, id: &str, change: impl FnOnce(&mut Known)) -> Known {
        let mut entities = self.entities.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entities.entry(id.to_owned()).or_default();
        change(known);
        *known
    }

    fn known(&self) -> BTreeMap<String, Known> {
        self.entities.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes an entity and counts it up until `stop`; every answer is noted. What fails is found out and tried again.
    pub(crate) async fn write(&self, person: Person, id: String, stop: CancellationToken) -> Result<()> {
        let mut etag = String::new();
        while !stop.is_cancelled() {
            if etag.is_empty() {
                match read(&person, &id).await {
                    Ok(Some((n, found))) => {
                        self.note(&id, |known| known.acknowledged = known.acknowledged.max(n));
                        etag = found;
                    }
                    Ok(None) => {}
                    Err(status) if is_passing(&status) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(status) => bail!("reading `{id}`: {status}"),
                }
            }
            let n = self.note(&id, |known| known.tried += 1).tried;
            match put(&person, &id, n, &etag).await {
                Ok(found) => {
                    self.note(&id, |known| known.acknowledged = n);
                    etag = found;
                }
                Err(status) if is_passing(&status) => {
                    self.note(&id, |known| known.refused += 1);
                    etag.clear();
                }
                Err(status) => bail!("writing `{id}`: {status}"),
            }
        }
        Ok(())
    }

    /// Makes one entity, noting the answer; false when it was refused for now.
    pub(crate) async fn once(&self, person: &Person, prefix: &str) -> Result<bool> {
        let id = format!("{prefix}-{}", request_id());
        self.note(&id, |known| known.tried = 1);
        match put(person, &id, 1, "").await {
            Ok(_) => {
                self.note(&id, |known| known.acknowledged = 1);
                Ok(true)
            }
            Err(status) if is_passing(&status) => Ok(false),
            Err(status) => bail!("making `{id}`: {status}"),
        }
    }

    /// Makes entities and gives up on each after `patience`, until `stop`.
    pub(crate) async fn give_up(
        &self,
        person: Person,
        prefix: String,
        mut random: fastrand::Rng,
        stop: CancellationToken,
    ) -> Result<()> {
        let mut count = 0;
        while !stop.is_cancelled() {
            count += 1;
            let id = format!("{prefix}-{count}");
            self.note(&id, |known| known.tried = 1);
            let patience = Duration::from_micros(random.u64(1_000..15_000));
            match tokio::time::timeout(patience, put(&person, &id, 1, "")).await {
                Ok(Ok(_)) => drop(self.note(&id, |known| known.acknowledged = 1)),
                Ok(Err(status)) if !is_passing(&status) => bail!("making `{id}`: {status}"),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Compares with the catalog and with the audit log: nothing acknowledged is lost, and every change that stands
    /// has exactly one record.
    pub(crate) async fn check(&self, person: &Person) -> Result<Checked> {
        let known = self.known();
        let deadline = Instant::now() + DELIVERY;
        loop {
            let standing = standing(person).await?;
            for (id, known) in &known {
                let n = standing.get(id).copied().unwrap_or_default();
                let Known { acknowledged, tried, .. } = *known;
                ensure!(n >= acknowledged, "LOST: `{id}` was acknowledged as {acknowledged} and is {n}");
                ensure!(n <= tried, "`{id}` is {n}, but only {tried} was ever sent");
            }
            let mine = known.keys().map(|id| (id, standing.get(id).copied().unwrap_or_default()));
            match compare(mine, &recorded(person).await?) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                // The events are on their way, or a call that nobody waits for was still under way.
                Err(_) => tokio::task::yield_now().await,
            }
        }
        let sum = |count: fn(&Known) -> u64| known.values().map(count).sum();
        Ok(Checked { acknowledged: sum(|known| known.acknowledged), refused: sum(|known| known.refused) })
    }
}

/// Each number up to the one that stands is recorded at most once, and the last one is.
fn compare<'a>(
    standing: impl Iterator<Item = (&'a String, u64)>,
    recorded: &BTreeMap<String, Vec<u64>>,
) -> Result<()> {
    for (id, n) in standing {
        let records = recorded.get(id).map(Vec::as_slice).unwrap_or_default();
        ensure!(
            records.windows(2).all(|pair| matches!(pair, [a, b] if a < b)),
            "`{id}` has records out of order or twice: {records:?}"
        );
        ensure!(
            records.last().copied().unwrap_or_default() == n,
            "UNRECORDED: `{id}` is {n}, its records are {records:?}"
        );
    }
    Ok(())
}

/// Whether trying again later is what a client does.
pub(crate) fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::AlreadyExists
    )
}

async fn read(person: &Person, id: &str) -> Result<Option<(u64, String)>, Status> {
    let name = format!("{KIND}/entities/{id}");
    match person.catalog().get_entity(pb::GetEntityRequest { name, ..Default::default() }).await {
        Ok(entity) => {
            let entity = entity.into_inner();
            Ok(Some((number(&entity)?, entity.etag)))
        }
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

fn number(entity: &pb::Entity) -> Result<u64, Status> {
    let n = entity.labels.get(LABEL).and_then(|n| n.parse().ok());
    n.ok_or_else(|| Status::data_loss(format!("`{}` has no number", entity.name)))
}

/// The number of each entity that has one.
async fn standing(person: &Person) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let mut request =
        pb::ListEntitiesRequest { parent: KIND.to_owned(), page_size: 1_000, ..Default::default() };
    loop {
        let page = person.catalog().list_entities(request.clone()).await?.into_inner();
        for entity in page.entities.iter().filter(|entity| entity.labels.contains_key(LABEL)) {
            let id = entity.name.rsplit('/').next().unwrap_or_default();
            found.insert(id.to_owned(), number(entity)?);
        }
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// Creates an entity, or updates it when its etag is known; returns the new etag.
async fn put(person: &Person, id: &str, n: u64, etag: &str) -> Result<String, Status> {
    let mut entity = pb::Entity { etag: etag.to_owned(), ..Default::default() };
    entity.labels.insert(LABEL.to_owned(), n.to_string());
    if etag.is_empty() {
        let spec = serde_json::json!({ "type": "service", "lifecycle": "production" });
        entity.spec = pavior_rpc::convert::to_struct(&spec).ok();
        let request = pb::CreateEntityRequest {
            parent: KIND.to_owned(),
            entity_id: id.to_owned(),
            entity: Some(entity),
            request_id: request_id(),
            validate_only: false,
        };
        return Ok(person.catalog().create_entity(request).await?.into_inner().etag);
    }
    entity.name = format!("{KIND}/entities/{id}");
    let request =
        pb::UpdateEntityRequest { entity: Some(entity), request_id: request_id(), ..Default::default() };
    Ok(person.catalog().update_entity(request).await?.into_inner().etag)
}

/// The numbers that the audit log has for each entity, in the order of the log.
async fn recorded(person: &Person) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut request = ListAuditRecordsRequest {
        parent: "organizations/acme".to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    loop {
        let page = person.audit().list_audit_records(request.clone()).await?.into_inner();
        for record in page.audit_records {
            let body: Value = serde_json::from_slice(&record.canonical)?;
            let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let Some(id) = text("/event/target/name").strip_prefix(&format!("{KIND}/entities/")) else {
                continue;
            };
            if !text("/event/action").starts_with("catalog.entities.")
                || text("/event/outcome/status") != "SUCCEEDED"
            {
                continue;
            }
            let after = body.pointer("/event/change/after/labels").and_then(|labels| labels.get(LABEL));
            if let Some(n) = after.and_then(Value::as_str).and_then(|n| n.parse().ok()) {
                found.entry(id.to_owned()).or_default().push(n);
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

//! What a driver remembers of its calls, in files: which key made what, and the highest fence per resource.
//!
//! The intent (key, identity) is durable before an effect, the result after it. One call at a time per resource.
//! A record that cannot be read is set apart and named, and only what it is about suffers.

mod fences;
mod intent;
mod listing;
mod sweep;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pavior_core::digest::{canonical_json, sha256_hex};
use pavior_driver::{CallContext, Failure, FailureCode, Health, Listed, Lookup, Paging};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::config::OnRecord;
use crate::files;
use crate::folder::Folder;
use crate::keyring::Keyring;

pub(crate) use intent::{Intent, Rollback};

/// A use of an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyUse {
    pub(crate) organization: String,
    /// Empty in records of before it stood in them.
    #[serde(default)]
    resource: String,
    pub(crate) identity: String,
    digest: String,
    /// The result of an action; applies find theirs on the thing.
    pub(crate) result: Option<Value>,
}

impl KeyUse {
    /// Whether a call for this resource used it.
    fn is_of(&self, context: &CallContext) -> bool {
        let of_resource = self.resource.is_empty() || self.resource == context.resource;
        of_resource && self.organization == context.organization
    }
}

/// A thing that exists, or is being made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LedgerEntry {
    pub(crate) identity: String,
    pub(crate) organization: String,
    pub(crate) resource: String,
    pub(crate) resource_type: String,
    /// The key that made it: part of what its passwords are derived from.
    pub(crate) created_by: String,
    keys: Vec<String>,
    /// Whether an apply has ended well, and nothing has begun to remove it.
    pub(crate) ready: bool,
    /// The key of an apply that has begun to make or change it, and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    underway: Option<String>,
    /// The key of the last apply that ended well: the thing is what that one asked for. It is written in one record with
    /// what was made, so that a key which only resolves says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    /// The digest of what that apply declared, in the platform's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) declaration_digest: String,
    /// The driver's own data; no secrets in the clear.
    pub(crate) data: Value,
    /// Not from a record of its own: the world told of it, or its record is damaged.
    #[serde(skip)]
    pub(crate) reconstructed: bool,
}

impl LedgerEntry {
    /// A thing that the world itself told of, when this replica's files do not know it. It is not ready: whether its
    /// password is the one that is recorded is not known, so that an apply has to set it again.
    pub(crate) fn reconstructed(
        identity: &str,
        organization: &str,
        resource: &str,
        resource_type: &str,
        key: &str,
    ) -> Self {
        Self {
            identity: identity.to_owned(),
            organization: organization.to_owned(),
            resource: resource.to_owned(),
            resource_type: resource_type.to_owned(),
            created_by: key.to_owned(),
            keys: vec![key.to_owned()],
            ready: false,
            underway: None,
            ended: None,
            declaration_digest: String::new(),
            data: Value::Null,
            reconstructed: true,
        }
    }

    /// Whether an apply under this key has begun on it.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known == key)
    }
}

pub(crate) struct Ledger {
    root: PathBuf,
    folder: Arc<Folder>,
    keep: Duration,
    on_record: OnRecord,
    swept: Mutex<Option<Instant>>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// What is known of whose the records of things are: a record's name follows from its identity and never changes.
    names: Mutex<HashMap<PathBuf, String>>,
    paging: Paging,
}

/// The right to work on one resource.
pub(crate) struct ResourceLock {
    _guard: OwnedMutexGuard<()>,
}

const KEYS: &str = "keys";
const ENTRIES: &str = "things";
const FENCES: &str = "fences";
const DAMAGED: &str = "damaged";

fn broken(what: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| {
        tracing::error!(error = %error, "driver state cannot be {what}");
        Failure::new(FailureCode::Internal, format!("the driver's state cannot be {what}"))
    }
}

impl Ledger {
    pub(crate) fn open(
        folder: &Arc<Folder>,
        driver: &str,
        keep: Duration,
        on_record: OnRecord,
    ) -> std::io::Result<Arc<Self>> {
        let root = folder.path().join("drivers").join(driver);
        for part in [KEYS, ENTRIES, FENCES, DAMAGED] {
            files::private_directory(&root.join(part))?;
        }
        Ok(Arc::new(Self {
            root,
            folder: Arc::clone(folder),
            keep,
            on_record,
            swept: Mutex::default(),
            locks: Mutex::default(),
            names: Mutex::default(),
            paging: Paging::new(folder.keyring().key("list pages"), driver),
        }))
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        self.folder.keyring()
    }

    pub(crate) fn paging(&self) -> &Paging {
        &self.paging
    }

    fn path(&self, part: &str, name: &str) -> PathBuf {
        self.root.join(part).join(format!("{}.json", sha256_hex(name.as_bytes())))
    }

    /// Where a record stands once it is set apart.
    fn apart(&self, record: &Path) -> PathBuf {
        let part = record.parent().and_then(Path::file_name).unwrap_or_default();
        let mut name = part.to_owned();
        name.push("-");
        name.push(record.file_name().unwrap_or_default());
        self.root.join(DAMAGED).join(name)
    }

    /// A record; nothing when there is none, and when it is damaged: then it is set apart, for people to look at.
    fn read<T: serde::de::DeserializeOwned>(&self, record: &Path) -> std::io::Result<Option<T>> {
        match files::read_json(record) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let apart = self.apart(record);
                tracing::error!(record = %record.display(), apart = %apart.display(), %error, "a record is damaged");
                std::fs::rename(record, &apart)?;
                files::sync_directory(&self.root.join(DAMAGED))?;
                Ok(None)
            }
            other => other,
        }
    }

    fn write(&self, record: &Path, value: &impl Serialize) -> std::io::Result<()> {
        self.on_record.tell(record);
        files::write_json(record, value)
    }

    fn remove(&self, record: &Path) -> std::io::Result<()> {
        self.on_record.tell(record);
        files::remove(record)
    }

    /// Well, or the records that are damaged.
    pub(crate) fn health(&self) -> Health {
        let entries = match std::fs::read_dir(self.root.join(DAMAGED)) {
            Ok(entries) => entries,
            Err(_) => return Health::Down("the drivers' records cannot be read".to_owned()),
        };
        let damaged: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        match damaged.first() {
            None => Health::Ok,
            Some(first) => Health::Degraded(format!(
                "{} damaged record(s) set apart, such as `{}`: restore it, or change or delete its resource and remove the file",
                damaged.len(),
                first.display()
            )),
        }
    }

    /// Waits until nobody else holds a name that several resources may want: after the lock of the resource, and one only.
    pub(crate) async fn hold(&self, context: &CallContext, name: &str) -> Result<ResourceLock, Failure> {
        let lock = self.lock_of(&format!("name {name}"));
        tokio::select! {
            guard = lock.lock_owned() => Ok(ResourceLock { _guard: guard }),
            () = context.cancel.cancelled() => Err(cancelled()),
        }
    }

    fn lock_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    /// Waits for the resource, and refuses a caller whose claim is lost or who was told to stop.
    pub(crate) async fn lock(&self, context: &CallContext) -> Result<ResourceLock, Failure> {
        if context.cancel.is_cancelled() {
            return Err(cancelled());
        }
        let lock = self.lock_of(&context.resource);
        let guard = tokio::select! {
            guard = lock.lock_owned() => guard,
            () = context.cancel.cancelled() => return Err(cancelled()),
        };
        self.fence(context)?;
        Ok(ResourceLock { _guard: guard })
    }

    /// The earlier use of the call's key, if any. Other inputs under the same key are refused, but of a claimant that goes on
    /// with what was used in a life of its operation that is lost: then what was made is changed to them.
    pub(crate) fn replay(&self, context: &CallContext, inputs: &Value) -> Result<Option<KeyUse>, Failure> {
        let used = self.key_use(&context.idempotency_key)?;
        let goes_on = context.claimant() != context.operation;
        match used {
            Some(used) if goes_on && used.is_of(context) && used.digest != self.digest(inputs) => {
                Ok(Some(KeyUse { result: None, ..used }))
            }
            Some(used) if !used.is_of(context) || used.digest != self.digest(inputs) => {
                let message = "the idempotency key was used with other inputs";
                Err(Failure::new(FailureCode::InvalidArgument, message))
            }
            other => Ok(other),
        }
    }

    fn digest(&self, inputs: &Value) -> String {
        self.keyring().digest("inputs", &canonical_json(inputs))
    }

    fn key_use(&self, key: &str) -> Result<Option<KeyUse>, Failure> {
        self.read(&self.path(KEYS, key)).map_err(broken("read"))
    }

    /// Records that this call is about to work on `identity`; `result` once it has one.
    pub(crate) fn record_key(
        &self,
        context: &CallContext,
        identity: &str,
        inputs: &Value,
        result: Option<Value>,
    ) -> Result<(), Failure> {
        let used = KeyUse {
            organization: context.organization.clone(),
            resource: context.resource.clone(),
            identity: identity.to_owned(),
            digest: self.digest(inputs),
            result,
        };
        self.write(&self.path(KEYS, &context.idempotency_key), &used).map_err(broken("written"))
    }

    /// Records a thing anew; a damaged record of it has served its time.
    pub(crate) fn store(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        let record = self.path(ENTRIES, &entry.identity);
        self.write(&record, entry).map_err(broken("written"))?;
        self.remove(&self.apart(&record)).map_err(broken("written"))
    }

    /// A thing of the caller's organization. One whose record is damaged is known by its name only, which the caller
    /// has from the platform's own database: it can be made anew or removed.
    pub(crate) fn entry(
        &self,
        context: &CallContext,
        identity: &str,
    ) -> Result<Option<LedgerEntry>, Failure> {
        if let Some(entry) = self.owner(identity)? {
            return Ok((entry.organization == context.organization).then_some(entry));
        }
        let damaged = self.apart(&self.path(ENTRIES, identity)).exists();
        let CallContext { organization, resource, idempotency_key, .. } = context;
        Ok(damaged.then(|| LedgerEntry::reconstructed(identity, organization, resource, "", idempotency_key)))
    }

    /// Whether the identity is taken, by whomever.
    pub(crate) fn owner(&self, identity: &str) -> Result<Option<LedgerEntry>, Failure> {
        self.read(&self.path(ENTRIES, identity)).map_err(broken("read"))
    }

    /// The identity behind a lookup, and the action's result when the key belongs to an action.
    pub(crate) fn find(&self, context: &CallContext, lookup: &Lookup) -> Result<Option<KeyUse>, Failure> {
        match lookup {
            // What another resource has by now under the same name is not what is looked for.
            Lookup::Identity(identity) => Ok(self
                .entry(context, identity)?
                .filter(|entry| entry.resource == context.resource)
                .map(|entry| KeyUse {
                    organization: entry.organization,
                    resource: entry.resource,
                    identity: entry.identity,
                    digest: String::new(),
                    result: None,
                })),
            Lookup::Key(key) => Ok(self.key_use(key)?.filter(|used| used.is_of(context))),
        }
    }

    /// Says durably that a thing is about to be removed: from now on nothing brings it back but an apply.
    pub(crate) fn mark_removing(&self, entry: &mut LedgerEntry) -> Result<(), Failure> {
        entry.ready = false;
        entry.underway = None;
        entry.ended = None;
        self.store(entry)
    }

    /// Forgets a thing that is gone, durably. Its fence stays, so that a zombie cannot bring it back.
    pub(crate) fn forget(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        let record = self.path(ENTRIES, &entry.identity);
        self.remove(&record).map_err(broken("written"))?;
        self.remove(&self.apart(&record)).map_err(broken("written"))?;
        for key in &entry.keys {
            self.remove(&self.path(KEYS, key)).map_err(broken("written"))?;
        }
        Ok(())
    }
}

fn cancelled() -> Failure {
    Failure::new(FailureCode::Cancelled, "cancelled before it began")
}

/// The worse of two; of two that are alike, the first.
pub(crate) fn worst(one: Health, other: Health) -> Health {
    match (&one, &other) {
        (Health::Down(_), _) | (_, Health::Ok) | (Health::Degraded(_), Health::Degraded(_)) => one,
        _ => other,
    }
}

impl From<LedgerEntry> for Listed {
    fn from(entry: LedgerEntry) -> Self {
        let LedgerEntry {
            identity,
            organization,
            resource,
            resource_type,
            created_by,
            declaration_digest,
            ..
        } = entry;
        Self { identity, resource_type, organization, resource, key: created_by, declaration_digest }
    }
}

#[cfg(test)]
mod tests {
    use pavior_driver::ApplyRequest;

    use super::*;
    use crate::DriversKey;

    pub(super) fn ledger(keep: Duration) -> (Arc<Ledger>, tempfile::TempDir) {
        let base = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(&DriversKey::derive(&[1; 32])).unwrap();
        let folder = Arc::new(Folder::open(&base.path().join("data"), keyring).unwrap());
        (Ledger::open(&folder, "test", keep, OnRecord::default()).unwrap(), base)
    }

    pub(super) fn asked() -> ApplyRequest {
        ApplyRequest {
            resource_type: "t".to_owned(),
            prior: None,
            inputs: Value::Null,
            sensitive: Vec::new(),
            declaration_digest: "declared".to_owned(),
        }
    }

    pub(super) fn call(resource: &str, key: &str) -> CallContext {
        let mut call = CallContext::new("acme", resource, key, 1);
        call.operation = key.to_owned();
        call
    }

    #[test]
    fn a_condemned_thing_is_not_ready_and_a_forgotten_one_is_gone() {
        let (ledger, _base) = ledger(Duration::from_secs(1));
        let call = call("r", "make");
        let mut intent = ledger.intend(&call, "t", "x", &asked()).unwrap();
        ledger.complete(&mut intent).unwrap();
        let other = self::call("other", "make");
        for lookup in [Lookup::Key("make".to_owned()), Lookup::Identity("x".to_owned())] {
            assert!(ledger.find(&call, &lookup).unwrap().is_some());
            assert!(ledger.find(&other, &lookup).unwrap().is_none(), "it is another resource's");
        }
        let mut entry = intent.entry;
        ledger.mark_removing(&mut entry).unwrap();
        assert!(!ledger.owner("x").unwrap().unwrap().ready);
        ledger.forget(&entry).unwrap();
        assert!(ledger.owner("x").unwrap().is_none());
        assert!(ledger.find(&call, &Lookup::Key("make".to_owned())).unwrap().is_none());
    }
}

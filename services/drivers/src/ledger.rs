//! What a driver remembers of its calls, in files: which key made what, and the highest fence per resource.
//!
//! The intent (key, identity) is durable before an effect, the result after it. One call at a time per resource.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use pavior_core::digest::{canonical_json, sha256_hex};
use pavior_driver::{CallContext, Failure, FailureCode, Lookup};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::files;
use crate::keyring::Keyring;

/// A use of an idempotency key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeyUse {
    pub(crate) organization: String,
    pub(crate) identity: String,
    digest: String,
    /// The result of an action; applies find theirs on the thing.
    pub(crate) result: Option<Value>,
}

/// A thing that exists, or is being made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) identity: String,
    pub(crate) organization: String,
    pub(crate) resource: String,
    pub(crate) resource_type: String,
    /// The key that made it: part of what its passwords are derived from.
    pub(crate) created_by: String,
    keys: Vec<String>,
    /// Whether an apply has ended well.
    pub(crate) ready: bool,
    /// The driver's own data; no secrets in the clear.
    pub(crate) data: Value,
}

impl Thing {
    /// A thing that the world itself told of, when this replica's files do not know it.
    pub(crate) fn told(
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
            ready: true,
            data: Value::Null,
        }
    }

    /// Whether an apply under this key made or changed it.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known == key)
    }
}

/// The highest fence of each step of the operation that works on a resource, and the operations before it. A fence
/// orders the claims of one step; operations on one resource follow each other, so that a call of an earlier one is
/// late whatever its number.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fences {
    operation: String,
    steps: BTreeMap<String, i64>,
    superseded: VecDeque<String>,
}

impl Fences {
    /// How many earlier operations are remembered.
    const REMEMBERED: usize = 64;

    /// Whether the file has to be written.
    fn advance(&mut self, context: &CallContext) -> Result<bool, Failure> {
        let fenced =
            |seen: &str| Failure::new(FailureCode::Fenced, format!("a later claim ({seen}) has been seen"));
        if self.superseded.contains(&context.operation) {
            return Err(fenced(&self.operation));
        }
        if self.operation != context.operation {
            if !self.steps.is_empty() {
                self.superseded.push_back(std::mem::take(&mut self.operation));
                while self.superseded.len() > Self::REMEMBERED {
                    self.superseded.pop_front();
                }
            }
            self.operation.clone_from(&context.operation);
            self.steps.clear();
        }
        match self.steps.get(&context.step) {
            Some(seen) if context.fence < *seen => Err(fenced(&seen.to_string())),
            Some(seen) if context.fence == *seen => Ok(false),
            _ => {
                self.steps.insert(context.step.clone(), context.fence);
                Ok(true)
            }
        }
    }
}

pub(crate) struct Ledger {
    root: PathBuf,
    keyring: Arc<Keyring>,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The right to work on one resource.
pub(crate) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

fn broken(what: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| {
        tracing::error!(error = %error, "driver state cannot be {what}");
        Failure::new(FailureCode::Internal, format!("the driver's state cannot be {what}"))
    }
}

impl Ledger {
    pub(crate) fn open(data: &Path, driver: &str, keyring: Arc<Keyring>) -> std::io::Result<Self> {
        let root = data.join("drivers").join(driver);
        for part in ["keys", "things", "fences"] {
            files::private_directory(&root.join(part))?;
        }
        Ok(Self { root, keyring, locks: Mutex::default() })
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    fn path(&self, part: &str, name: &str) -> PathBuf {
        self.root.join(part).join(format!("{}.json", sha256_hex(name.as_bytes())))
    }

    /// Waits for the resource, and refuses a caller whose claim is lost or who was told to stop.
    pub(crate) async fn enter(&self, context: &CallContext) -> Result<Turn, Failure> {
        let cancelled = || Failure::new(FailureCode::Cancelled, "cancelled before it began");
        if context.cancel.is_cancelled() {
            return Err(cancelled());
        }
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(context.resource.clone()).or_default())
        };
        let guard = tokio::select! {
            guard = lock.lock_owned() => guard,
            () = context.cancel.cancelled() => return Err(cancelled()),
        };
        let path = self.path("fences", &context.resource);
        let mut fences: Fences = files::read_json(&path).map_err(broken("read"))?.unwrap_or_default();
        if fences.advance(context)? {
            files::write_json(&path, &fences).map_err(broken("written"))?;
        }
        Ok(Turn { _guard: guard })
    }

    /// The earlier use of the call's key, if any. Other inputs under the same key are refused.
    pub(crate) fn replay(&self, context: &CallContext, inputs: &Value) -> Result<Option<KeyUse>, Failure> {
        let used = self.key_use(&context.idempotency_key)?;
        match used {
            Some(used) if used.organization != context.organization || used.digest != self.digest(inputs) => {
                let message = "the idempotency key was used with other inputs";
                Err(Failure::new(FailureCode::InvalidArgument, message))
            }
            other => Ok(other),
        }
    }

    fn digest(&self, inputs: &Value) -> String {
        self.keyring.digest("inputs", &canonical_json(inputs))
    }

    fn key_use(&self, key: &str) -> Result<Option<KeyUse>, Failure> {
        files::read_json(&self.path("keys", key)).map_err(broken("read"))
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
            identity: identity.to_owned(),
            digest: self.digest(inputs),
            result,
        };
        files::write_json(&self.path("keys", &context.idempotency_key), &used).map_err(broken("written"))
    }

    /// A thing that is about to be made or changed by this call.
    pub(crate) fn intend(
        &self,
        context: &CallContext,
        resource_type: &str,
        identity: &str,
        inputs: &Value,
    ) -> Result<Thing, Failure> {
        self.record_key(context, identity, inputs, None)?;
        let mut thing = self.thing(context, identity)?.unwrap_or_else(|| Thing {
            identity: identity.to_owned(),
            organization: context.organization.clone(),
            resource: context.resource.clone(),
            resource_type: resource_type.to_owned(),
            created_by: context.idempotency_key.clone(),
            keys: Vec::new(),
            ready: false,
            data: Value::Null,
        });
        if !thing.keys.contains(&context.idempotency_key) {
            thing.keys.push(context.idempotency_key.clone());
        }
        self.store(&thing)?;
        Ok(thing)
    }

    pub(crate) fn store(&self, thing: &Thing) -> Result<(), Failure> {
        files::write_json(&self.path("things", &thing.identity), thing).map_err(broken("written"))
    }

    /// A thing of the caller's organization.
    pub(crate) fn thing(&self, context: &CallContext, identity: &str) -> Result<Option<Thing>, Failure> {
        let thing: Option<Thing> =
            files::read_json(&self.path("things", identity)).map_err(broken("read"))?;
        Ok(thing.filter(|thing| thing.organization == context.organization))
    }

    /// Whether the identity is taken, by whomever.
    pub(crate) fn owner(&self, identity: &str) -> Result<Option<Thing>, Failure> {
        files::read_json(&self.path("things", identity)).map_err(broken("read"))
    }

    /// The identity behind a lookup, and the action's result when the key belongs to an action.
    pub(crate) fn find(&self, context: &CallContext, lookup: &Lookup) -> Result<Option<KeyUse>, Failure> {
        match lookup {
            Lookup::Identity(identity) => Ok(self.thing(context, identity)?.map(|thing| KeyUse {
                organization: thing.organization,
                identity: thing.identity,
                digest: String::new(),
                result: None,
            })),
            Lookup::Key(key) => {
                Ok(self.key_use(key)?.filter(|used| used.organization == context.organization))
            }
        }
    }

    /// Forgets a thing that is gone. Its fence stays, so that a zombie cannot bring it back.
    pub(crate) fn forget(&self, thing: &Thing) -> Result<(), Failure> {
        for key in &thing.keys {
            files::remove(&self.path("keys", key)).map_err(broken("written"))?;
        }
        files::remove(&self.path("things", &thing.identity)).map_err(broken("written"))
    }

    /// Every thing, of every organization: for the start of the process only.
    pub(crate) fn all(&self) -> std::io::Result<Vec<Thing>> {
        let mut things = Vec::new();
        for entry in std::fs::read_dir(self.root.join("things"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                things.extend(files::read_json(&path)?);
            }
        }
        Ok(things)
    }
}

//! One apply's work on a thing, from what it intends to how it ends: done, or taken back.

use async_trait::async_trait;
use pavior_driver::{ApplyRequest, CallContext, Failure, Lookup, Observation, Partial};
use serde_json::Value;

use super::{KEYS, Ledger, LedgerEntry, broken};

/// A thing that an apply is about to make or change. It ends in [`Ledger::complete`] or [`Ledger::roll_back`]; one that is
/// dropped instead stays recorded as broken off, which a look by its key shows.
#[must_use]
pub(crate) struct Intent {
    pub(crate) entry: LedgerEntry,
    before: Option<LedgerEntry>,
    key: String,
    declaration_digest: String,
}

impl Intent {
    /// Whether an earlier attempt under the same key ended well, and nothing has changed the thing since.
    pub(crate) fn repeats(&self) -> bool {
        self.before.as_ref().is_some_and(|before| before.is_of(&self.key))
    }
}

/// What a driver has of a thing in the world.
#[async_trait]
pub(crate) trait Rollback: Sync {
    /// Removes all of it; what is another's it leaves alone.
    async fn remove(&self, entry: &LedgerEntry) -> Result<(), Failure>;

    /// After a change that failed: an error when the thing is not as it was before.
    async fn restore(&self, before: &LedgerEntry) -> Result<(), Failure>;
}

impl Ledger {
    /// Says durably that this call is about to make or change a thing.
    pub(crate) fn intend(
        &self,
        context: &CallContext,
        resource_type: &str,
        identity: &str,
        request: &ApplyRequest,
    ) -> Result<Intent, Failure> {
        self.intend_over(context, resource_type, identity, request, None)
    }

    /// The same over what the world itself told of the thing, which counts more than what is recorded.
    pub(crate) fn intend_over(
        &self,
        context: &CallContext,
        resource_type: &str,
        identity: &str,
        request: &ApplyRequest,
        told: Option<LedgerEntry>,
    ) -> Result<Intent, Failure> {
        self.record_key(context, identity, &request.inputs, None)?;
        let key = context.idempotency_key.clone();
        let before = match told {
            Some(told) => Some(told),
            None => self.entry(context, identity)?,
        };
        let mut entry = before.clone().unwrap_or_else(|| LedgerEntry {
            identity: identity.to_owned(),
            organization: context.organization.clone(),
            resource: context.resource.clone(),
            resource_type: resource_type.to_owned(),
            created_by: key.clone(),
            keys: Vec::new(),
            ready: false,
            underway: None,
            ended: None,
            declaration_digest: String::new(),
            data: Value::Null,
            reconstructed: false,
        });
        if !entry.keys.contains(&key) {
            entry.keys.push(key.clone());
        }
        entry.underway = Some(key.clone());
        self.store(&entry)?;
        let declaration_digest = request.declaration_digest.clone();
        Ok(Intent { entry, before, key, declaration_digest })
    }

    /// The thing is as the call asked.
    pub(crate) fn complete(&self, intent: &mut Intent) -> Result<(), Failure> {
        let ended = Some(intent.key.clone());
        let declaration_digest = intent.declaration_digest.clone();
        let entry =
            LedgerEntry { ready: true, underway: None, ended, declaration_digest, ..intent.entry.clone() };
        self.store(&entry)?;
        intent.entry = entry;
        Ok(())
    }

    /// The call has failed: what never was is removed with its record, what was has its former record. Where that
    /// cannot be done, or is not known to be enough, the failure names what is left, for the engine to put it right.
    pub(crate) async fn roll_back(
        &self,
        intent: Intent,
        failure: Failure,
        rollback: &dyn Rollback,
    ) -> Failure {
        if failure.partial.is_some() {
            return failure;
        }
        let identity = intent.entry.identity.clone();
        let Err(why) = self.undo(intent, rollback).await else { return failure };
        tracing::warn!(identity, %why, "what a failed apply left is not undone yet");
        failure.with_partial(Partial { identity: Some(identity), state: Value::Null })
    }

    async fn undo(&self, intent: Intent, rollback: &dyn Rollback) -> Result<(), Failure> {
        let Intent { entry, before, key, declaration_digest: _ } = intent;
        match before {
            Some(mut before) if before.ready => {
                rollback.restore(&before).await?;
                if before.underway.as_ref() == Some(&key) {
                    // An earlier attempt under this key, of which nothing came.
                    before.underway = None;
                    before.keys.retain(|known| *known != key);
                }
                self.store(&before)?;
                if !before.has_key(&key) {
                    self.remove(&self.path(KEYS, &key)).map_err(broken("written"))?;
                }
                Ok(())
            }
            // It was there, and in which state is not known.
            Some(before) if before.underway.is_none() => {
                let message = "what was there before the call is not known";
                Err(Failure::new(pavior_driver::FailureCode::Internal, message))
            }
            _ => {
                rollback.remove(&entry).await?;
                self.forget(&entry)
            }
        }
    }
}

impl LedgerEntry {
    /// Whether it is what the apply under this key asked for, as far as is recorded.
    fn is_of(&self, key: &str) -> bool {
        self.ready && self.ended.as_deref() == Some(key)
    }

    /// What a look by this lookup saw, with the digest of what was declared. By a key a thing is found only when the apply of that key
    /// ended; however well it works, it is what another one asked for until then.
    pub(crate) fn seen(&self, lookup: &Lookup, mut observation: Observation) -> Observation {
        if let Observation::Found(found) = &mut observation {
            found.declaration_digest.clone_from(&self.declaration_digest);
        }
        let Lookup::Key(key) = lookup else { return observation };
        match observation {
            Observation::Found(found) if !self.is_of(key) => {
                if !self.has_key(key) {
                    // Of what was asked for there is nothing.
                    return Observation::Absent;
                }
                Observation::Partial {
                    identity: Some(found.identity),
                    state: found.state,
                    message: "an apply broke off".to_owned(),
                }
            }
            other => other,
        }
    }
}

//! The highest fence of each resource: a caller whose claim is lost is refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use pavior_driver::{CallContext, Failure, FailureCode};
use serde::{Deserialize, Serialize};

use super::{FENCES, Ledger, broken};

/// The highest fence of each step of the operation (its claimant) that works on a resource, and the operations before it. A
/// fence orders the claims of one step; operations on one resource follow each other, so that a call of an earlier one is
/// late whatever its number.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fences {
    operation: String,
    steps: BTreeMap<String, i64>,
    superseded: VecDeque<String>,
    /// When it was seen that the record of earlier claims is damaged, in milliseconds since 1970. Of the operations that
    /// had begun by then nobody knows which is late, so that none of them is taken any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

/// When an operation began, which its id tells (UUIDv7, RFC 9562): milliseconds since 1970.
fn begun(operation: &str) -> Option<u64> {
    let id = uuid::Uuid::parse_str(operation).ok().filter(|id| id.get_version_num() == 7)?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(seconds * 1_000 + u64::from(nanos) / 1_000_000)
}

impl Fences {
    /// How many earlier operations are remembered.
    const REMEMBERED: usize = 64;

    fn lost(now: SystemTime) -> Self {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { lost: Some(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)), ..Self::default() }
    }

    /// Whether anything that was seen began after an operation that says that it is the one it was. Of what is lost since a
    /// restore of the engine's database, the drivers may never have heard.
    fn begun_after(&self, context: &CallContext) -> bool {
        let Some(own) = begun(&context.operation).filter(|_| context.claimant == context.operation) else {
            return false;
        };
        let mut seen = self.superseded.iter().chain([&self.operation]);
        self.operation != context.operation && seen.any(|seen| begun(seen).is_some_and(|seen| seen > own))
    }

    /// Whether the file has to be written.
    fn advance(&mut self, context: &CallContext) -> Result<bool, Failure> {
        let fenced =
            |seen: &str| Failure::new(FailureCode::Fenced, format!("a later claim ({seen}) has been seen"));
        if let Some(lost) = self.lost
            && begun(context.claimant()).is_none_or(|begun| begun <= lost)
        {
            let message = "the driver's record of claims on this resource was damaged: \
                           only an operation that began after that was seen is taken";
            return Err(Failure::new(FailureCode::Fenced, message));
        }
        if self.superseded.iter().any(|earlier| earlier == context.claimant()) {
            return Err(fenced(&self.operation));
        }
        if self.begun_after(context) {
            return Err(fenced(&self.operation));
        }
        if self.operation != context.claimant() {
            if !self.steps.is_empty() {
                self.superseded.push_back(std::mem::take(&mut self.operation));
                while self.superseded.len() > Self::REMEMBERED {
                    self.superseded.pop_front();
                }
            }
            context.claimant().clone_into(&mut self.operation);
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

impl Ledger {
    /// Refuses a caller whose claim is lost; else no earlier claim is taken from now on.
    pub(super) fn fence(&self, context: &CallContext) -> Result<(), Failure> {
        let path = self.path(FENCES, &context.resource);
        let apart = self.apart(&path);
        let mut fences = match self.read::<Fences>(&path).map_err(broken("read"))? {
            Some(fences) => fences,
            None if apart.exists() => {
                let fences = Fences::lost(self.now().map_err(broken("read"))?);
                self.write(&path, &fences).map_err(broken("written"))?;
                fences
            }
            None => Fences::default(),
        };
        if fences.advance(context)? {
            self.write(&path, &fences).map_err(broken("written"))?;
        }
        if fences.lost.is_some() {
            // The damaged record has served its time: what it said is of no use any more.
            self.remove(&apart).map_err(broken("written"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pavior_driver::Health;

    use super::super::tests::{call, ledger};
    use super::*;

    #[tokio::test]
    async fn damaged_fences_let_no_earlier_operation_pass() {
        let (ledger, _base) = ledger(Duration::from_secs(3600));
        let claim = |operation: uuid::Uuid, fence| {
            let mut call = call("r", "make");
            (call.operation, call.fence) = (operation.to_string(), fence);
            call
        };
        let (zombie, current) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
        for operation in [zombie, current] {
            drop(ledger.lock(&claim(operation, 1)).await.unwrap());
        }
        std::fs::write(ledger.path(FENCES, "r"), "{").unwrap();
        let refused = async |call: &CallContext| {
            let Err(failure) = ledger.lock(call).await else { panic!("{} passes", call.operation) };
            assert_eq!(failure.code, FailureCode::Fenced);
            failure.message
        };
        // Which of them is late is not known, and what bears no time may be older still.
        for late in [claim(zombie, 9), claim(current, 9), call("r", "no-time")] {
            for _ in 0..2 {
                let message = refused(&late).await;
                assert!(message.contains("was damaged"), "{message}");
            }
        }
        assert!(matches!(ledger.health(), Health::Degraded(what) if what.contains("fences-")));
        let mut next = uuid::Uuid::now_v7();
        let lost = ledger.read::<Fences>(&ledger.path(FENCES, "r")).unwrap().unwrap().lost.unwrap();
        while begun(&next.to_string()).unwrap() <= lost {
            next = uuid::Uuid::now_v7();
        }
        drop(ledger.lock(&claim(next, 1)).await.unwrap());
        assert_eq!(ledger.health(), Health::Ok);
        for late in [zombie, current] {
            refused(&claim(late, 9)).await;
        }
        assert_eq!(refused(&claim(next, 0)).await, "a later claim (1) has been seen");
        drop(ledger.lock(&call("other", "no-time")).await.unwrap());
    }

    /// After a restore of the engine's database an operation does once more what it has done, and finds other inputs.
    #[tokio::test]
    async fn who_goes_on_after_a_restore_passes_and_changes_what_was_made() {
        use serde_json::json;

        let (ledger, _base) = ledger(Duration::from_secs(3600));
        let (mut first, mut later) = (call("r", "key"), call("r", "later"));
        "first".clone_into(&mut first.operation);
        "later".clone_into(&mut later.operation);
        drop(ledger.lock(&first).await.unwrap());
        ledger.record_key(&first, "made", &json!({ "commit": 1 }), Some(json!("told"))).unwrap();
        drop(ledger.lock(&later).await.unwrap());
        let refused = ledger.replay(&first, &json!({ "commit": 2 })).unwrap_err();
        assert_eq!(refused.code, FailureCode::InvalidArgument);
        assert_eq!(ledger.lock(&first).await.err().map(|failure| failure.code), Some(FailureCode::Fenced));
        "anew".clone_into(&mut first.claimant);
        drop(ledger.lock(&first).await.unwrap());
        let used = ledger.replay(&first, &json!({ "commit": 2 })).unwrap().unwrap();
        assert_eq!((used.identity.as_str(), used.result), ("made", None));
        let same = ledger.replay(&first, &json!({ "commit": 1 })).unwrap().unwrap();
        assert_eq!(same.result, Some(json!("told")));
        assert_eq!(ledger.lock(&later).await.err().map(|failure| failure.code), Some(FailureCode::Fenced));
    }

    /// What takes something down after a restore may never have come here in the life that is lost.
    #[tokio::test]
    async fn who_stays_what_it_was_is_late_for_what_began_after_it() {
        let (ledger, _base) = ledger(Duration::from_secs(3600));
        let id = |second: u64| {
            uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, second, 0)).to_string()
        };
        let (mut parked, mut seen) = (call("r", "removal"), call("r", "deployment"));
        (parked.operation, seen.operation) = (id(1_000), id(2_000));
        drop(ledger.lock(&seen).await.unwrap());
        parked.claimant.clone_from(&parked.operation);
        for _ in 0..2 {
            assert_eq!(
                ledger.lock(&parked).await.err().map(|failure| failure.code),
                Some(FailureCode::Fenced)
            );
        }
        drop(ledger.lock(&seen).await.unwrap());
        // What began before it and came after that does not hide it.
        let mut waited = call("r", "orphan");
        waited.operation = id(500);
        drop(ledger.lock(&waited).await.unwrap());
        assert_eq!(ledger.lock(&parked).await.err().map(|failure| failure.code), Some(FailureCode::Fenced));
        // One that was accepted before, and waited, is none that was parked.
        parked.claimant.clear();
        drop(ledger.lock(&parked).await.unwrap());
    }
}

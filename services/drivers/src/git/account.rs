//! Where it is recorded what becomes of pushes: that one is about to happen, or that it was refused and why.

use std::sync::Arc;

use pavior_driver::{Push, PushRecorder, RefUpdate};

/// Most bytes of a name in the record of a push that was refused: nobody has looked at it.
const MAX_NAME: usize = 255;
/// Most bytes of all names in it. Each is written three times, and escaped.
const MAX_NAMES: usize = 32 * 1024;

/// The account of the pushes to a repository.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) recorder: Arc<dyn PushRecorder>,
    pub(super) organization: String,
    pub(super) repository: String,
}

impl Account {
    /// Records that a push is about to happen; false when that cannot be recorded, and then it must not.
    pub(super) async fn announce(&self, updates: &[RefUpdate]) -> bool {
        // To ask whether one may push moves nothing.
        updates.is_empty() || self.record(updates.to_vec(), None).await
    }

    /// Records that a push was refused, with as much of it as was read and fits; false when that cannot be recorded.
    pub(super) async fn refuse(&self, updates: Vec<RefUpdate>, why: String) -> bool {
        let (all, mut bytes) = (updates.len(), 0);
        let shortened = updates.into_iter().map(|mut update| {
            update.name.truncate(update.name.floor_char_boundary(MAX_NAME));
            update
        });
        let named: Vec<RefUpdate> = shortened
            .take_while(|update| {
                bytes += update.name.len();
                bytes <= MAX_NAMES
            })
            .collect();
        let why = match named.len() {
            some if some < all => format!("{why}; {some} of {all} references are named"),
            _ => why,
        };
        self.record(named, Some(why)).await
    }

    async fn record(&self, updates: Vec<RefUpdate>, refused: Option<String>) -> bool {
        let (organization, repository) = (self.organization.clone(), self.repository.clone());
        let recorded = self.recorder.record(Push { organization, repository, updates, refused }).await;
        if let Err(error) = &recorded {
            tracing::error!(error, "a push cannot be recorded");
        }
        recorded.is_ok()
    }
}

//! Texts of policies, each parsed and checked once.

use std::sync::Arc;

use moka::future::Cache;
use pavior_core::digest::sha256;

use crate::domain::policy::PolicyType;
use crate::domain::schema::PolicySchema;
use crate::domain::source::{CheckedPolicy, check};

/// Most results in the cache.
const MAX_CACHED: u64 = 10_000;

type Checked = Arc<Result<Arc<CheckedPolicy>, Vec<String>>>;

/// Checks texts and remembers the results.
#[derive(Clone)]
pub(crate) struct Sources {
    schema: Arc<PolicySchema>,
    checked: Cache<(String, [u8; 32], PolicyType), Checked>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("cached", &self.checked.entry_count()).finish_non_exhaustive()
    }
}

impl Sources {
    /// An empty cache.
    pub(crate) fn new(schema: Arc<PolicySchema>) -> Self {
        Self { schema, checked: Cache::new(MAX_CACHED) }
    }

    /// Checks a text.
    ///
    /// # Errors
    /// One sentence for each thing that is wrong.
    pub(crate) async fn check(
        &self,
        organization: &str,
        kind: PolicyType,
        text: &str,
    ) -> Result<Arc<CheckedPolicy>, Vec<String>> {
        let key = (organization.to_owned(), sha256(text.as_bytes()), kind);
        if let Some(known) = self.checked.get(&key).await {
            return (*known).clone();
        }
        let (schema, text, organization) = (self.schema.clone(), text.to_owned(), organization.to_owned());
        // Blocks for milliseconds while it waits for the parser's own thread, hence not on a worker of the runtime.
        let result = tokio::task::spawn_blocking(move || check(&text, kind, &schema, &organization)).await;
        let Ok(result) = result else { return Err(vec!["the policy cannot be checked now".to_owned()]) };
        let result = result.map(Arc::new);
        self.checked.insert(key, Arc::new(result.clone())).await;
        result
    }
}

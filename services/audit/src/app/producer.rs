//! Producers.

use super::reader::Reader;
use crate::domain::batch::{Producer, Progress};
use crate::error::Error;

impl Reader {
    /// What the log has of a producer, which asks for itself.
    pub(crate) async fn progress(&self, producer: &Producer) -> Result<Progress, Error> {
        self.store.progress_unscoped(producer).await
    }
}

//! What was lost: claims whose worker did not come back.

use super::Engine;

const BATCH: u64 = 100;

impl Engine {
    /// Frees claims whose leases have ended.
    pub(crate) async fn recover(&self) {
        let lapsed = match self.db.lapsed_unscoped(BATCH).await {
            Ok(lapsed) => lapsed,
            Err(error) => {
                tracing::warn!(%error, "looking for lost claims failed and will be repeated");
                return;
            }
        };
        for operation in lapsed {
            self.free(operation).await;
        }
    }

    /// At the start: where no other process can have the database, every claim in it is from a process that is gone.
    pub(crate) async fn recover_own(&self) {
        if self.db.exclusive() {
            match self.db.end_leases_unscoped().await {
                Ok(0) => {}
                Ok(ended) => tracing::info!(ended, "steps of the former process are looked after"),
                Err(error) => {
                    tracing::warn!(%error, "claims of the former process are freed when they lapse")
                }
            }
        }
        self.recover().await;
    }

    async fn free(&self, operation: uuid::Uuid) {
        match self.db.recover_unscoped(operation).await {
            Ok(freed) => {
                if freed > 0 {
                    tracing::warn!(%operation, freed, "claims were lost and are looked after");
                }
                self.changed(operation);
                self.wake();
            }
            Err(error) => tracing::warn!(%operation, %error, "recovery failed and will be repeated"),
        }
    }
}

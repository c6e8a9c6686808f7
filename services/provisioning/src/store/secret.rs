//! Sealed values.

use crate::store::entity::secret;
use crate::store::prelude::*;

/// A sealed value to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Under which it is found.
    pub reference: String,
    /// Nonce and ciphertext.
    pub bytes: Vec<u8>,
}

impl Db {
    /// Sealed values by their references.
    pub async fn secrets_unscoped(&self, references: Vec<String>) -> Result<Vec<secret::Model>> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        Ok(secret::Entity::find()
            .filter(secret::Column::Reference.is_in(references))
            .all(self.store.read())
            .await?)
    }
}

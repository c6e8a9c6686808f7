//! Proofs, computed from the stored tiles.

use pavior_auth::Permit;

use super::reader::Reader;
use crate::domain::checkpoint::Checkpoint;
use crate::domain::hash::Hash;
use crate::domain::proof::{self, Span};
use crate::error::Error;

/// An audit path and what it is about.
#[derive(Debug)]
pub(crate) struct Inclusion {
    pub(crate) tree_size: u64,
    pub(crate) leaf: Hash,
    pub(crate) path: Vec<Hash>,
    pub(crate) checkpoint: Checkpoint,
}

/// A consistency proof and what it is about.
#[derive(Debug)]
pub(crate) struct Consistency {
    pub(crate) to_size: u64,
    pub(crate) path: Vec<Hash>,
    pub(crate) checkpoint: Checkpoint,
}

impl Reader {
    /// Proves that record `index` stands in the tree of `tree_size` records, or of the newest checkpoint.
    pub(crate) async fn prove_inclusion(
        &self,
        permit: &Permit,
        index: u64,
        tree_size: Option<u64>,
    ) -> Result<Inclusion, Error> {
        let checkpoint = self.checkpoint(permit).await?;
        let size = checkpoint.head.size;
        let tree_size = within("tree_size", tree_size.unwrap_or(size), size)?;
        if index >= tree_size {
            return Err(Error::BeyondEnd { field: "index", asked: index, size: tree_size });
        }
        let leaf = Span::leaf(index);
        let mut spans = proof::inclusion(index, tree_size);
        spans.push(leaf);
        let mut path = self.hashes(permit, &spans).await?;
        let leaf = path.pop().unwrap_or_default();
        Ok(Inclusion { tree_size, leaf, path, checkpoint })
    }

    /// Proves that the first `from` records are the beginning of the tree of `to`, or of the newest checkpoint.
    pub(crate) async fn prove_consistency(
        &self,
        permit: &Permit,
        from: u64,
        to: Option<u64>,
    ) -> Result<Consistency, Error> {
        let checkpoint = self.checkpoint(permit).await?;
        let size = checkpoint.head.size;
        let to_size = within("to_size", to.unwrap_or(size), size)?;
        let from = within("from_size", from, to_size)?;
        // Every tree begins with the empty one; there is nothing to show.
        let spans = if from == 0 { Vec::new() } else { proof::consistency(from, to_size) };
        let path = self.hashes(permit, &spans).await?;
        Ok(Consistency { to_size, path, checkpoint })
    }

    async fn hashes(&self, permit: &Permit, spans: &[Span]) -> Result<Vec<Hash>, Error> {
        let tiles = self.store.tiles(permit, &proof::tiles(spans)).await?;
        let missing = || Error::inconsistent(permit.organization(), "a tile is missing or too short");
        spans.iter().map(|span| proof::span_hash(*span, &tiles).ok_or_else(missing)).collect()
    }
}

fn within(field: &'static str, asked: u64, size: u64) -> Result<u64, Error> {
    if asked <= size { Ok(asked) } else { Err(Error::BeyondEnd { field, asked, size }) }
}

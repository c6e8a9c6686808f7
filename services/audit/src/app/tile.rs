//! Tiles.

use pavior_auth::Permit;

use super::reader::Reader;
use crate::domain::hash::Hash;
use crate::domain::tree::tile_width;
use crate::error::Error;

impl Reader {
    /// A tile of the tree of the newest checkpoint; nothing where the tree has none.
    pub(crate) async fn tile(
        &self,
        permit: &Permit,
        level: u32,
        index: u64,
    ) -> Result<Option<Vec<Hash>>, Error> {
        let width = tile_width(self.checkpoint(permit).await?.head.size, level, index);
        if width == 0 {
            return Ok(None);
        }
        let mut tiles = self.store.tiles(permit, &[(level, index)].into()).await?;
        let missing = || Error::inconsistent(permit.organization(), "a tile is missing or too short");
        let mut hashes = tiles.remove(&(level, index)).ok_or_else(missing)?;
        // It may have grown since the checkpoint was read.
        hashes.truncate(width);
        Ok(Some(hashes))
    }
}

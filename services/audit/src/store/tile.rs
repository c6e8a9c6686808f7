//! Tiles, and what they prove.

use std::collections::{BTreeSet, HashMap};

use pavior_auth::Permit;
use sea_orm::{ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, QueryFilter as _};

use super::AuditStore;
use super::entity::{head, tile};
use super::head::tree_head;
use crate::domain::hash::Hash;
use crate::domain::log_state::TreeHead;
use crate::domain::proof;
use crate::domain::tree::{Edge, MAX_LEVELS, hashes_of, open_tile};
use crate::error::{Error, Rollback};

/// Tiles by level and index.
pub(crate) type Tiles = HashMap<(u32, u64), Vec<Hash>>;

impl AuditStore {
    /// Tiles of the permit's log.
    pub(crate) async fn tiles(&self, permit: &Permit, wanted: &BTreeSet<(u32, u64)>) -> Result<Tiles, Error> {
        read(self.store.read(), permit.organization(), wanted.iter().copied()).await
    }

    /// Whether a log was rolled back from a tree head that it had: by its head, or by `to`, which was one of it after its
    /// head was read.
    pub(crate) async fn rollback_unscoped(
        &self,
        log: &str,
        from: &TreeHead,
        to: Option<&TreeHead>,
    ) -> Result<Option<Rollback>, Error> {
        let db = self.store.read();
        let found = async {
            match to {
                Some(to) => rollback(db, log, from, to).await,
                None => rollback(db, log, from, &tree_head(db, log).await?).await,
            }
        };
        found.await.map_err(|error| error.of_log(log))
    }
}

/// Whether a log that has come to `to` was rolled back from a tree head that it had. Shown by the tiles, which may have grown
/// since, and to both roots: tiles that were changed show nothing.
pub(super) async fn rollback(
    db: &impl ConnectionTrait,
    log: &str,
    from: &TreeHead,
    to: &TreeHead,
) -> Result<Option<Rollback>, Error> {
    let path = match from.size {
        size if size == 0 || size >= to.size => Vec::new(),
        size => {
            let spans = proof::consistency(size, to.size);
            let tiles = read(db, log, proof::tiles(&spans).into_iter()).await?;
            let path: Option<Vec<Hash>> = spans.iter().map(|span| proof::span_hash(*span, &tiles)).collect();
            path.ok_or_else(|| {
                Error::inconsistent(
                    log,
                    format!("a tile of its first {} records is missing or short", to.size),
                )
            })?
        }
    };
    if proof::is_consistent(from, to, &path) {
        return Ok(None);
    }
    let forked = from.size <= to.size;
    Ok(Some(Rollback { log: log.to_owned(), has: to.size, signed: from.size, forked }))
}

async fn read(
    db: &impl ConnectionTrait,
    log: &str,
    wanted: impl Iterator<Item = (u32, u64)>,
) -> Result<Tiles, Error> {
    let mut any = Condition::any();
    for (level, index) in wanted {
        let (level, index) = (i64::from(level), i64::try_from(index).unwrap_or(i64::MAX));
        any = any.add(Condition::all().add(tile::Column::Level.eq(level)).add(tile::Column::Idx.eq(index)));
    }
    if any.is_empty() {
        return Ok(Tiles::new());
    }
    let rows = tile::Entity::find().filter(tile::Column::Log.eq(log)).filter(any).all(db).await?;
    rows.into_iter()
        .map(|row| {
            let hashes = hashes_of(&row.hashes).filter(|hashes| hashes.len() as i64 == i64::from(row.width));
            let place = (u32::try_from(row.level).ok(), u64::try_from(row.idx).ok());
            match (place, hashes) {
                ((Some(level), Some(index)), Some(hashes)) => Ok(((level, index), hashes)),
                _ => Err(Error::inconsistent(
                    log,
                    format!("tile {} of level {} is damaged", row.idx, row.level),
                )),
            }
        })
        .collect()
}

/// The right edge of a log whose head is locked, from its tiles, which must hash to the head.
pub(super) async fn edge_of(db: &impl ConnectionTrait, head: &head::Model) -> Result<Edge, Error> {
    let inconsistent = |why: &str| Error::inconsistent(&head.log, why);
    let size = u64::try_from(head.tree_size).map_err(|_| inconsistent("its size is negative"))?;
    let edge = edge(db, &head.log, size).await?;
    match edge.root()[..] == head.root_hash {
        true => Ok(edge),
        false => Err(inconsistent("its tiles do not hash to its head")),
    }
}

/// The right edge of a log of `size` records, from its unfinished tiles.
async fn edge(db: &impl ConnectionTrait, log: &str, size: u64) -> Result<Edge, Error> {
    let open: Vec<(u32, u64, usize)> = (0..MAX_LEVELS)
        .map(|level| {
            let (index, width) = open_tile(size, level);
            (level, index, width)
        })
        .collect();
    let wanted = open.iter().filter(|(_, _, width)| *width > 0).map(|(level, index, _)| (*level, *index));
    let mut tiles = read(db, log, wanted).await?;
    let open =
        open.iter().map(|(level, index, _)| tiles.remove(&(*level, *index)).unwrap_or_default()).collect();
    let why = || format!("its tiles are not those of {size} records");
    Edge::new(size, open).ok_or_else(|| Error::inconsistent(log, why()))
}

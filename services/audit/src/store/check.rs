//! Whether what is stored of a log fits together. One that does not must not grow.

use pavior_store::Tx;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::AuditStore;
use super::entity::{checkpoint, head, record, tile};
use super::head::HEAD_IS_GONE;
use super::insert::signed;
use super::tile::edge_of;
use crate::domain::checkpoint::{CheckpointSigner, ConsistentLog};
use crate::domain::hash;
use crate::domain::tree::{TILE_WIDTH, hashes_of, tile_width};
use crate::error::Error;

impl AuditStore {
    /// Hashes the records of one tile again and compares them with it, and the tile with what stands for it a level
    /// above; returns how many records there are. `size` is one that the log's head had.
    pub(crate) async fn check_tile_unscoped(&self, log: &str, index: u64, size: u64) -> Result<u64, Error> {
        check_tile(self.store.read(), log, index, size).await.map_err(|error| error.of_log(log))
    }

    /// The same of all records of a log that has come to `size`. It reads every record: for an operator, who waits.
    pub(crate) async fn check_records_unscoped(&self, log: &str, size: u64) -> Result<(), Error> {
        for tile in 0..size.div_ceil(TILE_WIDTH as u64) {
            self.check_tile_unscoped(log, tile, size).await?;
        }
        Ok(())
    }

    /// Checks that head, last record, right-edge tiles and checkpoint of a log agree.
    pub(crate) async fn check_unscoped(&self, log: &str) -> Result<ConsistentLog, Error> {
        let looked_at = log.to_owned();
        let found = self.store.upkeep("nothing: a consistent view of a log", move |tx| {
            let log = looked_at.clone();
            Box::pin(async move { check(tx, &log).await })
        });
        found.await.map_err(|error| error.of_log(log))
    }
}

/// As [`AuditStore::check_tile_unscoped`], wherever the rows are read.
async fn check_tile(db: &impl ConnectionTrait, log: &str, index: u64, size: u64) -> Result<u64, Error> {
    // The tile first: the records that it names are committed and do not change any more.
    let hashes = whole_tile(db, log, 0, index, size).await?;
    let first = signed(index.saturating_mul(TILE_WIDTH as u64))?;
    let found: Vec<(i64, Vec<u8>, Vec<u8>)> = record::Entity::find()
        .select_only()
        .columns([record::Column::Idx, record::Column::LeafHash, record::Column::Body])
        .filter(record::Column::Log.eq(log))
        .filter(record::Column::Idx.between(first, first + hashes.len() as i64 - 1))
        .order_by_asc(record::Column::Idx)
        .into_tuple()
        .all(db)
        .await?;
    let mut found = found.iter();
    for (place, expected) in (first..).zip(&hashes) {
        let found = found.next().filter(|(index, ..)| *index == place);
        if found.is_none_or(|(_, leaf, body)| hash::leaf(body) != *expected || leaf[..] != expected[..]) {
            return Err(Error::inconsistent(log, format!("record {place} is not what its tile says")));
        }
    }
    let records = hashes.len() as u64;
    check_above(db, log, index, size, hashes).await?;
    Ok(records)
}

/// Compares a full tile with its hash in the tile above it, and so on upwards while tiles are completed by it.
async fn check_above(
    db: &impl ConnectionTrait,
    log: &str,
    mut index: u64,
    size: u64,
    mut hashes: Vec<hash::Hash>,
) -> Result<(), Error> {
    for level in 1.. {
        if hashes.len() < TILE_WIDTH {
            break;
        }
        let (parent, entry) = (index / TILE_WIDTH as u64, (index % TILE_WIDTH as u64) as usize);
        // A tile that became full after the size was read may stand in a tile that is not looked for yet.
        if entry >= tile_width(size, level, parent) {
            break;
        }
        let above = whole_tile(db, log, level, parent, size).await?;
        if above.get(entry) != Some(&hash::perfect_root(&hashes)) {
            let why = format!("hash {entry} of tile {parent} of level {level} is not that of the tile below");
            return Err(Error::inconsistent(log, why));
        }
        if entry + 1 < TILE_WIDTH {
            break;
        }
        (index, hashes) = (parent, above);
    }
    Ok(())
}

/// A tile with at least the hashes that it has in a tree of `size`. One that is missing or short is damage, not the end of
/// the log.
async fn whole_tile(
    db: &impl ConnectionTrait,
    log: &str,
    level: u32,
    index: u64,
    size: u64,
) -> Result<Vec<hash::Hash>, Error> {
    let key = (log.to_owned(), level as i32, signed(index)?);
    let tile = tile::Entity::find_by_id(key).one(db).await?;
    let tile =
        tile.ok_or_else(|| Error::inconsistent(log, format!("tile {index} of level {level} is missing")))?;
    let hashes = hashes_of(&tile.hashes)
        .ok_or_else(|| Error::inconsistent(log, format!("tile {index} of level {level} is damaged")))?;
    let (found, least) = (hashes.len(), tile_width(size, level, index));
    match (least..=TILE_WIDTH).contains(&found) {
        true => Ok(hashes),
        false => Err(Error::inconsistent(
            log,
            format!("tile {index} of level {level} has {found} hashes, not {least}"),
        )),
    }
}

/// Leaves the head of the log locked.
async fn check(tx: &Tx, log: &str) -> Result<ConsistentLog, Error> {
    let inconsistent = |why: &str| Error::inconsistent(log, why);
    // Locked, so that no replica appends between the queries.
    let head = head::Entity::find_by_id(log.to_owned()).lock_exclusive().one(tx).await?;
    let head = head.ok_or_else(|| inconsistent(HEAD_IS_GONE))?;
    let edge = edge_of(tx, &head).await?;
    let size = edge.size();
    let checkpoint = checkpoint::Entity::find_by_id(log.to_owned()).one(tx).await?;
    let checkpoint = checkpoint.ok_or_else(|| inconsistent("it has no checkpoint"))?;
    if checkpoint.tree_size != head.tree_size || checkpoint.root_hash != head.root_hash {
        return Err(inconsistent("its last checkpoint is not that of its head"));
    }
    let last = record::Entity::find()
        .filter(record::Column::Log.eq(log))
        .order_by_desc(record::Column::Idx)
        .one(tx)
        .await?;
    match &last {
        None if size == 0 => {}
        Some(last) if last.idx + 1 == head.tree_size => {
            if hash::leaf(&last.body)[..] != last.leaf_hash {
                return Err(inconsistent("its last record was changed"));
            }
            check_last_leaf(tx, log, size, &last.leaf_hash).await?;
        }
        _ => return Err(inconsistent("its records do not end where its head says")),
    }
    let checkpoint::Model { note, verifier_key, .. } = checkpoint;
    Ok(ConsistentLog { log: log.to_owned(), origin: head.origin, edge, note, verifier_key })
}

/// Fails unless a log is consistent and its checkpoint is signed by this installation. Leaves its head locked.
pub(super) async fn verified(
    tx: &Tx,
    log: &str,
    signer: &dyn CheckpointSigner,
) -> Result<ConsistentLog, Error> {
    let found = check(tx, log).await?;
    match signer.objection(&found) {
        Some(objection) => Err(Error::inconsistent(log, objection.why)),
        None => Ok(found),
    }
}

/// Checks a tile of records again; nothing of a log that ends before it.
pub(super) async fn recheck_tile(
    db: &impl ConnectionTrait,
    log: &str,
    tile: u64,
    size: u64,
) -> Result<(), Error> {
    if tile_width(size, 0, tile) > 0 {
        check_tile(db, log, tile, size).await?;
    }
    Ok(())
}

async fn check_last_leaf(tx: &Tx, log: &str, size: u64, leaf: &[u8]) -> Result<(), Error> {
    let key = (log.to_owned(), 0, signed((size - 1) / TILE_WIDTH as u64)?);
    let tile = tile::Entity::find_by_id(key).one(tx).await?;
    let hashes = tile.and_then(|tile| hashes_of(&tile.hashes)).unwrap_or_default();
    match hashes.last().is_some_and(|last| last[..] == *leaf) {
        true => Ok(()),
        false => Err(Error::inconsistent(log, "its last record is not the last of its tree")),
    }
}

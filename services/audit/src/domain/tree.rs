//! The right edge of a log's tree: the unfinished tile of every level, from which root and growth follow.
//!
//! Tiles are those of C2SP tlog-tiles: 256 hashes each; level 0 holds leaf hashes, level n+1 the roots of full tiles
//! of level n. An unfinished tile is a prefix of the full one, so it is kept as one row that grows.

use super::hash::{self, Hash};
use super::log_state::TreeHead;

/// Hashes in a full tile.
pub(crate) const TILE_WIDTH: usize = 256;
/// Levels that 2^63 records can have.
pub(crate) const MAX_LEVELS: u32 = 8;

/// A tile, full or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) level: u32,
    pub(crate) index: u64,
    pub(crate) hashes: Vec<Hash>,
}

impl Tile {
    /// Its hashes, one after the other.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.hashes.concat()
    }
}

/// Takes the stored form of a tile's hashes apart; `None` when it is not a whole number of hashes.
pub(crate) fn hashes_of(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// The unfinished tile of a level in a tree of `size` leaves: its index and how many hashes it holds.
pub(crate) fn open_tile(size: u64, level: u32) -> (u64, usize) {
    let entries = size >> (8 * level);
    (entries / TILE_WIDTH as u64, (entries % TILE_WIDTH as u64) as usize)
}

/// How many hashes a tile holds in a tree of `size` leaves; 0 when it is not there.
pub(crate) fn tile_width(size: u64, level: u32, index: u64) -> usize {
    let entries = if level < MAX_LEVELS { size >> (8 * level) } else { 0 };
    let before = index.saturating_mul(TILE_WIDTH as u64);
    entries.saturating_sub(before).min(TILE_WIDTH as u64) as usize
}

/// The right edge of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edge {
    size: u64,
    /// By level, the hashes of the unfinished tile.
    open: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves from its unfinished tiles; `None` when their widths are not those of the
    /// size.
    pub(crate) fn new(size: u64, open: Vec<Vec<Hash>>) -> Option<Self> {
        let fits = (0..MAX_LEVELS).all(|level| {
            let width = open.get(level as usize).map_or(0, Vec::len);
            width == open_tile(size, level).1
        });
        fits.then_some(Self { size, open })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The size and root of the tree.
    pub(crate) fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root() }
    }

    /// The tree hash.
    pub(crate) fn root(&self) -> Hash {
        // From the right: within a level the lowest bit of the width is the rightmost perfect subtree.
        let mut root: Option<Hash> = None;
        for open in &self.open {
            let mut end = open.len();
            while end > 0 {
                let start = end & (end - 1);
                let left = hash::perfect_root(&open[start..end]);
                root = Some(root.map_or(left, |right| hash::node(&left, &right)));
                end = start;
            }
        }
        root.unwrap_or_else(hash::empty)
    }

    /// Appends leaves; returns every tile that is new or has changed.
    pub(crate) fn append(&mut self, leaves: impl IntoIterator<Item = Hash>) -> Vec<Tile> {
        let before = self.size;
        let mut changed = Vec::new();
        for leaf in leaves {
            self.size += 1;
            self.push(0, leaf, &mut changed);
        }
        for (level, hashes) in (0u32..).zip(&self.open) {
            let grown = self.size >> (8 * level) != before >> (8 * level);
            if grown && !hashes.is_empty() {
                let (index, _) = open_tile(self.size, level);
                changed.push(Tile { level, index, hashes: hashes.clone() });
            }
        }
        changed
    }

    fn push(&mut self, level: u32, hash: Hash, full: &mut Vec<Tile>) {
        let at = level as usize;
        if self.open.len() == at {
            self.open.push(Vec::with_capacity(TILE_WIDTH));
        }
        self.open[at].push(hash);
        if self.open[at].len() == TILE_WIDTH {
            let hashes = std::mem::replace(&mut self.open[at], Vec::with_capacity(TILE_WIDTH));
            let root = hash::perfect_root(&hashes);
            let index = (self.size >> (8 * (level + 1))) - 1;
            full.push(Tile { level, index, hashes });
            self.push(level + 1, root, full);
        }
    }
}

//! Inclusion and consistency proofs (RFC 6962 §2.1.1, §2.1.2), computed from tiles.

use std::collections::{BTreeSet, HashMap};

use super::hash::{self, Hash};
use super::tree::TILE_WIDTH;

/// The leaves `start..end`, whose tree hash a proof needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// The first leaves: the whole of a tree of that size, which must not be 0.
    pub(crate) fn first(size: u64) -> Self {
        Self { start: 0, end: size }
    }

    /// One leaf.
    pub(crate) fn leaf(index: u64) -> Self {
        Self { start: index, end: index + 1 }
    }
}

/// The largest power of two smaller than `n`, for n > 1.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// The spans of the audit path of leaf `index` in a tree of `size`, from the leaf upwards. `index < size`.
pub(crate) fn inclusion(index: u64, size: u64) -> Vec<Span> {
    let mut out = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            out.push(Span { start: middle, end });
            end = middle;
        } else {
            out.push(Span { start, end: middle });
            start = middle;
        }
    }
    out.reverse();
    out
}

/// The spans of the proof that the first `from` leaves begin the tree of `to`. `0 < from <= to`.
pub(crate) fn consistency(from: u64, to: u64) -> Vec<Span> {
    let mut out = Vec::new();
    let (mut start, mut end, mut whole) = (0, to, true);
    while from != end {
        let middle = start + split(end - start);
        if from <= middle {
            out.push(Span { start: middle, end });
            end = middle;
        } else {
            out.push(Span { start, end: middle });
            start = middle;
            whole = false;
        }
    }
    if !whole {
        out.push(Span { start, end });
    }
    out.reverse();
    out
}

/// Where a perfect, aligned subtree stands: level of the tile, its index, and the entries of it.
fn place(start: u64, height: u32) -> (u32, u64, std::ops::Range<usize>) {
    let (level, within) = (height / 8, height % 8);
    let entry = start >> (8 * level);
    let at = (entry % TILE_WIDTH as u64) as usize;
    (level, entry / TILE_WIDTH as u64, at..at + (1 << within))
}

/// Splits a span into perfect, aligned subtrees (start, height) from left to right.
fn perfect(span: Span) -> Vec<(u64, u32)> {
    let mut out = Vec::new();
    let mut start = span.start;
    while start < span.end {
        let height = (span.end - start).ilog2().min(start.trailing_zeros());
        out.push((start, height));
        start += 1 << height;
    }
    out
}

/// The tiles (level, index) that the hashes of the spans are computed from.
pub(crate) fn tiles(spans: &[Span]) -> BTreeSet<(u32, u64)> {
    let places = spans.iter().flat_map(|span| perfect(*span));
    places.map(|(start, height)| place(start, height)).map(|(level, index, _)| (level, index)).collect()
}

/// The tree hash of a span; `None` when a tile is missing or too short.
///
/// Every span of a proof is a subtree of the tree, so its perfect parts fall in size from left to right.
pub(crate) fn span_hash(span: Span, tiles: &HashMap<(u32, u64), Vec<Hash>>) -> Option<Hash> {
    let mut root: Option<Hash> = None;
    for (start, height) in perfect(span).into_iter().rev() {
        let (level, index, entries) = place(start, height);
        let left = hash::perfect_root(tiles.get(&(level, index))?.get(entries)?);
        root = Some(root.map_or(left, |right| hash::node(&left, &right)));
    }
    root
}

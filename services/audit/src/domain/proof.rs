//! Inclusion and consistency proofs (RFC 6962 §2.1.1, §2.1.2), computed from tiles.

use std::collections::{BTreeSet, HashMap};

use super::hash::{self, Hash};
use super::log_state::TreeHead;
use super::tree::TILE_WIDTH;

/// The leaves `start..end`, whose tree hash a proof needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u64,
    end: u64,
}

impl Span {
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

/// Whether the path proves that a tree goes on from a state that it had (RFC 9162 §2.1.4.2).
pub(crate) fn is_consistent(from: &TreeHead, to: &TreeHead, path: &[Hash]) -> bool {
    if from.size == 0 || from.size >= to.size {
        let root = if from.size == 0 { hash::empty() } else { to.root };
        return from.size <= to.size && from.root == root && path.is_empty();
    }
    let mut path = path.iter();
    // A perfect tree is itself the first hash of the path.
    let seed = if from.size.is_power_of_two() { Some(&from.root) } else { path.next() };
    let Some(seed) = seed else { return false };
    let (mut first, mut last) = (from.size - 1, to.size - 1);
    let complete = first.trailing_ones();
    (first, last) = (first >> complete, last >> complete);
    let (mut before, mut after) = (*seed, *seed);
    for hash in path {
        if last == 0 {
            return false;
        }
        if first & 1 == 1 || first == last {
            (before, after) = (hash::node(hash, &before), hash::node(hash, &after));
            let skipped = if first == 0 { 0 } else { first.trailing_zeros() };
            (first, last) = (first >> skipped, last >> skipped);
        } else {
            after = hash::node(&after, hash);
        }
        (first, last) = (first >> 1, last >> 1);
    }
    last == 0 && before == from.root && after == to.root
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

//! The tree and its proofs against the definitions of RFC 6962, word for word, and against published values.

use std::collections::HashMap;

use proptest::prelude::*;

use super::hash::{self, Hash};
use super::log_state::TreeHead;
use super::note;
use super::proof;
use super::tree::{Edge, MAX_LEVELS, Tile, hashes_of, open_tile, tile_width};

fn leaves(n: usize) -> Vec<Hash> {
    (0..n as u64).map(|i| hash::leaf(&i.to_be_bytes())).collect()
}

fn k(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn mth(d: &[Hash]) -> Hash {
    match d.len() {
        0 => hash::empty(),
        1 => d[0],
        n => hash::node(&mth(&d[..k(n)]), &mth(&d[k(n)..])),
    }
}

fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
    let n = d.len();
    if n == 1 {
        return vec![];
    }
    let (mut out, other) = match m < k(n) {
        true => (path(m, &d[..k(n)]), mth(&d[k(n)..])),
        false => (path(m - k(n), &d[k(n)..]), mth(&d[..k(n)])),
    };
    out.push(other);
    out
}

fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
    let n = d.len();
    if m == n {
        return if whole { vec![] } else { vec![mth(d)] };
    }
    let (mut out, other) = match m <= k(n) {
        true => (subproof(m, &d[..k(n)], whole), mth(&d[k(n)..])),
        false => (subproof(m - k(n), &d[k(n)..], false), mth(&d[..k(n)])),
    };
    out.push(other);
    out
}

/// What the database would hold.
type Tiles = HashMap<(u32, u64), Vec<Hash>>;

fn keep(tiles: &mut Tiles, changed: Vec<Tile>) {
    for tile in changed {
        tiles.insert((tile.level, tile.index), tile.hashes);
    }
}

fn grown(d: &[Hash], batches: &[usize]) -> (Edge, Tiles) {
    let (mut edge, mut tiles, mut at) = (Edge::default(), Tiles::new(), 0);
    for batch in batches.iter().copied().cycle().take_while(|_| true) {
        if at >= d.len() {
            break;
        }
        let end = (at + batch).min(d.len());
        keep(&mut tiles, edge.append(d[at..end].iter().copied()));
        at = end;
    }
    (edge, tiles)
}

fn hashes(spans: &[proof::Span], tiles: &Tiles) -> Vec<Hash> {
    // Only what `tiles` names may be needed: the store loads nothing else.
    let named = proof::tiles(spans);
    let loaded: Tiles =
        tiles.iter().filter(|(at, _)| named.contains(at)).map(|(a, h)| (*a, h.clone())).collect();
    spans.iter().map(|span| proof::span_hash(*span, &loaded).unwrap()).collect()
}

#[test]
fn published_hashes_of_rfc_6962_hold() {
    // The vectors of certificate-transparency's merkle tree tests.
    let inputs =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut edge = Edge::default();
    assert_eq!(hex::encode(edge.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (input, root) in inputs.iter().zip(roots) {
        edge.append([hash::leaf(&hex::decode(input).unwrap())]);
        assert_eq!(hex::encode(edge.root()), root, "size {}", edge.size());
    }
}

#[test]
fn root_is_that_of_the_definition_at_every_size_to_300() {
    let d = leaves(300);
    let mut edge = Edge::default();
    for n in 1..=300 {
        edge.append([d[n - 1]]);
        assert_eq!(edge.root(), mth(&d[..n]), "size {n}");
    }
}

#[test]
fn inclusion_proofs_are_those_of_the_definition_to_300() {
    let d = leaves(300);
    let (_, tiles) = grown(&d, &[1]);
    for n in (1..=300).step_by(7).chain([255, 256, 257]) {
        for m in 0..n {
            let spans = proof::inclusion(m as u64, n as u64);
            assert_eq!(hashes(&spans, &tiles), path(m, &d[..n]), "{m} of {n}");
        }
    }
}

#[test]
fn consistency_proofs_are_those_of_the_definition_to_300() {
    let d = leaves(300);
    let (_, tiles) = grown(&d, &[3]);
    for n in (1..=300).step_by(13).chain([256, 257]) {
        for m in (1..=n).step_by(3).chain([n]) {
            let spans = proof::consistency(m as u64, n as u64);
            assert_eq!(hashes(&spans, &tiles), subproof(m, &d[..n], true), "{m} to {n}");
        }
    }
}

#[test]
fn only_a_state_that_a_tree_had_is_consistent_with_it() {
    let d = leaves(300);
    let (_, tiles) = grown(&d, &[3]);
    let head = |n: usize| TreeHead { size: n as u64, root: mth(&d[..n]) };
    let heads: Vec<TreeHead> = (0..=300).map(head).collect();
    for n in (1..=300).step_by(13).chain([255, 256, 257]) {
        for m in (0..=n).step_by(3).chain([n]) {
            let (from, to) = (&heads[m], &heads[n]);
            let path = match m {
                0 => Vec::new(),
                _ => hashes(&proof::consistency(m as u64, n as u64), &tiles),
            };
            assert!(proof::is_consistent(from, to, &path), "{m} to {n}");
            let other = TreeHead { root: hash::leaf(b"other"), ..*from };
            assert!(!proof::is_consistent(&other, to, &path), "another {m} to {n}");
            let other = TreeHead { root: hash::leaf(b"other"), ..*to };
            assert!(m == 0 || !proof::is_consistent(from, &other, &path), "{m} to another {n}");
            assert!(m == n || !proof::is_consistent(to, from, &path), "{n} to {m}");
            let longer = [path.as_slice(), &[hash::leaf(b"more")]].concat();
            assert!(!proof::is_consistent(from, to, &longer), "{m} to {n} with a hash too many");
            if let Some((_, shorter)) = path.split_last() {
                assert!(!proof::is_consistent(from, to, shorter), "{m} to {n} with a hash too few");
            }
        }
    }
}

#[test]
fn tiles_have_the_widths_of_their_tree() {
    assert_eq!(open_tile(0, 0), (0, 0));
    assert_eq!(open_tile(65_537, 0), (256, 1));
    assert_eq!(open_tile(65_537, 1), (1, 0));
    assert_eq!(open_tile(65_537, 2), (0, 1));
    assert_eq!(tile_width(300, 0, 0), 256);
    assert_eq!(tile_width(300, 0, 1), 44);
    assert_eq!(tile_width(300, 1, 0), 1);
    assert_eq!(tile_width(300, 0, 2), 0);
    assert_eq!(tile_width(300, MAX_LEVELS, 0), 0);
    assert_eq!(tile_width(u64::MAX, 7, u64::MAX), 0);
}

#[test]
fn every_verifier_key_is_read_back() {
    for first in 0..=255 {
        let public = [first; 32];
        let key = note::verifier_key("pavior.dev/audit", &public);
        assert_eq!(note::public_key("pavior.dev/audit", &key), Some(public), "{key}");
        assert_eq!(note::public_key("elsewhere", &key), None, "{key}");
    }
}

#[test]
fn edge_with_the_wrong_widths_is_refused() {
    let d = leaves(3);
    assert!(Edge::new(3, vec![d.clone()]).is_some());
    assert!(Edge::new(4, vec![d.clone()]).is_none());
    assert!(Edge::new(3, vec![]).is_none());
    assert!(Edge::new(0, vec![]).is_some());
    assert!(hashes_of(&[0; 33]).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_batches_give_one_tree(n in 1usize..70_000, batches in prop::collection::vec(1usize..3000, 1..6), pick in any::<u64>()) {
        let d = leaves(n);
        let (edge, tiles) = grown(&d, &batches);
        prop_assert_eq!(edge.root(), mth(&d));
        // Reloading the edge from what the database holds gives the same edge.
        let open = (0..MAX_LEVELS)
            .map(|level| {
                let (index, width) = open_tile(n as u64, level);
                tiles.get(&(level, index)).map(|h| h[..width].to_vec()).unwrap_or_default()
            })
            .collect();
        prop_assert_eq!(Edge::new(n as u64, open).unwrap().root(), edge.root());
        let m = (pick % n as u64) as usize;
        prop_assert_eq!(hashes(&proof::inclusion(m as u64, n as u64), &tiles), path(m, &d));
        prop_assert_eq!(hashes(&proof::consistency(m as u64 + 1, n as u64), &tiles), subproof(m + 1, &d, true));
        for ((level, index), hashes) in &tiles {
            prop_assert_eq!(hashes.len(), tile_width(n as u64, *level, *index));
        }
    }
}

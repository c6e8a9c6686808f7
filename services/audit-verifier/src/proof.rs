//! Inclusion and consistency proofs, checked as RFC 9162 §2.1.3.2 and §2.1.4.2 say.

use crate::merkle::{Hash, leaf_hash, node_hash};
use crate::note::{Checkpoint, NoteError, VerifierKey};

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The checkpoint is not signed by a trusted key.
    #[error("checkpoint: {0}")]
    Note(#[from] NoteError),
    /// The numbers do not fit together.
    #[error("index {index} is not in a tree of {size} records")]
    OutOfTree {
        /// The index.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// The smaller tree is larger than the larger one.
    #[error("a tree of {from} records cannot be the beginning of one of {to}")]
    NotAPrefix {
        /// The size of the smaller tree.
        from: u64,
        /// The size of the larger tree.
        to: u64,
    },
    /// The proof has too many or too few hashes.
    #[error("the proof has the wrong number of hashes")]
    WrongLength,
    /// The hashes do not lead to the signed root.
    #[error("the proof does not lead to the signed root")]
    WrongRoot,
}

/// Checks that the record with these canonical bytes stands at `index` of the log whose signed checkpoint is `note`.
/// The proof must be for the checkpoint's own size.
pub fn verify_inclusion(
    record: &[u8],
    index: u64,
    proof: &[Hash],
    note: &str,
    key: &VerifierKey,
) -> Result<Checkpoint, ProofError> {
    let checkpoint = Checkpoint::verified(note, std::slice::from_ref(key))?;
    let root = inclusion_root(leaf_hash(record), index, checkpoint.size, proof)?;
    if root == checkpoint.root { Ok(checkpoint) } else { Err(ProofError::WrongRoot) }
}

pub(crate) fn inclusion_root(leaf: Hash, index: u64, size: u64, proof: &[Hash]) -> Result<Hash, ProofError> {
    if index >= size {
        return Err(ProofError::OutOfTree { index, size });
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 { Ok(hash) } else { Err(ProofError::WrongLength) }
}

/// Checks that the tree of checkpoint `from` is the beginning of the tree of checkpoint `to`. Both must have been
/// verified ([`Checkpoint::verified`]) or kept from a time when they were.
pub fn verify_consistency(from: &Checkpoint, to: &Checkpoint, proof: &[Hash]) -> Result<(), ProofError> {
    if from.size > to.size || from.origin != to.origin {
        return Err(ProofError::NotAPrefix { from: from.size, to: to.size });
    }
    if from.size == 0 || from.size == to.size {
        if !proof.is_empty() {
            return Err(ProofError::WrongLength);
        }
        // Any tree begins with the empty one; two of one size must be the same tree.
        let same = from.size == 0 || from.root == to.root;
        return if same { Ok(()) } else { Err(ProofError::WrongRoot) };
    }
    let mut path = proof.iter().copied();
    let first =
        if from.size.is_power_of_two() { from.root } else { path.next().ok_or(ProofError::WrongLength)? };
    let (mut node, mut last) = (from.size - 1, to.size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (first, first);
    for hash in path {
        if last == 0 {
            return Err(ProofError::WrongLength);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(&hash, &old);
            new = node_hash(&hash, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, &hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(ProofError::WrongLength);
    }
    if old == from.root && new == to.root { Ok(()) } else { Err(ProofError::WrongRoot) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Tree;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n as u32).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn mth(leaves: &[Hash]) -> Hash {
        let mut tree = Tree::new();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        tree.root()
    }

    fn split(n: usize) -> usize {
        n.next_power_of_two() / 2
    }

    // RFC 6962 §2.1.1 and §2.1.2, word for word.
    fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
        if d.len() == 1 {
            return vec![];
        }
        let k = split(d.len());
        let (mut out, other) =
            if m < k { (path(m, &d[..k]), mth(&d[k..])) } else { (path(m - k, &d[k..]), mth(&d[..k])) };
        out.push(other);
        out
    }

    fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
        if m == d.len() {
            return if whole { vec![] } else { vec![mth(d)] };
        }
        let k = split(d.len());
        let (mut out, other) = if m <= k {
            (subproof(m, &d[..k], whole), mth(&d[k..]))
        } else {
            (subproof(m - k, &d[k..], false), mth(&d[..k]))
        };
        out.push(other);
        out
    }

    #[test]
    fn inclusion_holds_for_every_leaf_and_for_nothing_else() {
        for n in 1..=40usize {
            let d = leaves(n);
            let root = mth(&d);
            for m in 0..n {
                let proof = path(m, &d);
                assert_eq!(inclusion_root(d[m], m as u64, n as u64, &proof), Ok(root), "{m} of {n}");
                let wrong = inclusion_root(leaf_hash(b"x"), m as u64, n as u64, &proof);
                assert_ne!(wrong, Ok(root));
                for other in (0..n).filter(|o| *o != m) {
                    assert_ne!(inclusion_root(d[m], other as u64, n as u64, &proof), Ok(root));
                }
            }
        }
    }

    #[test]
    fn consistency_holds_between_all_sizes_and_not_with_a_changed_hash() {
        let d = leaves(40);
        let at = |n: usize| Checkpoint { origin: "o".into(), size: n as u64, root: mth(&d[..n]) };
        for n in 1..=40usize {
            for m in 1..=n {
                let proof = subproof(m, &d[..n], true);
                assert_eq!(verify_consistency(&at(m), &at(n), &proof), Ok(()), "{m} to {n}");
                for i in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[i][0] ^= 1;
                    assert!(verify_consistency(&at(m), &at(n), &bad).is_err());
                }
                let mut long = proof.clone();
                long.push([0; 32]);
                assert!(verify_consistency(&at(m), &at(n), &long).is_err());
            }
        }
    }
}

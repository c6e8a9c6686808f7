//! The hashes of RFC 6962 §2.1.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

fn finish(digest: aws_lc_rs::digest::Digest) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// SHA-256 over 0x00 and the record's bytes.
pub(crate) fn leaf(record: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(record);
    finish(context.finish())
}

/// SHA-256 over 0x01 and both children.
pub(crate) fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(left);
    bytes[33..].copy_from_slice(right);
    finish(digest(&SHA256, &bytes))
}

/// The hash of a tree without leaves: that of the empty string.
pub(crate) fn empty() -> Hash {
    finish(digest(&SHA256, &[]))
}

/// The root over the roots of perfect subtrees of one height, of which there are 2^n.
pub(crate) fn perfect_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).map(|pair| node(&pair[0], &pair[1])).collect();
    }
    row.first().copied().unwrap_or_else(empty)
}

//! Identifiers as a dependency, so that a test run can be repeated exactly.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// Makes UUIDs of version 7 (RFC 9562): their order is the order of their making.
pub trait IdGen: Send + Sync + Debug {
    /// A new UUIDv7, greater than those this generator gave before.
    fn uuid(&self) -> Uuid;
}

/// Ids from the machine's clock and random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdGen for SystemIds {
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// The same sequence of ids for the same seed.
#[derive(Debug)]
pub struct SeededIds {
    seed: u64,
    next: AtomicU64,
}

impl SeededIds {
    /// Generators with different seeds give different ids.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }
}

impl IdGen for SeededIds {
    fn uuid(&self) -> Uuid {
        // 2026-01-01 plus one millisecond for each id keeps them in order.
        const START_MS: u64 = 1_767_225_600_000;
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        let a = mix(self.seed ^ mix(n)).to_be_bytes();
        let b = mix(mix(self.seed).wrapping_add(n)).to_be_bytes();
        let random = [a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], b[0], b[1]];
        uuid::Builder::from_unix_timestamp_millis(START_MS + n, &random).into_uuid()
    }
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_ids_repeat_and_ascend() {
        let (a, b, c) = (SeededIds::new(1), SeededIds::new(1), SeededIds::new(2));
        let first: Vec<Uuid> = (0..100).map(|_| a.uuid()).collect();
        let again: Vec<Uuid> = (0..100).map(|_| b.uuid()).collect();
        assert_eq!(first, again);
        assert!(first.windows(2).all(|w| w[0] < w[1]));
        assert_ne!(c.uuid(), first[0]);
        assert_eq!(first[0].get_version_num(), 7);
        assert_eq!(first[0].get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn system_ids_ascend() {
        let ids: Vec<Uuid> = (0..1000).map(|_| SystemIds.uuid()).collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
    }
}

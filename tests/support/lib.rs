//! pavior-tests: tests that no single crate can own. The library holds what they share.
//!
//! Owns whole-system tests; must never be a dependency of anything. Entry points: `e2e/`, `tidy/`.

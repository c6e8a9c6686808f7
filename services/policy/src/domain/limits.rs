//! Limits that several resources share.

use pavior_core::Fault;
use pavior_core::resource::Violations;

/// Longest description, in bytes.
pub(super) const MAX_DESCRIPTION: usize = 4_000;

/// Refuses a list of more than `max` elements.
pub(super) fn at_most<T>(violations: &mut Violations, path: &str, list: &[T], max: usize) {
    if list.len() > max {
        violations.add(path, Fault::TooMany, format!("must have at most {max} elements"));
    }
}

//! Whether somebody changes what they have seen (AIP-154).

use crate::Error;

/// Refuses an etag that is not the current one; an empty one means that the last write wins.
///
/// # Errors
/// ETAG_MISMATCH, with the current one.
pub fn check_etag(given: &str, current: String) -> Result<(), Error> {
    if given.is_empty() || given == current { Ok(()) } else { Err(Error::EtagMismatch { current }) }
}

//! Times as whole microseconds, for tables that need the same order and the same bytes on both databases.

use ::time::OffsetDateTime;

/// Microseconds since 1970-01-01T00:00:00Z.
pub fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000)).unwrap_or(i64::MAX)
}

/// The time of so many microseconds; none when it lies outside of the years ±9999.
pub fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()
}

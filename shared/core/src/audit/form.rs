//! How times and durations are written: always with six decimals, so that a reader needs to know no other form.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

/// `2026-01-31T12:00:00.000000Z`.
pub(super) mod time {
    use ::time::macros::format_description;
    use ::time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        time: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        let text = time.to_offset(UtcOffset::UTC).format(format).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        let format =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        let text = String::deserialize(deserializer)?;
        PrimitiveDateTime::parse(&text, format).map(PrimitiveDateTime::assume_utc).map_err(D::Error::custom)
    }
}

/// `0.001000s`.
pub(super) mod duration {
    use std::time::Duration;

    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.collect_str(&format_args!(
                "{}.{:06}s",
                duration.as_secs(),
                duration.subsec_micros()
            )),
            None => serializer.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = || {
            let (seconds, micros) = text.strip_suffix('s')?.split_once('.')?;
            let micros = (micros.len() == 6).then_some(micros)?;
            let micros = Duration::from_micros(micros.parse().ok()?);
            Duration::from_secs(seconds.parse().ok()?).checked_add(micros)
        };
        parsed().map(Some).ok_or_else(|| D::Error::custom(format!("`{text}` is no duration")))
    }
}

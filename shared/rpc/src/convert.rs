//! Between well-known types of protobuf and those of Rust.

use pavior_core::money::{Money, NotMoney};
use pavior_core::value::is_exact_double;
use pavior_proto::DESCRIPTORS;
use pavior_proto::google::r#type as pb;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as PbValue};
use serde_json::{Map, Number, Value};
use std::sync::LazyLock;
use time::OffsetDateTime;

/// The longest `google.protobuf.Duration`: 10,000 years.
const MAX_DURATION_SECONDS: u64 = 315_576_000_000;

/// Every message that the platform knows. Immutable, so two systems in one process can share it.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS).unwrap_or_else(|err| {
        // The bytes come from our own build script; without them nothing can be validated, so every check must fail
        // loudly rather than pass: an empty pool makes `descriptor` answer with an error for each message.
        tracing::error!(error = %err, "the embedded descriptor set does not decode");
        DescriptorPool::new()
    })
});

/// What cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Outside of 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z.
    #[error("timestamp is out of range")]
    Timestamp,
    /// Negative, or too long.
    #[error("duration is out of range")]
    Duration,
    /// Not a JSON object.
    #[error("value is not an object")]
    NotAnObject,
    /// The message is not part of the API.
    #[error("message `{0}` has no descriptor")]
    NoDescriptor(String),
    /// JSON that is not the message.
    #[error("{0}")]
    Json(String),
}

/// The descriptors of every message and service.
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

/// The descriptor of `M`.
pub fn descriptor<M: Name>() -> Result<MessageDescriptor, ConvertError> {
    let name = M::full_name();
    POOL.get_message_by_name(&name).ok_or(ConvertError::NoDescriptor(name))
}

/// An amount as [`Money`] writes it; absent where the text is empty.
pub fn to_money(text: &str) -> Option<pb::Money> {
    text.parse().ok().as_ref().map(money_to_wire)
}

/// An amount.
pub fn money_to_wire(money: &Money) -> pb::Money {
    let (currency_code, units, nanos) = (money.currency().to_owned(), money.units(), money.nanos());
    pb::Money { currency_code, units, nanos }
}

/// An amount.
pub fn from_money(money: &pb::Money) -> Result<Money, NotMoney> {
    Money::new(&money.currency_code, money.units, money.nanos)
}

/// Truncated to whole microseconds, which both databases keep.
pub fn to_timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.microsecond() * 1_000).unwrap_or_default();
    prost_types::Timestamp { seconds: time.unix_timestamp(), nanos }
}

/// Truncated to whole microseconds; out of range is an error.
pub fn from_timestamp(timestamp: &prost_types::Timestamp) -> Result<OffsetDateTime, ConvertError> {
    let time = OffsetDateTime::from_unix_timestamp(timestamp.seconds).map_err(|_| ConvertError::Timestamp)?;
    if !(1..=9999).contains(&time.year()) || !(0..1_000_000_000).contains(&timestamp.nanos) {
        return Err(ConvertError::Timestamp);
    }
    let micros = u32::try_from(timestamp.nanos / 1_000).map_err(|_| ConvertError::Timestamp)?;
    time.replace_microsecond(micros).map_err(|_| ConvertError::Timestamp)
}

/// As the wire has it; longer than the wire can say becomes the longest.
pub fn to_duration(duration: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 999_999_999 })
}

/// Negative durations are an error, and so is what `google.protobuf.Duration` does not allow.
pub fn from_duration(duration: &prost_types::Duration) -> Result<std::time::Duration, ConvertError> {
    // Checked here and not by prost's conversion, whose arithmetic overflows on the smallest values.
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (u64::try_from(duration.seconds), nanos) {
        (Ok(seconds @ 0..=MAX_DURATION_SECONDS), Some(nanos)) => Ok(std::time::Duration::new(seconds, nanos)),
        _ => Err(ConvertError::Duration),
    }
}

/// A JSON object as `google.protobuf.Struct`.
pub fn to_struct(value: &Value) -> Result<Struct, ConvertError> {
    match value {
        Value::Object(map) => Ok(map_to_struct(map)),
        _ => Err(ConvertError::NotAnObject),
    }
}

fn map_to_struct(map: &Map<String, Value>) -> Struct {
    Struct { fields: map.iter().map(|(key, value)| (key.clone(), to_value(value))).collect() }
}

/// `google.protobuf.Struct` as a JSON object.
pub fn from_struct(value: &Struct) -> Value {
    Value::Object(value.fields.iter().map(|(key, value)| (key.clone(), from_value(value))).collect())
}

/// `google.protobuf.ListValue` as a JSON array.
pub fn from_list(value: &ListValue) -> Value {
    Value::Array(value.values.iter().map(from_value).collect())
}

/// JSON as `google.protobuf.Value`.
pub fn to_value(value: &Value) -> PbValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(to_value).collect() }),
        Value::Object(map) => Kind::StructValue(map_to_struct(map)),
    };
    PbValue { kind: Some(kind) }
}

/// `google.protobuf.Value` as JSON. Whole numbers come out as integers; NaN and infinity, which JSON lacks, as null.
pub fn from_value(value: &PbValue) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::NumberValue(number)) => from_number(*number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => from_list(list),
        Some(Kind::StructValue(value)) => from_struct(value),
    }
}

fn from_number(number: f64) -> Value {
    if number.fract() == 0.0 && is_exact_double(number) {
        return Value::Number(Number::from(number as i64));
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// A message in the JSON form of protobuf (lowerCamelCase, RFC 3339 times, enums by name).
pub fn to_json<M: Message + Name>(message: &M) -> Result<Value, ConvertError> {
    let dynamic = to_dynamic(message)?;
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(|err| ConvertError::Json(err.to_string()))
}

/// A message from the JSON form of protobuf; unknown fields are refused.
pub fn from_json<M: Message + Name + Default>(json: Value) -> Result<M, ConvertError> {
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor::<M>()?, json, &options)
        .map_err(|err| ConvertError::Json(err.to_string()))?;
    dynamic.transcode_to().map_err(|err| ConvertError::Json(err.to_string()))
}

/// The message with its descriptor.
pub fn to_dynamic<M: Message + Name>(message: &M) -> Result<DynamicMessage, ConvertError> {
    let mut dynamic = DynamicMessage::new(descriptor::<M>()?);
    dynamic.transcode_from(message).map_err(|err| ConvertError::Json(err.to_string()))?;
    Ok(dynamic)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn json_survives_the_way_through_struct() {
        let value = json!({"a": 1, "b": [true, null, "x", 1.5], "c": {"d": -9007199254740991i64}});
        assert_eq!(from_struct(&to_struct(&value).unwrap()), value);
        assert_eq!(to_struct(&json!([])), Err(ConvertError::NotAnObject));
    }

    #[test]
    fn times_are_truncated_to_microseconds_and_ranges_are_checked() {
        let time = datetime!(2026-11-22 17:00:00.123456789 UTC);
        let wire = to_timestamp(time);
        assert_eq!(wire.nanos, 123_456_000);
        assert_eq!(from_timestamp(&wire).unwrap(), datetime!(2026-11-22 17:00:00.123456 UTC));
        for (seconds, nanos) in [(i64::MAX, 0), (0, -1), (0, 1_000_000_000), (253_402_300_800, 0)] {
            let wire = prost_types::Timestamp { seconds, nanos };
            assert_eq!(from_timestamp(&wire), Err(ConvertError::Timestamp));
        }
        let before_epoch = datetime!(1969-12-31 23:59:59.5 UTC);
        assert_eq!(from_timestamp(&to_timestamp(before_epoch)).unwrap(), before_epoch);
    }

    #[test]
    fn durations_outside_of_what_protobuf_allows_are_refused() {
        let from = |seconds, nanos| from_duration(&prost_types::Duration { seconds, nanos });
        assert_eq!(from(3, 5), Ok(std::time::Duration::new(3, 5)));
        assert!(from(315_576_000_000, 0).is_ok());
        let cases = [
            (-1, 0),
            (0, -1),
            (1, -1),
            (0, 1_000_000_000),
            (0, i32::MAX),
            (0, i32::MIN),
            (315_576_000_001, 0),
            (i64::MAX, i32::MAX),
            (i64::MIN, 0),
            (i64::MIN, i32::MIN),
        ];
        for (seconds, nanos) in cases {
            assert_eq!(from(seconds, nanos), Err(ConvertError::Duration), "{seconds} {nanos}");
        }
    }

    #[test]
    fn messages_go_to_json_and_back() {
        use pavior_proto::google::rpc::ErrorInfo;
        let info = ErrorInfo { reason: "X".into(), domain: "d".into(), ..Default::default() };
        let json = to_json(&info).unwrap();
        assert_eq!(json, json!({"reason": "X", "domain": "d"}));
        assert_eq!(from_json::<ErrorInfo>(json).unwrap(), info);
        assert!(from_json::<ErrorInfo>(json!({"nope": 1})).is_err());
    }
}

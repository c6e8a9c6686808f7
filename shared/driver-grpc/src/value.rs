//! JSON values on the wire: plain, secret, or not known yet.

use pavior_driver::{ExposeSecret, SecretString};
use pavior_proto::pavior::driver::v1 as pb;
use pb::value::Kind;
use serde_json::{Map, Number, Value};

use crate::WireError;

/// Protobuf implementations stop at 100 nested messages; one level of JSON takes three.
pub(crate) const MAX_DEPTH: usize = 30;

const UNKNOWN: &str = "$unknown";
const SECRET: &str = "$secret";

/// A value that holds no secret in the clear.
pub(crate) fn encode(value: &Value) -> Result<pb::Value, WireError> {
    Encoder { sensitive: &[] }.value(value, 0)
}

/// A value in which these secrets stand in the clear: every text that is or holds one goes as a secret.
pub(crate) fn encode_resolved(value: &Value, sensitive: &[SecretString]) -> Result<pb::Value, WireError> {
    Encoder { sensitive }.value(value, 0)
}

/// Absent is null. A secret in the clear is refused.
pub(crate) fn decode(value: Option<pb::Value>) -> Result<Value, WireError> {
    Decoder { resolved: false }.absent_or(value)
}

/// As [`decode`], with secrets in the clear.
pub(crate) fn decode_resolved(value: Option<pb::Value>) -> Result<Value, WireError> {
    Decoder { resolved: true }.absent_or(value)
}

pub(crate) fn secret(secret: &SecretString) -> pb::Secret {
    text_secret(secret.expose_secret().to_owned())
}

fn text_secret(text: String) -> pb::Secret {
    pb::Secret { value: Some(pb::secret::Value::Text(text)) }
}

/// What a secret is.
pub(crate) fn in_clear(secret: pb::Secret) -> Result<String, WireError> {
    let pb::secret::Value::Text(text) = secret.value.ok_or(WireError::Missing("secret.value"))?;
    Ok(text)
}

struct Encoder<'a> {
    sensitive: &'a [SecretString],
}

impl Encoder<'_> {
    fn is_sensitive(&self, text: &str) -> bool {
        self.sensitive.iter().map(ExposeSecret::expose_secret).any(|s| !s.is_empty() && text.contains(s))
    }

    fn value(&self, value: &Value, depth: usize) -> Result<pb::Value, WireError> {
        if depth > MAX_DEPTH {
            return Err(WireError::TooDeep(MAX_DEPTH));
        }
        let kind = match value {
            Value::Null => Kind::NullValue(0),
            Value::Bool(value) => Kind::BoolValue(*value),
            Value::Number(number) => encode_number(number)?,
            Value::String(text) if self.is_sensitive(text) => Kind::SecretValue(text_secret(text.clone())),
            Value::String(text) => Kind::StringValue(text.clone()),
            Value::Array(items) => Kind::ListValue(pb::ListValue {
                values: items.iter().map(|item| self.value(item, depth + 1)).collect::<Result<_, _>>()?,
            }),
            Value::Object(map) => match self.marker(map) {
                Some(marker) => marker,
                None => Kind::MapValue(self.map(map, depth)?),
            },
        };
        Ok(pb::Value { kind: Some(kind) })
    }

    fn map(&self, map: &Map<String, Value>, depth: usize) -> Result<pb::MapValue, WireError> {
        let member = |(key, value): (&String, &Value)| {
            Ok(pb::Member { key: key.clone(), value: Some(self.value(value, depth + 1)?) })
        };
        Ok(pb::MapValue { members: map.iter().map(member).collect::<Result<_, _>>()? })
    }

    fn marker(&self, map: &Map<String, Value>) -> Option<Kind> {
        let (key, text) = map.iter().next().filter(|_| map.len() == 1)?;
        let text = text.as_str().filter(|text| !self.is_sensitive(text))?;
        match key.as_str() {
            UNKNOWN => Some(Kind::UnknownValue(text.to_owned())),
            SECRET => Some(Kind::SecretReference(text.to_owned())),
            _ => None,
        }
    }
}

fn encode_number(number: &Number) -> Result<Kind, WireError> {
    if let Some(number) = number.as_i64() {
        Ok(Kind::IntValue(number))
    } else if let Some(number) = number.as_u64() {
        Ok(Kind::UintValue(number))
    } else {
        number.as_f64().map(Kind::DoubleValue).ok_or(WireError::NotFinite)
    }
}

struct Decoder {
    resolved: bool,
}

impl Decoder {
    fn absent_or(&self, value: Option<pb::Value>) -> Result<Value, WireError> {
        value.map_or(Ok(Value::Null), |value| self.value(value))
    }

    // The depth is bounded by the protobuf decoder.
    fn value(&self, value: pb::Value) -> Result<Value, WireError> {
        Ok(match value.kind.ok_or(WireError::Missing("kind"))? {
            Kind::NullValue(_) => Value::Null,
            Kind::BoolValue(value) => Value::Bool(value),
            Kind::IntValue(number) => Value::Number(number.into()),
            Kind::UintValue(number) => Value::Number(number.into()),
            Kind::DoubleValue(number) => Value::Number(Number::from_f64(number).ok_or(WireError::NotFinite)?),
            Kind::StringValue(text) => Value::String(text),
            Kind::ListValue(list) => {
                Value::Array(list.values.into_iter().map(|item| self.value(item)).collect::<Result<_, _>>()?)
            }
            Kind::MapValue(map) => self.map(map)?,
            Kind::SecretValue(secret) if self.resolved => Value::String(in_clear(secret)?),
            Kind::SecretValue(_) => return Err(WireError::Secret),
            Kind::SecretReference(name) => marker(SECRET, name),
            Kind::UnknownValue(expression) => marker(UNKNOWN, expression),
        })
    }

    fn map(&self, map: pb::MapValue) -> Result<Value, WireError> {
        let mut members = Map::with_capacity(map.members.len());
        for pb::Member { key, value } in map.members {
            let value = self.value(value.ok_or(WireError::Missing("member.value"))?)?;
            if members.insert(key, value).is_some() {
                return Err(WireError::DuplicateKey);
            }
        }
        Ok(Value::Object(members))
    }
}

fn marker(key: &str, text: String) -> Value {
    Value::Object(Map::from_iter([(key.to_owned(), Value::String(text))]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_survive_with_their_numbers_and_their_order() {
        let value = json!({
            "z": 1, "a": [null, true, -9_007_199_254_740_993_i64, 18_446_744_073_709_551_615_u64, 1.5, 2.0],
            "m": {"y": {}, "b": []}, "u": {"$unknown": "db.url"}, "s": {"$secret": "pw"}, "odd": {"$secret": 1},
        });
        let back = decode(Some(encode(&value).unwrap())).unwrap();
        assert_eq!(back, value);
        assert_eq!(back.to_string(), value.to_string(), "the order of members changed");
    }

    #[test]
    fn text_with_a_secret_travels_as_a_secret() {
        let sensitive = [SecretString::from("hunter22"), SecretString::from("")];
        let value = json!({"url": "db://u:hunter22@h", "user": "u", "m": {"$unknown": "hunter22"}});
        let wire = encode_resolved(&value, &sensitive).unwrap();
        let Some(Kind::MapValue(map)) = &wire.kind else { panic!("no map") };
        let kinds: Vec<_> = map.members.iter().map(|m| m.value.clone().unwrap().kind.unwrap()).collect();
        assert!(matches!(kinds[0], Kind::SecretValue(_)));
        assert!(matches!(kinds[1], Kind::StringValue(_)));
        assert!(matches!(kinds[2], Kind::MapValue(_)));
        assert_eq!(decode(Some(wire.clone())), Err(WireError::Secret));
        assert_eq!(decode_resolved(Some(wire)).unwrap(), value);
    }

    #[test]
    fn what_json_lacks_is_refused() {
        let double = |number| Some(pb::Value { kind: Some(Kind::DoubleValue(number)) });
        assert_eq!(decode(double(f64::NAN)), Err(WireError::NotFinite));
        assert_eq!(decode(Some(pb::Value { kind: None })), Err(WireError::Missing("kind")));
        let null = || Some(pb::Value { kind: Some(Kind::NullValue(0)) });
        let members = vec![
            pb::Member { key: "a".to_owned(), value: null() },
            pb::Member { key: "a".to_owned(), value: null() },
        ];
        let map = pb::Value { kind: Some(Kind::MapValue(pb::MapValue { members })) };
        assert_eq!(decode(Some(map)), Err(WireError::DuplicateKey));
        assert_eq!(decode(None), Ok(Value::Null));
    }

    #[test]
    fn too_deep_a_value_is_refused_before_it_is_sent() {
        let nest = |levels| (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }));
        assert!(encode(&nest(MAX_DEPTH)).is_ok());
        assert_eq!(encode(&nest(MAX_DEPTH + 1)), Err(WireError::TooDeep(MAX_DEPTH)));
    }
}

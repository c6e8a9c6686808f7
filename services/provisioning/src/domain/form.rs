//! The JSON form of types of the domain: what is stored of them, and what the digest of a plan is taken over.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// A stored value that cannot be read: the member that is not valid; empty for the value itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored value has no valid `{0}`")]
pub struct Unreadable(pub &'static str);

impl Unreadable {
    /// The value itself is not valid.
    pub const WHOLE: Self = Self("");
}

/// A type with a JSON form.
pub trait Form: Sized {
    /// Writes it.
    fn to_json(&self) -> Value;
    /// Reads [`Form::to_json`] back.
    fn from_json(json: &Value) -> Result<Self, Unreadable>;
}

/// The form of a struct: an object with a member for each field, whose name is the field's or stands behind it. Those
/// after `omit` are left out where they have nothing to say.
macro_rules! form {
    ($name:ident {
        $($field:ident $(= $key:literal)?),+ $(,)? $(; omit $($optional:ident),+)?
    }) => {
        impl $crate::domain::form::Form for $name {
            fn to_json(&self) -> ::serde_json::Value {
                let mut map = ::serde_json::Map::new();
                $(map.insert(form!(@key $field $($key)?).to_owned(), self.$field.to_json());)+
                $($(
                    if $crate::domain::form::says(&self.$optional) {
                        map.insert(stringify!($optional).to_owned(), self.$optional.to_json());
                    }
                )+)?
                map.into()
            }

            fn from_json(json: &::serde_json::Value) -> Result<Self, $crate::domain::form::Unreadable> {
                Ok(Self {
                    $($field: $crate::domain::form::member(json, form!(@key $field $($key)?))?,)+
                    $($($optional: $crate::domain::form::optional(json, stringify!($optional))?,)+)?
                })
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

pub(crate) use form;

/// A member of an object.
pub(crate) fn member<T: Form>(json: &Value, key: &'static str) -> Result<T, Unreadable> {
    let named = |error: Unreadable| if error == Unreadable::WHOLE { Unreadable(key) } else { error };
    T::from_json(json.get(key).unwrap_or(&Value::Null)).map_err(named)
}

/// A member of an object that may be left out.
pub(crate) fn optional<T: Form + Default>(json: &Value, key: &'static str) -> Result<T, Unreadable> {
    if json.get(key).is_none() { Ok(T::default()) } else { member(json, key) }
}

/// Whether a member that may be left out has something to say.
pub(crate) fn says<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

macro_rules! plain {
    ($($type:ty: $value:ident => $write:expr, $json:ident => $read:expr;)+) => {
        $(
            impl Form for $type {
                fn to_json(&self) -> Value {
                    let $value = self;
                    $write
                }

                fn from_json($json: &Value) -> Result<Self, Unreadable> {
                    $read.ok_or(Unreadable::WHOLE)
                }
            }
        )+
    };
}

plain! {
    bool: flag => (*flag).into(), json => json.as_bool();
    i32: number => (*number).into(), json => json.as_i64().and_then(|number| number.try_into().ok());
    i64: number => (*number).into(), json => json.as_i64();
    usize: number => (*number).into(), json => json.as_u64().and_then(|number| number.try_into().ok());
    String: text => text.as_str().into(), json => json.as_str().map(str::to_owned);
    Uuid: id => id.to_string().into(), json => json.as_str().and_then(|text| Uuid::parse_str(text).ok());
    // Any form of its own: what is not there is null.
    Value: value => value.clone(), json => Some(json.clone());
    OffsetDateTime: time => time.format(&Rfc3339).map(Value::String).unwrap_or_default(),
        json => json.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
}

impl<T: Form> Form for Option<T> {
    fn to_json(&self) -> Value {
        self.as_ref().map(T::to_json).unwrap_or_default()
    }

    fn from_json(json: &Value) -> Result<Self, Unreadable> {
        match T::from_json(json) {
            Err(_) if json.is_null() => Ok(None),
            read => read.map(Some),
        }
    }
}

impl<T: Form> Form for Vec<T> {
    fn to_json(&self) -> Value {
        self.iter().map(T::to_json).collect()
    }

    fn from_json(json: &Value) -> Result<Self, Unreadable> {
        json.as_array().ok_or(Unreadable::WHOLE)?.iter().map(T::from_json).collect()
    }
}

impl<T: Form + Clone, const N: usize> Form for [T; N] {
    fn to_json(&self) -> Value {
        self.to_vec().to_json()
    }

    fn from_json(json: &Value) -> Result<Self, Unreadable> {
        Vec::from_json(json)?.try_into().map_err(|_| Unreadable::WHOLE)
    }
}

impl Form for BTreeMap<String, String> {
    fn to_json(&self) -> Value {
        self.iter().map(|(key, value)| (key.clone(), value.to_json())).collect::<Map<_, _>>().into()
    }

    fn from_json(json: &Value) -> Result<Self, Unreadable> {
        let map = json.as_object().ok_or(Unreadable::WHOLE)?;
        map.iter().map(|(key, value)| Ok((key.clone(), String::from_json(value)?))).collect()
    }
}

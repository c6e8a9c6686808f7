//! Types of the domain as columns: closed sets of words as text, structured values as JSON. What does not decode is an
//! error of the database.

use std::collections::BTreeMap;

use sea_orm::sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr};
use sea_orm::{ColIdx, DbErr, QueryResult, TryGetError, TryGetable, TryGetableFromJson, Value};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use time::OffsetDateTime;

use crate::domain::deployment::DeploymentState;
use crate::domain::environment::{Endpoint, EnvironmentState};
use crate::domain::failure::{Failure, FailureCode, FailureReason, StepFailure};
use crate::domain::operation::{OperationState, Prior, StepProgress, StepState};
use crate::domain::plan::{Action, Kind, Plan, Spec};
use crate::domain::project::ProjectState;
use crate::domain::resource::ResourceState;
use crate::domain::run::{RunCause, RunState};
use crate::domain::timer::TimerKind;

macro_rules! text {
    ($($name:ident),+ $(,)?) => {
        $(
            impl From<$name> for Value {
                fn from(value: $name) -> Self {
                    value.as_str().into()
                }
            }

            impl TryGetable for $name {
                fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
                    let text = String::try_get_by(row, index)?;
                    Self::parse(&text).ok_or_else(|| {
                        TryGetError::DbErr(DbErr::Type(format!("`{text}` is no {}", stringify!($name))))
                    })
                }
            }

            impl ValueType for $name {
                fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
                    Self::parse(&<String as ValueType>::try_from(value)?).ok_or(ValueTypeErr)
                }

                fn type_name() -> String {
                    stringify!($name).to_owned()
                }

                fn array_type() -> ArrayType {
                    ArrayType::String
                }

                fn column_type() -> ColumnType {
                    ColumnType::Text
                }
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.serialize_str(self.as_str())
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    let text = String::deserialize(from)?;
                    Self::parse(&text).ok_or_else(|| {
                        D::Error::custom(format!("`{text}` is no {}", stringify!($name)))
                    })
                }
            }
        )+
    };
}

text!(
    Action,
    DeploymentState,
    EnvironmentState,
    FailureCode,
    FailureReason,
    Kind,
    OperationState,
    ProjectState,
    ResourceState,
    RunCause,
    RunState,
    StepState,
    TimerKind,
);

/// Serde of domain types that have a JSON form of their own.
macro_rules! own_json {
    ($($name:ident),+) => {
        $(
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    self.to_json().serialize(to)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    Self::from_json(&serde_json::Value::deserialize(from)?).map_err(D::Error::custom)
                }
            }
        )+
    };
}

own_json!(Plan, Spec);

/// Serde of domain types whose JSON has a member for each field.
macro_rules! fields_json {
    ($($name:ident as $text:literal, $form:ident { $($(#[$meta:meta])* $field:ident: $type:ty),+ $(,)? })+) => {
        $(
            #[derive(Serialize, Deserialize)]
            #[serde(remote = $text)]
            struct $form { $($(#[$meta])* $field: $type),+ }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    $form::serialize(self, to)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    $form::deserialize(from)
                }
            }
        )+
    };
}

fields_json! {
    Endpoint as "Endpoint", EndpointJson { resource: String, url: String }
    StepFailure as "StepFailure", StepFailureJson { code: FailureCode, message: String }
    StepProgress as "StepProgress", StepProgressJson {
        name: String,
        action: Action,
        resource: String,
        driver: String,
        state: StepState,
        attempt: i32,
        error: Option<StepFailure>,
        #[serde(with = "optional_micros")]
        start_time: Option<OffsetDateTime>,
        #[serde(with = "optional_micros")]
        end_time: Option<OffsetDateTime>,
    }
    Failure as "Failure", FailureJson {
        reason: FailureReason,
        step: String,
        code: FailureCode,
        message: String,
        #[serde(default)]
        details: BTreeMap<String, String>,
    }
    Prior as "Prior", PriorJson {
        identity: String,
        inputs: serde_json::Value,
        outputs: serde_json::Value,
        state: serde_json::Value,
        spec: Spec,
        sealed_inputs: String,
        generation: i64,
    }
}

/// Times as microseconds since the epoch.
mod optional_micros {
    use pavior_store::{from_micros, micros};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use time::OffsetDateTime;

    pub(super) fn serialize<S: Serializer>(time: &Option<OffsetDateTime>, to: S) -> Result<S::Ok, S::Error> {
        time.map(micros).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        let micros = Option::<i64>::deserialize(from)?;
        let time = |micros| from_micros(micros).ok_or_else(|| D::Error::custom("no time"));
        micros.map(time).transpose()
    }
}

/// A JSON column of a type.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Typed<T>(pub T);

impl<T: Serialize + DeserializeOwned> TryGetableFromJson for Typed<T> {}

impl<T: Serialize> From<Typed<T>> for Value {
    fn from(typed: Typed<T>) -> Self {
        // What is written has text for keys and no floats that JSON does not have: it cannot fail.
        serde_json::to_value(&typed.0).unwrap_or_default().into()
    }
}

impl<T: Serialize + DeserializeOwned> ValueType for Typed<T> {
    fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
        let json = <serde_json::Value as ValueType>::try_from(value)?;
        serde_json::from_value(json).map_err(|_| ValueTypeErr)
    }

    fn type_name() -> String {
        "Typed".to_owned()
    }

    fn array_type() -> ArrayType {
        ArrayType::Json
    }

    fn column_type() -> ColumnType {
        ColumnType::JsonBinary
    }
}

impl<T> Nullable for Typed<T> {
    fn null() -> Value {
        Value::Json(None)
    }
}

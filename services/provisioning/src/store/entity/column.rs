//! Types of the domain as columns: closed sets of words as text, structured values as JSON. What does not decode is an
//! error of the database.

use pavior_store::{from_micros, micros};
use sea_orm::sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr};
use sea_orm::{ColIdx, DbErr, QueryResult, TryGetError, TryGetable, TryGetableFromJson, Value};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use crate::domain::deployment::DeploymentState;
use crate::domain::environment::{Endpoint, EnvironmentState};
use crate::domain::failure::{Failure, FailureCode, FailureReason, StepFailure};
use crate::domain::form::{Form, Unreadable, member};
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

/// Serde of the domain's JSON form.
macro_rules! form {
    ($($name:ident),+ $(,)?) => {
        $(
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    self.to_json().serialize(to)
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    Self::from_json(&Json::deserialize(from)?).map_err(D::Error::custom)
                }
            }
        )+
    };
}

form!(Endpoint, EnvironmentState, Failure, Plan, Prior, ProjectState, Spec, StepFailure, StepProgress);

/// Times as microseconds since the epoch.
impl Form for StepProgress {
    fn to_json(&self) -> Json {
        let Self { name, action, resource, driver, state, attempt, error, start_time, end_time } = self;
        let at = |time: &Option<OffsetDateTime>| time.map(micros);
        json!({
            "name": name, "action": action.to_json(), "resource": resource, "driver": driver,
            "state": state.to_json(), "attempt": attempt, "error": error.to_json(),
            "start_time": at(start_time), "end_time": at(end_time),
        })
    }

    fn from_json(json: &Json) -> Result<Self, Unreadable> {
        let time = |key| -> Result<Option<OffsetDateTime>, Unreadable> {
            let time = member::<Option<i64>>(json, key)?.map(|at| from_micros(at).ok_or(Unreadable(key)));
            time.transpose()
        };
        Ok(Self {
            name: member(json, "name")?,
            action: member(json, "action")?,
            resource: member(json, "resource")?,
            driver: member(json, "driver")?,
            state: member(json, "state")?,
            attempt: member(json, "attempt")?,
            error: member(json, "error")?,
            start_time: time("start_time")?,
            end_time: time("end_time")?,
        })
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
        let json = <Json as ValueType>::try_from(value)?;
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

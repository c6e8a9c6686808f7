use minijinja::value::ValueKind;
use serde_json::{Map, Number, Value};

use crate::ExprError;
use crate::limits::MAX_VALUE_DEPTH;

/// The engine's value as JSON; what has no JSON form is an error rather than null.
pub(crate) fn to_json(value: &minijinja::Value, depth: usize) -> Result<Value, ExprError> {
    if depth > MAX_VALUE_DEPTH {
        return Err(ExprError::new("the result is nested too deep"));
    }
    match value.kind() {
        ValueKind::Undefined => Err(ExprError::new("uses a name that is not defined")),
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => number(value),
        ValueKind::String => Ok(Value::String(value.as_str().unwrap_or_default().to_owned())),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|_| ExprError::new("the result is not a list"))?;
            items.map(|item| to_json(&item, depth + 1)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        ValueKind::Map => {
            let keys = value.try_iter().map_err(|_| ExprError::new("the result is not a map"))?;
            let mut map = Map::new();
            for key in keys {
                let item = value.get_item(&key).map_err(|_| ExprError::new("the result is not a map"))?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                map.insert(name, to_json(&item, depth + 1)?);
            }
            Ok(Value::Object(map))
        }
        kind => Err(ExprError::new(format!("a value of kind {kind} cannot be used here"))),
    }
}

fn number(value: &minijinja::Value) -> Result<Value, ExprError> {
    if value.is_integer() {
        if let Ok(number) = i64::try_from(value.clone()) {
            return Ok(Value::Number(number.into()));
        }
        if let Ok(number) = u64::try_from(value.clone()) {
            return Ok(Value::Number(number.into()));
        }
    }
    let float = f64::try_from(value.clone()).ok().and_then(Number::from_f64);
    float.map(Value::Number).ok_or_else(|| ExprError::new("the result is a number that JSON cannot hold"))
}

/// JSON as the engine's value.
pub(crate) fn from_json(value: &Value) -> minijinja::Value {
    match value {
        Value::Null => minijinja::Value::from(()),
        Value::Bool(flag) => minijinja::Value::from(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => minijinja::Value::from(number),
            (None, Some(number)) => minijinja::Value::from(number),
            (None, None) => minijinja::Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => minijinja::Value::from(text.as_str()),
        Value::Array(items) => minijinja::Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Value::Object(map) => {
            minijinja::Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), from_json(item))))
        }
    }
}

//! Values with secrets in them, or with what is not known yet, as callers see them: what is told of their parts stands
//! beside the value, so that nothing in it has to be told apart from what a caller wrote.

use std::collections::HashMap;

use pavior_core::pointer;
use pavior_proto::pavior::provisioning::v1 as pb;
use serde_json::Value;

/// A value as it is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Apart {
    /// With null where secrets belong. What is not known yet stands as its expression.
    pub(super) value: Value,
    /// The secrets, by where they belong: JSON Pointers.
    pub(super) secrets: HashMap<String, pb::SecretReference>,
    /// Where what is not known yet stands, likewise, in order.
    pub(super) unknown: Vec<String>,
}

/// A recorded or planned value as it is shown.
pub(super) fn apart(value: &Value) -> Apart {
    let mut apart = Apart::default();
    apart.value = walk(value, "", &mut apart);
    apart.unknown.sort();
    apart
}

// The depth of recorded values is bounded where they are made.
fn walk(value: &Value, at: &str, apart: &mut Apart) -> Value {
    if let Some(reference) = pavior_expr::secret_reference(value) {
        apart.secrets.insert(at.to_owned(), pb::SecretReference { reference: reference.to_owned() });
        return Value::Null;
    }
    if pavior_expr::is_unknown(value) {
        apart.unknown.push(at.to_owned());
        return value.get("$unknown").cloned().unwrap_or_default();
    }
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, item)| walk(item, &pointer::child(at, &index.to_string()), apart)).collect()
        }
        Value::Object(map) => {
            let members = map.iter();
            let member =
                |(key, item): (&String, &Value)| (key.clone(), walk(item, &pointer::child(at, key), apart));
            Value::Object(members.map(member).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_and_what_is_not_known_stand_beside_the_value_by_where_they_belong() {
        let value = json!({
            "url": { "$secret": "a/1/url" },
            "list": [1, { "to/ken": { "$secret": "a/1/token" } }, { "$unknown": "artifact.path" }],
            "later": { "$unknown": "resources.db.url" },
            "text": "$secret",
        });
        let Apart { value, secrets, unknown } = apart(&value);
        let wanted = json!({
            "url": null, "list": [1, { "to/ken": null }, "artifact.path"], "later": "resources.db.url",
            "text": "$secret",
        });
        assert_eq!(value, wanted);
        let mut found: Vec<_> = secrets.into_iter().map(|(at, secret)| (at, secret.reference)).collect();
        found.sort();
        let wanted = [("/list/1/to~1ken", "a/1/token"), ("/url", "a/1/url")];
        assert_eq!(found, wanted.map(|(at, reference)| (at.to_owned(), reference.to_owned())));
        assert_eq!(unknown, ["/later", "/list/2"]);
        let whole = apart(&json!({ "$secret": "b" }));
        assert_eq!((whole.value, whole.secrets[""].reference.as_str()), (Value::Null, "b"));
        let whole = apart(&json!({ "$unknown": "artifact.path" }));
        assert_eq!((whole.value, whole.unknown), (json!("artifact.path"), vec![String::new()]));
    }
}

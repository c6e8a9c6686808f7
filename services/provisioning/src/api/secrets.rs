//! Values with secrets in them, as callers see them: the secrets stand beside the value, so that nothing in it has to be
//! told apart from what a caller wrote.

use std::collections::HashMap;

use pavior_core::pointer;
use pavior_proto::pavior::provisioning::v1 as pb;
use serde_json::Value;

/// A value with null where secrets belong, and the secrets by where that is. What is not known yet stands as its
/// expression.
pub(super) fn apart(value: &Value) -> (Value, HashMap<String, pb::SecretReference>) {
    let mut secrets = HashMap::new();
    let value = walk(value, "", &mut secrets);
    (value, secrets)
}

// The depth of recorded values is bounded where they are made.
fn walk(value: &Value, at: &str, secrets: &mut HashMap<String, pb::SecretReference>) -> Value {
    if let Some(reference) = pavior_expr::secret_reference(value) {
        secrets.insert(at.to_owned(), pb::SecretReference { reference: reference.to_owned() });
        return Value::Null;
    }
    if pavior_expr::is_unknown(value) {
        return value.get("$unknown").cloned().unwrap_or_default();
    }
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, item)| walk(item, &pointer::child(at, &index.to_string()), secrets)).collect()
        }
        Value::Object(map) => {
            let members = map.iter();
            let member =
                |(key, item): (&String, &Value)| (key.clone(), walk(item, &pointer::child(at, key), secrets));
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
    fn secrets_stand_beside_the_value_by_where_they_belong() {
        let value = json!({
            "url": { "$secret": "a/1/url" },
            "list": [1, { "to/ken": { "$secret": "a/1/token" } }],
            "later": { "$unknown": "resources.db.url" },
            "text": "$secret",
        });
        let (shown, secrets) = apart(&value);
        let wanted = json!({
            "url": null, "list": [1, { "to/ken": null }], "later": "resources.db.url", "text": "$secret",
        });
        assert_eq!(shown, wanted);
        let mut found: Vec<_> = secrets.into_iter().map(|(at, secret)| (at, secret.reference)).collect();
        found.sort();
        let wanted = [("/list/1/to~1ken", "a/1/token"), ("/url", "a/1/url")];
        assert_eq!(found, wanted.map(|(at, reference)| (at.to_owned(), reference.to_owned())));
        let (shown, secrets) = apart(&json!({ "$secret": "b" }));
        assert_eq!((shown, secrets[""].reference.as_str()), (Value::Null, "b"));
    }
}

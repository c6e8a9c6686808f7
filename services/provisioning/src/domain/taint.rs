//! Where secrets go: which inputs an expression would give a secret output to. A driver says which of its inputs may hold
//! one; a plan that gives a secret to any other is not made.

use pavior_core::pointer;
use pavior_expr::Reference;
use serde_json::Value;
use uuid::Uuid;

/// An input that a secret would reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The input: names and positions from the outside in.
    pub path: Vec<String>,
    /// The secret, for people: the reference that reads it.
    pub secret: String,
}

impl Flow {
    /// Whether a driver takes secrets there: `allowed` are JSON Pointers, `*` for any name, and all below them.
    pub fn allowed(&self, allowed: &[String]) -> bool {
        let path = self.path.iter().fold(String::new(), |path, name| pointer::child(&path, name));
        allowed.iter().any(|pattern| pointer::covers(pattern, &path))
    }
}

/// Every input of a resource that a secret would reach, through the inputs that the template asks for or through those
/// that the definition adds. `is_secret` tells whether a reference of the template reads a secret.
pub fn flows(inputs: &Value, driver_inputs: &Value, is_secret: &dyn Fn(&Reference) -> bool) -> Vec<Flow> {
    let mut found = Vec::new();
    walk(inputs, &mut Vec::new(), is_secret, &mut found);
    let asked = found.clone();
    let from_asked = |reference: &Reference| {
        let below = reference.segments().get(1..).unwrap_or_default();
        let meets = |flow: &Flow| flow.path.iter().zip(below).all(|(name, part)| name == part);
        reference.root() == "inputs" && asked.iter().any(meets)
    };
    walk(driver_inputs, &mut Vec::new(), &from_asked, &mut found);
    found
}

fn walk(
    value: &Value,
    path: &mut Vec<String>,
    is_secret: &dyn Fn(&Reference) -> bool,
    found: &mut Vec<Flow>,
) {
    match value {
        Value::String(text) if text.contains("${{") => {
            let references = pavior_expr::references(value).unwrap_or_default();
            if let Some(secret) = references.iter().find(|reference| is_secret(reference)) {
                found.push(Flow { path: path.clone(), secret: secret.to_string() });
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                path.push(at.to_string());
                walk(item, path, is_secret, found);
                path.pop();
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                path.push(key.clone());
                walk(item, path, is_secret, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// The places of inputs, rendered with references in the place of secrets, whose values hold or are made of a secret.
pub fn hidden(inputs: &Value) -> Vec<Flow> {
    let mut found = Vec::new();
    hidden_below(inputs, &mut Vec::new(), &mut found);
    found
}

fn hidden_below(value: &Value, path: &mut Vec<String>, found: &mut Vec<Flow>) {
    if pavior_expr::is_marker(value) {
        let secret = pavior_expr::secret_reference(value).unwrap_or_default().to_owned();
        found.push(Flow { path: path.clone(), secret });
        return;
    }
    let parts: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), item)).collect(),
        _ => return,
    };
    for (part, item) in parts {
        path.push(part);
        hidden_below(item, path, found);
        path.pop();
    }
}

/// The secrets among the recorded outputs of a resource: name and reference. Only the engine records them, under the
/// resource's own id; what merely looks like one is not one.
pub fn sealed_outputs<'a>(resource: &Uuid, outputs: &'a Value) -> Vec<(&'a str, &'a str)> {
    let own = format!("{resource}/");
    let all = outputs.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.as_str(), pavior_expr::secret_reference(value)?)))
        .filter(|(_, reference)| reference.starts_with(&own))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(inputs: Value, driver_inputs: Value) -> Vec<String> {
        let secret = |reference: &Reference| reference.to_string().ends_with(".password");
        let flows = flows(&inputs, &driver_inputs, &secret);
        flows.iter().map(|flow| format!("{} <- {}", flow.path.join("."), flow.secret)).collect()
    }

    #[test]
    fn secrets_are_followed_through_texts_lists_and_definitions() {
        let inputs = json!({
            "url": "postgres://u:${{ resources.db.password }}@h",
            "plain": "${{ resources.db.host }}",
            "list": [1, { "deep": "${{ resources.db.password | upper }}" }],
        });
        let definition = json!({
            "copy": "${{ inputs.url }}",
            "all": "${{ inputs }}",
            "host": "${{ inputs.plain }}",
            "part": "${{ inputs.list }}",
        });
        let wanted = [
            "list.1.deep <- resources.db.password",
            "url <- resources.db.password",
            "all <- inputs",
            "copy <- inputs.url",
            "part <- inputs.list",
        ];
        let mut found = of(inputs, definition);
        found.sort();
        let mut wanted = wanted.map(str::to_owned);
        wanted.sort();
        assert_eq!(found, wanted);
    }

    #[test]
    fn rendered_inputs_say_where_secrets_are() {
        let scope = json!({ "resources": { "db": {
            "host": "h", "password": { "$secret": "a/1/password" },
        } } });
        let inputs = json!({
            "url": "u:${{ resources.db.password }}@${{ resources.db.host }}",
            "list": [{ "deep": "${{ resources.db.password }}" }, "${{ resources.db.host }}"],
        });
        let rendered = pavior_expr::evaluate_known(&inputs, &scope, &|_| false).unwrap();
        let mut found: Vec<String> = hidden(&rendered).iter().map(|flow| flow.path.join(".")).collect();
        found.sort();
        assert_eq!(found, ["list.0.deep", "url"]);
    }

    #[test]
    fn a_driver_takes_secrets_where_it_says_so_and_below() {
        let flow = |path: &[&str]| Flow {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            secret: String::new(),
        };
        let allowed = ["/variables".to_owned(), "/steps/*/environment".to_owned()];
        assert!(flow(&["variables", "URL"]).allowed(&allowed));
        assert!(flow(&["steps", "0", "environment", "TOKEN"]).allowed(&allowed));
        for other in [&["command", "0"][..], &["variables.URL"], &["steps", "0", "run"], &["steps"]] {
            assert!(!flow(other).allowed(&allowed), "{other:?}");
        }
        assert!(flow(&["anything"]).allowed(&["/*".to_owned()]));
        assert!(!flow(&["anything"]).allowed(&[]));
    }

    #[test]
    fn only_what_the_engine_sealed_for_this_resource_is_a_secret() {
        let own = Uuid::from_u128(1);
        let outputs = json!({
            "password": { "$secret": format!("{own}/1/password") },
            "stolen": { "$secret": format!("{}/1/password", Uuid::from_u128(2)) },
            "nested": { "deep": { "$secret": format!("{own}/1/password") } },
        });
        assert_eq!(sealed_outputs(&own, &outputs), [("password", format!("{own}/1/password").as_str())]);
    }
}

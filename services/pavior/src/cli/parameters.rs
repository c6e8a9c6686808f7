//! `KEY=VALUE` parameters from the command line.

use anyhow::Context as _;
use pavior_rpc::convert;
use serde_json::{Map, Value};

use super::failure::{OrUsage as _, wrong_usage};

/// Reads parameters; values are YAML, so that `3` is a number and `"3"` a text. `a.b=c` nests.
pub(crate) fn parse(parameters: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut root = Map::new();
    for parameter in parameters {
        let (key, text) = parameter
            .split_once('=')
            .with_context(|| format!("`{parameter}` is not of the form KEY=VALUE"))?;
        let value = pavior_expr::yaml::parse(text).with_context(|| format!("the value of `{key}`"))?;
        insert(&mut root, key, value).with_context(|| format!("the parameter `{key}`"))?;
    }
    Ok(root)
}

fn insert(root: &mut Map<String, Value>, key: &str, value: Value) -> anyhow::Result<()> {
    let mut path: Vec<&str> = key.split('.').collect();
    anyhow::ensure!(path.iter().all(|part| !part.is_empty()), "a part of its name is empty");
    let last = path.pop().context("it has no name")?;
    let mut map = root;
    for part in path {
        let next = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
        map = next.as_object_mut().context("it is given both as a value and as a group")?;
    }
    anyhow::ensure!(map.insert(last.to_owned(), value).is_none(), "it is given twice");
    Ok(())
}

/// The parameters as the API takes them; absent when there are none.
pub(crate) fn to_struct(parameters: &[String]) -> anyhow::Result<Option<prost_types::Struct>> {
    if parameters.is_empty() {
        return Ok(None);
    }
    Ok(Some(convert::to_struct(&Value::Object(parse(parameters).or_usage()?))?))
}

/// The parameters that there are, with some of them set and others taken away.
pub(crate) fn changed(
    current: Option<&prost_types::Struct>,
    set: &[String],
    unset: &[String],
) -> anyhow::Result<prost_types::Struct> {
    let mut root = match current.map(convert::from_struct) {
        Some(Value::Object(root)) => root,
        _ => Map::new(),
    };
    for key in unset {
        remove(&mut root, key).ok_or_else(|| wrong_usage(format!("--unset {key}: it is not set here")))?;
    }
    merge(&mut root, parse(set).or_usage()?);
    Ok(convert::to_struct(&Value::Object(root))?)
}

fn remove(root: &mut Map<String, Value>, key: &str) -> Option<Value> {
    match key.split_once('.') {
        Some((group, rest)) => remove(root.get_mut(group)?.as_object_mut()?, rest),
        None => root.shift_remove(key),
    }
}

/// Groups are merged, values replaced.
fn merge(root: &mut Map<String, Value>, set: Map<String, Value>) {
    for (key, value) in set {
        match (root.get_mut(&key), value) {
            (Some(Value::Object(group)), Value::Object(set)) => merge(group, set),
            (_, value) => drop(root.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(parameters: &[&str]) -> anyhow::Result<Value> {
        parse(&parameters.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).map(Value::Object)
    }

    #[test]
    fn values_are_yaml_and_dots_nest() {
        let value = parsed(&["language=rust", "db.size=3", "flag=true", "text='3'"]).unwrap();
        assert_eq!(value, json!({"language": "rust", "db": {"size": 3}, "flag": true, "text": "3"}));
    }

    #[test]
    fn a_wrong_form_is_refused() {
        for wrong in [vec!["language"], vec!["a=1", "a=2"], vec!["a=1", "a.b=2"], vec![".=1"]] {
            assert!(parsed(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn single_parameters_are_changed_and_the_others_stay() {
        let current =
            convert::to_struct(&json!({"a": 1, "db": {"size": 1, "kind": "x"}, "b": true})).unwrap();
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let change = |set: &[&str], unset: &[&str]| changed(Some(&current), &texts(set), &texts(unset));
        let after = convert::from_struct(&change(&["db.size=3", "c=new"], &["b", "db.kind"]).unwrap());
        assert_eq!(after, json!({"a": 1, "db": {"size": 3}, "c": "new"}));
        let refused = change(&[], &["db.colour"]).unwrap_err().to_string();
        assert_eq!(refused, "--unset db.colour: it is not set here");
    }
}

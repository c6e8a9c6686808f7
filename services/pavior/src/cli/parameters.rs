//! `KEY=VALUE` parameters from the command line.

use anyhow::Context as _;
use pavior_rpc::convert;
use serde_json::{Map, Value};

use super::failure::OrUsage as _;

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
}

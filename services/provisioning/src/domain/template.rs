//! The parts of a golden path that planning reads, taken from the template version's resolved content.

use std::time::Duration;

use serde_json::{Map, Value};

use super::names;

/// A resource that a section asks for. Inputs still hold their expressions.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its id in the section.
    pub id: String,
    /// The id of its type.
    pub type_id: String,
    /// What is asked.
    pub inputs: Value,
    /// For a workload: the artifact's name in the pipeline, the first when empty.
    pub artifact: Option<String>,
}

impl Wanted {
    /// Whether an artifact is put into it, as [`super::plan::Spec::takes_artifact`] says of what is made of it.
    pub fn takes_artifact(&self) -> bool {
        let references = pavior_expr::references(&self.inputs).unwrap_or_default();
        references.iter().any(|reference| reference.root() == "artifact")
    }

    /// Whether it runs an environment's code, likewise.
    pub fn is_workload(&self) -> bool {
        self.takes_artifact() || self.id == names::WORKLOAD
    }
}

/// One class of environments.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentClass {
    /// Its name.
    pub class: String,
    /// Made together with the project.
    pub with_project: bool,
    /// How long one lives; for ever when absent.
    pub ttl: Option<Duration>,
    /// Its resources, the workload last.
    pub resources: Vec<Wanted>,
}

/// What planning reads of a template.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Template {
    /// Made once with the project.
    pub project: Vec<Wanted>,
    /// Its environment classes, in the template's order.
    pub environments: Vec<EnvironmentClass>,
}

/// A document that catalog should not have published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the template's `{path}` {problem}")]
pub struct TemplateError {
    /// Where.
    pub path: String,
    /// What.
    pub problem: &'static str,
}

impl Template {
    /// Reads the content of a template version.
    pub fn parse(content: &Value) -> Result<Self, TemplateError> {
        let project = resources(content.get("project"), "project")?;
        let mut environments = Vec::new();
        for (class, section) in object(content.get("environments"), "environments")? {
            environments.push(environment(&class, &section)?);
        }
        Ok(Self { project, environments })
    }

    /// One class.
    pub fn environment(&self, class: &str) -> Option<&EnvironmentClass> {
        self.environments.iter().find(|environment| environment.class == class)
    }
}

fn wrong(path: impl Into<String>, problem: &'static str) -> TemplateError {
    TemplateError { path: path.into(), problem }
}

fn object(value: Option<&Value>, path: &str) -> Result<Map<String, Value>, TemplateError> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => Err(wrong(path, "is not a map")),
    }
}

fn text<'a>(value: &'a Value, key: &str, path: &str) -> Result<Option<&'a str>, TemplateError> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(format!("{path}.{key}"), "is not a text")),
    }
}

fn inputs(value: &Value, path: &str) -> Result<Value, TemplateError> {
    object(value.get("inputs"), &format!("{path}.inputs")).map(Value::Object)
}

fn resources(value: Option<&Value>, path: &str) -> Result<Vec<Wanted>, TemplateError> {
    object(value, path)?
        .into_iter()
        .map(|(id, resource)| {
            let path = format!("{path}.{id}");
            let type_id = text(&resource, "type", &path)?.ok_or_else(|| wrong(&path, "has no type"))?;
            Ok(Wanted { type_id: type_id.to_owned(), inputs: inputs(&resource, &path)?, artifact: None, id })
        })
        .collect()
}

fn environment(class: &str, section: &Value) -> Result<EnvironmentClass, TemplateError> {
    let path = format!("environments.{class}");
    let mut wanted = resources(section.get("resources"), &format!("{path}.resources"))?;
    if let Some(workload) = section.get("workload").filter(|value| !value.is_null()) {
        let path = format!("{path}.workload");
        wanted.push(Wanted {
            id: names::WORKLOAD.to_owned(),
            type_id: text(workload, "type", &path)?.unwrap_or(names::WORKLOAD).to_owned(),
            inputs: inputs(workload, &path)?,
            artifact: Some(text(workload, "artifact", &path)?.unwrap_or_default().to_owned()),
        });
    }
    let ttl = match text(section, "ttl", &path)? {
        None => None,
        Some(ttl) => Some(duration(ttl).ok_or_else(|| wrong(format!("{path}.ttl"), "is not a duration"))?),
    };
    Ok(EnvironmentClass {
        class: class.to_owned(),
        with_project: text(section, "create", &path)? == Some("with_project"),
        ttl,
        resources: wanted,
    })
}

/// `ms|s|m|h|d` after a number.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sections_are_read_in_order() {
        let template = Template::parse(&json!({
            "project": { "repository": { "type": "git-repository", "inputs": { "a": 1 } } },
            "environments": {
                "development": { "create": "with_project", "ttl": "8h",
                    "resources": { "db": { "type": "sql-database" } },
                    "workload": { "artifact": "app", "inputs": {} } },
                "staging": {}
            }
        }))
        .unwrap();
        let development = template.environment("development").unwrap();
        assert!(development.with_project);
        assert_eq!(development.ttl, Some(Duration::from_secs(8 * 3600)));
        let ids: Vec<_> = development.resources.iter().map(|wanted| wanted.id.as_str()).collect();
        assert_eq!(ids, ["db", "workload"]);
        assert_eq!(development.resources[1].artifact.as_deref(), Some("app"));
        assert!(!template.environments[1].with_project);
    }

    #[test]
    fn what_is_not_a_template_is_refused() {
        for (content, path, problem) in [
            (json!({"project": []}), "project", "is not a map"),
            (json!({"project": {"a": {}}}), "project.a", "has no type"),
            (json!({"project": {"a": {"type": 1}}}), "project.a.type", "is not a text"),
            (json!({"environments": {"a": {"ttl": "8 hours"}}}), "environments.a.ttl", "is not a duration"),
            (
                json!({"environments": {"a": {"workload": {"inputs": 1}}}}),
                "environments.a.workload.inputs",
                "is not a map",
            ),
        ] {
            assert_eq!(Template::parse(&content), Err(wrong(path, problem)), "{content}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90m"), Some(Duration::from_secs(5400)));
        for bad in ["", "5", "m", "-5m", "5 m", "99999999999999999999d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}

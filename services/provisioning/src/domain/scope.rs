//! The names that expressions see, and inputs rendered with them.

use pavior_expr::{ExprError, Reference};
use serde_json::{Map, Value, json};

use super::names;

/// What is known of the outputs of resources, by id: of the same section and of the project.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    /// `resources.<id>`.
    pub section: Map<String, Value>,
    /// `project.resources.<id>`; only environments see it.
    pub project: Map<String, Value>,
}

/// `parameters`, `project` and `environment`.
pub fn base(parameters: &Value, project: &ProjectScope, environment: Option<&EnvironmentScope>) -> Value {
    let organization = names::organization_of(&project.name);
    let mut base = json!({
        "parameters": parameters,
        "project": {
            "id": project.name.rsplit('/').next().unwrap_or_default(),
            "name": project.name,
            "owner": project.owner,
            "organization": organization,
        },
    });
    if let (Some(environment), Value::Object(map)) = (environment, &mut base) {
        let id = environment.name.rsplit('/').next().unwrap_or_default();
        map.insert(
            "environment".into(),
            json!({ "id": id, "name": environment.name, "class": environment.class }),
        );
    }
    base
}

/// What expressions see of a project.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProjectScope {
    /// Its resource name.
    pub name: String,
    /// Its owner, by resource name.
    pub owner: String,
}

/// What expressions see of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvironmentScope {
    /// Its resource name.
    pub name: String,
    /// Its class.
    pub class: String,
}

/// The whole scope of a step.
pub fn full(base: &Value, outputs: &Outputs, artifact: Option<&Value>) -> Value {
    let mut scope = base.clone();
    let in_environment = base.get("environment").is_some();
    if let Value::Object(map) = &mut scope {
        map.insert("resources".into(), Value::Object(outputs.section.clone()));
        if let Some(artifact) = artifact {
            map.insert("artifact".into(), artifact.clone());
        }
        if let (true, Some(Value::Object(project))) = (in_environment, map.get_mut("project")) {
            project.insert("resources".into(), Value::Object(outputs.project.clone()));
        }
    }
    scope
}

/// Inputs as they are recorded and planned: what is not known stays a marker, secrets stay references.
pub fn planned(
    inputs: &Value,
    driver_inputs: &Value,
    scope: &Value,
    is_not_known: &dyn Fn(&Reference) -> bool,
) -> Result<Value, ExprError> {
    let rendered = pavior_expr::evaluate_known(inputs, scope, is_not_known)?;
    let driver = pavior_expr::evaluate_known(driver_inputs, &driver_scope(scope, &rendered), &|_| false)?;
    Ok(merge(rendered, driver))
}

/// Inputs as the driver gets them: every secret in `scope` is resolved.
pub fn rendered(inputs: &Value, driver_inputs: &Value, scope: &Value) -> Result<Value, ExprError> {
    let rendered = pavior_expr::evaluate(inputs, scope)?;
    let driver = pavior_expr::evaluate(driver_inputs, &driver_scope(scope, &rendered))?;
    Ok(merge(rendered, driver))
}

/// What a definition sees: what is asked for, and what it is asked for in. Never the outputs of resources: what a
/// definition may read of them, the template gives it as an input.
fn driver_scope(scope: &Value, inputs: &Value) -> Value {
    let mut map = Map::new();
    for name in ["parameters", "project", "environment"] {
        if let Some(value) = scope.get(name) {
            map.insert(name.into(), value.clone());
        }
    }
    if let Some(Value::Object(project)) = map.get_mut("project") {
        project.remove("resources");
    }
    map.insert("inputs".into(), inputs.clone());
    Value::Object(map)
}

/// Maps merge, anything else is replaced.
pub fn merge(under: Value, over: Value) -> Value {
    match (under, over) {
        (under, Value::Null) => under,
        (Value::Object(mut under), Value::Object(over))
            if !pavior_expr::is_marker(&Value::Object(over.clone())) =>
        {
            for (key, value) in over {
                let merged = match under.remove(&key) {
                    Some(before) if before.is_object() && value.is_object() => merge(before, value),
                    _ => value,
                };
                under.insert(key, merged);
            }
            Value::Object(under)
        }
        (_, over) => over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> ProjectScope {
        ProjectScope {
            name: "organizations/acme/projects/p".into(),
            owner: "organizations/acme/groups/g".into(),
        }
    }

    #[test]
    fn a_definition_sees_no_outputs() {
        let environment = EnvironmentScope {
            name: "organizations/acme/projects/p/environments/e".into(),
            class: "x".into(),
        };
        let base = base(&json!({}), &project(), Some(&environment));
        let outputs = Outputs {
            project: json!({"repository": {"password": "s3cret"}}).as_object().unwrap().clone(),
            ..Outputs::default()
        };
        let scope = full(&base, &outputs, None);
        assert_eq!(scope["project"]["resources"]["repository"]["password"], "s3cret");
        for reads in ["${{ project.resources.repository.password }}", "${{ resources.repository.password }}"]
        {
            let error = rendered(&json!({}), &json!({"v": reads}), &scope).unwrap_err();
            assert_eq!(error.path, "v", "{error}");
        }
        assert!(
            !rendered(&json!({}), &json!({"v": "${{ project }}"}), &scope)
                .unwrap()
                .to_string()
                .contains("s3cret")
        );
    }

    #[test]
    fn driver_inputs_win_and_see_the_inputs() {
        let scope = full(&base(&json!({"size": "small"}), &project(), None), &Outputs::default(), None);
        let inputs = json!({"a": {"x": "${{ parameters.size }}", "y": 1}, "b": 2});
        let driver = json!({"a": {"y": "${{ inputs.b }}"}, "c": "${{ project.id }}-${{ inputs.a.x }}"});
        let value = planned(&inputs, &driver, &scope, &|_| false).unwrap();
        assert_eq!(value, json!({"a": {"x": "small", "y": 2}, "b": 2, "c": "p-small"}));
        assert_eq!(rendered(&inputs, &driver, &scope).unwrap(), value);
    }

    #[test]
    fn only_environments_see_the_projects_resources() {
        let outputs = Outputs {
            project: [("repo".to_owned(), json!({"url": "u"}))].into_iter().collect(),
            ..Outputs::default()
        };
        let environment = EnvironmentScope {
            name: "organizations/acme/projects/p/environments/d".into(),
            class: "dev".into(),
        };
        let inside = full(&base(&json!({}), &project(), Some(&environment)), &outputs, None);
        let inputs = json!("${{ project.resources.repo.url }}/${{ environment.id }}");
        assert_eq!(rendered(&inputs, &Value::Null, &inside).unwrap(), json!("u/d"));
        let outside = full(&base(&json!({}), &project(), None), &outputs, None);
        let error = rendered(&inputs, &Value::Null, &outside).unwrap_err();
        assert_eq!(error.message, "`project.resources.repo.url` uses a name that is not defined");
    }
}

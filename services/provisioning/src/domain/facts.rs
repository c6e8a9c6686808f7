//! What planning looks at: what is wanted, what matches, and what exists.

use std::collections::BTreeMap;

use serde_json::Value;

use super::drift::Standing;
use super::scope::{EnvironmentScope, ProjectScope};
use super::template::Wanted;

/// A section of the template for one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The environment; none for the project's own section.
    pub environment: Option<EnvironmentScope>,
    /// The parameters that hold here, with defaults.
    pub parameters: Value,
    /// What is wanted.
    pub wanted: Vec<Wanted>,
}

/// The definition that makes a resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matched {
    /// The definition, by resource name.
    pub definition: String,
    /// The type, by resource name.
    pub resource_type: String,
    /// The id of the driver.
    pub driver: String,
    /// The version of the driver.
    pub driver_version: String,
    /// What the definition tells it.
    pub driver_inputs: Value,
    /// What it costs a month.
    pub monthly_cost: String,
    /// JSON Schema of what may be asked.
    pub input_schema: Value,
    /// Outputs that are secret.
    pub secret_outputs: Vec<String>,
    /// Inputs that the driver may be given secrets in, with all below them.
    pub secret_inputs: Vec<String>,
    /// Whether the driver can undo it.
    pub undoable: bool,
    /// Whether its output `commit` says what stands in it.
    pub has_commit: bool,
}

/// A resource that exists.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Current {
    /// How it was made.
    pub made_by: Matched,
    /// The id of its type.
    pub type_id: String,
    /// The driver's name of it.
    pub identity: String,
    /// Inputs of the last apply, secrets as references.
    pub inputs: Value,
    /// Outputs, secrets as references.
    pub outputs: Value,
    /// The resources that it was made after, by resource name.
    pub depends_on: Vec<String>,
    /// How it stands.
    pub standing: Standing,
}

/// Everything that planning looks at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The project.
    pub project: ProjectScope,
    /// What is wanted.
    pub sections: Vec<Section>,
    /// Definitions by the name of the wanted resource.
    pub matched: BTreeMap<String, Matched>,
    /// What exists, by resource name.
    pub current: BTreeMap<String, Current>,
    /// The artifact to use, when it is known; else a run makes one where one is needed.
    pub artifact: Option<Value>,
    /// The artifact is taken from this deployment, by resource name.
    pub source_deployment: String,
}

/// Whether something in the value is known later only.
pub fn holds_unknown(value: &Value) -> bool {
    match value {
        _ if pavior_expr::is_unknown(value) => true,
        Value::Array(items) => items.iter().any(holds_unknown),
        Value::Object(map) => map.values().any(holds_unknown),
        _ => false,
    }
}

/// The name of a resource of a section.
pub fn resource_name(project: &ProjectScope, environment: Option<&EnvironmentScope>, id: &str) -> String {
    let parent = environment.map_or(&project.name, |environment| &environment.name);
    format!("{parent}/resources/{id}")
}

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a driver says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// Driver id, such as `git`; resource definitions name it.
    pub id: String,
    /// Semantic version; recorded with every step.
    pub version: String,
    /// The resource types it can make.
    pub types: Vec<TypeSchema>,
}

/// One resource type as a driver makes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeSchema {
    /// Resource type id, such as `sql-database`.
    pub id: String,
    /// JSON Schema 2020-12 of the inputs.
    pub inputs: Value,
    /// JSON Schema 2020-12 of the plain outputs.
    pub outputs: Value,
    /// Names of the secret outputs.
    pub secret_outputs: Vec<String>,
    /// Input fields whose change forces replacement, as JSON Pointers.
    pub immutable: Vec<String>,
    /// Day-2 actions.
    pub actions: Vec<ActionSchema>,
    /// How an apply is undone.
    pub undo: Undo,
    /// Input fields that may hold secrets, with all below them: JSON Pointers, `*` for any name or position.
    #[serde(default)]
    pub secret_inputs: Vec<String>,
}

/// A day-2 action of a type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActionSchema {
    /// Action name, such as `restart`.
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// JSON Schema 2020-12 of the arguments.
    pub arguments: Value,
    /// JSON Schema 2020-12 of the outputs.
    pub outputs: Value,
}

/// How an apply is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Undo {
    /// By destroying what it made.
    Destroy,
    /// Not at all: the plan says so, and the step stands late.
    None,
}

impl DriverInfo {
    /// The schema of one type.
    #[must_use]
    pub fn resource_type(&self, id: &str) -> Option<&TypeSchema> {
        self.types.iter().find(|schema| schema.id == id)
    }

    /// The input fields of a type that may hold secrets; none of a type that the driver does not know.
    #[must_use]
    pub fn secret_inputs(&self, id: &str) -> &[String] {
        self.resource_type(id).map(|schema| schema.secret_inputs.as_slice()).unwrap_or_default()
    }

    /// The outputs of a type that are secrets. Of a type that the driver does not know, whatever is one of any type
    /// that it makes.
    #[must_use]
    pub fn secret_outputs(&self, id: &str) -> Vec<String> {
        let known = self.resource_type(id).is_some();
        let types = self.types.iter().filter(|schema| !known || schema.id == id);
        types.flat_map(|schema| schema.secret_outputs.iter().cloned()).collect()
    }
}

impl TypeSchema {
    /// The schema of one action.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<&ActionSchema> {
        self.actions.iter().find(|action| action.name == name)
    }
}

//! What a pipeline and a run of it are declared by.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::inputs::{Declared, NAME, Span, Variables};

pub(super) static INPUTS: Declared<Inputs> = Declared::new();
pub(super) static ARGUMENTS: Declared<Arguments> = Declared::new();

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    /// Address or path of a repository of this platform.
    pub(super) repository: String,
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(super) steps: Vec<Step>,
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(super) artifacts: Vec<Artifact>,
    #[serde(default)]
    pub(super) environment: Variables,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    #[schemars(regex(pattern = "^[0-9a-f]{7,64}$"))]
    pub(super) commit: Option<String>,
    /// Branch or tag, when no commit is given; the repository's HEAD by default.
    #[serde(rename = "ref")]
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$"))]
    pub(super) reference: Option<String>,
    #[schemars(length(min = 1, max = 64))]
    pub(super) steps: Option<Vec<Step>>,
    #[schemars(length(max = 64))]
    pub(super) artifacts: Option<Vec<Artifact>>,
    #[serde(default)]
    pub(super) environment: Variables,
    /// Given to steps as `PARAMETER_<NAME>`.
    #[serde(default)]
    pub(super) parameters: Map<String, Value>,
    #[serde(default)]
    pub(super) secrets: Variables,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    #[schemars(length(min = 1, max = 63))]
    pub(crate) name: String,
    /// A shell script, or a command as a list of words.
    pub(crate) run: Script,
    pub(crate) timeout: Option<Span>,
    #[serde(default)]
    pub(crate) environment: Variables,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(transform = exclusive)]
pub(crate) enum Script {
    Shell(#[schemars(length(min = 1, max = 65536))] String),
    Command(#[schemars(length(min = 1, max = 256))] Vec<String>),
}

/// The variants are of different types, so that exactly one fits; forms show a choice for `oneOf` only.
fn exclusive(schema: &mut Schema) {
    if let Some(variants) = schema.remove("anyOf") {
        schema.insert("oneOf".to_owned(), variants);
    }
}

// A file or directory that a run leaves. In its path `*` stands for any part of one name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Artifact {
    #[schemars(regex(pattern = NAME))]
    pub(crate) name: String,
    #[schemars(length(min = 1, max = 512))]
    pub(crate) path: String,
}

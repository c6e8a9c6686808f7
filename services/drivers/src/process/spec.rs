//! What a workload is made of, as it is sealed at rest.

use std::collections::BTreeMap;

use pavior_core::digest::Digest;
use pavior_driver::{ActionSchema, TypeSchema, Undo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::inputs::{Declared, Span, Variables};

pub(super) const TYPE: &str = "workload";
pub(super) const ACTIONS: [(&str, &str); 4] = [
    ("restart", "Stops the process and starts it again."),
    ("stop", "Stops the process until it is started again."),
    ("start", "Starts a process that was stopped."),
    ("logs", "Gives the last lines of its output."),
];

pub(super) static INPUTS: Declared<Inputs> = Declared::new();
pub(super) static ARGUMENTS: Declared<Arguments> = Declared::new();

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    /// Program and arguments. Artifacts that are named in them are copied and kept with the workload; other paths into the store are refused.
    #[schemars(length(min = 1, max = 256), inner(length(max = 65536)))]
    pub(super) command: Vec<String>,
    /// Environment; artifacts as in the command. `PORT` and `HOST` are given by the platform.
    #[serde(default)]
    pub(super) variables: Variables,
    #[serde(default)]
    pub(super) health: Health,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    /// Answers 2xx or 3xx when ready; without it an open port is enough.
    #[schemars(regex(pattern = "^/[!-~]*$"))]
    pub(super) path: Option<String>,
    pub(super) timeout: Option<Span>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct Arguments {
    #[schemars(range(min = 1))]
    pub(super) lines: Option<u64>,
}

/// Whether a workload should be running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Desired {
    Running,
    Stopped,
}

/// Everything that is needed to start it again. May hold secrets: sealed at rest.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) command: Vec<String>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) health_path: Option<String>,
    pub(super) health_timeout_ms: u64,
    pub(super) sensitive: Vec<String>,
    /// Digest of the inputs that it was made from.
    pub(super) inputs: String,
    /// Digest of the first artifact in command and variables.
    #[serde(with = "hex_digest")]
    pub(super) digest: Option<Digest>,
    pub(super) port: u16,
    pub(super) desired: Desired,
}

/// The form of the digest in records: its hex digits.
mod hex_digest {
    use pavior_core::digest::Digest;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(digest: &Option<Digest>, to: S) -> Result<S::Ok, S::Error> {
        digest.map(|digest| digest.hex()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Digest>, D::Error> {
        let hex = Option::<String>::deserialize(from)?;
        hex.as_deref().map(Digest::from_hex).transpose().map_err(de::Error::custom)
    }
}

fn outputs_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": {"type": "string"},
            "port": {"type": "integer"},
            "pid": {"type": ["integer", "null"]},
            "digest": {"type": ["string", "null"], "description": "SHA-256 of the artifact."},
            "state": {"enum": ["running", "stopped"]}
        }
    })
}

/// The type as the driver declares it.
pub(super) fn declare() -> TypeSchema {
    let action = |(name, description): (&str, &str)| ActionSchema {
        name: name.to_owned(),
        description: description.to_owned(),
        arguments: ARGUMENTS.schema(),
        outputs: if name == "logs" {
            json!({"type": "object", "properties": {"log": {"type": "string"}}})
        } else {
            outputs_schema()
        },
    };
    TypeSchema {
        id: TYPE.to_owned(),
        inputs: INPUTS.schema(),
        outputs: outputs_schema(),
        secret_outputs: Vec::new(),
        immutable: Vec::new(),
        actions: ACTIONS.map(action).to_vec(),
        undo: Undo::Destroy,
        secret_inputs: vec!["/variables".to_owned()],
    }
}

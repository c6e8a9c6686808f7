//! What a workload is made of, as it is sealed at rest.

use std::collections::BTreeMap;

use pavior_driver::{ActionSchema, TypeSchema, Undo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::inputs::{Span, span_schema};

pub(super) const TYPE: &str = "workload";
pub(super) const ACTIONS: [(&str, &str); 4] = [
    ("restart", "Stops the process and starts it again."),
    ("stop", "Stops the process until it is started again."),
    ("start", "Starts a process that was stopped."),
    ("logs", "Gives the last lines of its output."),
];

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Inputs {
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) variables: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) health: Health,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Health {
    pub(super) path: Option<String>,
    pub(super) timeout: Option<Span>,
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
    pub(super) digest: Option<String>,
    pub(super) port: u16,
    pub(super) desired: Desired,
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["command"],
        "properties": {
            "command": {
                "type": "array", "minItems": 1, "maxItems": 256,
                "items": {"type": "string", "maxLength": 65536},
                "description": "Program and arguments. Artifacts that are named in them are copied and kept with the workload; other paths into the store are refused."
            },
            "variables": {
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": "string"},
                "description": "Environment; artifacts as in the command. `PORT` and `HOST` are given by the platform."
            },
            "health": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "path": {"type": "string", "pattern": "^/[!-~]*$",
                             "description": "Answers 2xx or 3xx when ready; without it an open port is enough."},
                    "timeout": span_schema()
                }
            }
        }
    })
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
        arguments: json!({"type": "object", "properties": {"lines": {"type": "integer", "minimum": 1}}}),
        outputs: if name == "logs" {
            json!({"type": "object", "properties": {"log": {"type": "string"}}})
        } else {
            outputs_schema()
        },
    };
    TypeSchema {
        id: TYPE.to_owned(),
        inputs: schema(),
        outputs: outputs_schema(),
        secret_outputs: Vec::new(),
        immutable: Vec::new(),
        actions: ACTIONS.map(action).to_vec(),
        undo: Undo::Destroy,
        secret_inputs: vec!["/variables".to_owned()],
    }
}

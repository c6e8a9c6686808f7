//! What a workload is made of, as it is sealed at rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pavior_driver::{ActionSchema, Failure, FailureCode, TypeSchema, Undo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::inputs::{Span, span_schema};
use crate::pipeline::{Stored, copy, digest, stored};

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
    /// Digest of the artifacts in the command.
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
                "description": "Program and arguments; paths of artifacts are copied and kept with the workload."
            },
            "variables": {
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": "string"},
                "description": "Environment. `PORT` and `HOST` are given by the platform."
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
        secret_inputs: vec!["variables".to_owned()],
    }
}

/// Copies the artifacts that the command names into the workload's own directory, so that it does not depend on how
/// long runs are kept, and returns the command over the copies with the digest of the first. What is copied must have
/// the digest under which it stands.
pub(super) fn install(
    command: &[String],
    artifacts: &Path,
    organization: &str,
    releases: &Path,
) -> Result<(Vec<String>, Option<String>), Failure> {
    let root = artifacts.canonicalize().ok();
    let own = artifacts.join(organization).canonicalize().ok();
    let mut installed = Vec::new();
    let mut digest = None;
    for word in command {
        // Links and `..` are resolved before it is decided whose file it is.
        let real = Path::new(word).is_absolute().then(|| Path::new(word).canonicalize().ok()).flatten();
        let in_store =
            real.as_ref().is_some_and(|path| root.as_ref().is_some_and(|root| path.starts_with(root)));
        let named = Path::new(word).starts_with(artifacts);
        if !in_store && !named {
            installed.push(word.clone());
            continue;
        }
        let found = real.zip(own.as_ref()).and_then(|(path, own)| Some((stored(own, &path)?, path)));
        let Some((artifact, path)) = found else {
            let message = format!("`{word}` is not an artifact of this organization");
            return Err(Failure::new(FailureCode::InvalidArgument, message));
        };
        let copied = release(&artifact, releases)?;
        // A word may name something in an artifact that is a folder.
        let below = path.strip_prefix(&artifact.root).ok().filter(|below| !below.as_os_str().is_empty());
        let word = below.map_or(copied.clone(), |below| copied.join(below));
        installed.push(word.to_string_lossy().into_owned());
        digest.get_or_insert(artifact.sha256);
    }
    Ok((installed, digest))
}

/// The workload's own copy of an artifact.
fn release(artifact: &Stored, releases: &Path) -> Result<PathBuf, Failure> {
    let io = |error: std::io::Error| {
        tracing::error!(error = %error, "artifact cannot be installed");
        Failure::new(FailureCode::Internal, "the artifact cannot be installed")
    };
    let name = artifact.root.file_name().map(PathBuf::from).unwrap_or_default();
    let staged = tempfile::tempdir_in(releases).map_err(io)?;
    // The digest is that of the copy, so that nothing can be changed between the look and the use.
    let (found, _) = copy(&artifact.root, &staged.path().join(&name)).map_err(io)?;
    if found != artifact.sha256 {
        let what = format!("artifact `{}`", name.display());
        let named = |digest: &str| format!("sha256:{digest}");
        return Err(Failure::changed(&what, &named(&artifact.sha256), &named(&found)));
    }
    // By digest, so that a running older release is never written over.
    let target = releases.join(&found[..32]);
    let copied = target.join(&name);
    if !digest(&copied).is_ok_and(|there| there == found) {
        crate::files::remove_tree(&target).map_err(io)?;
        std::fs::rename(staged.keep(), &target).map_err(io)?;
    }
    Ok(copied)
}

/// Removes the releases that the command does not use any more.
pub(super) fn prune(releases: &Path, command: &[String]) {
    for entry in std::fs::read_dir(releases).into_iter().flatten().flatten() {
        let path = entry.path();
        if !command.iter().any(|word| Path::new(word).starts_with(&path)) {
            // What cannot be removed now is removed with the workload.
            let _ = crate::files::remove_tree(&path);
        }
    }
}

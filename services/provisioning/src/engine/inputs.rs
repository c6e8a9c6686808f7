//! The inputs of a step, right before its driver is called: references become values, secrets are opened, and what is
//! recorded of them keeps the references.

use std::collections::BTreeMap;

use pavior_driver::Redactor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::Engine;
use crate::domain::names;
use crate::domain::plan::{Artifact, Spec};
use crate::domain::scope::{self, Outputs};
use crate::error::{Error, Result};
use crate::store::entity::resource;
use crate::store::{Claim, Sealed, StepError};

/// Everything that a call needs to know.
pub(crate) struct Prepared {
    /// The resource as it is recorded.
    pub(crate) row: resource::Model,
    /// What the step was told.
    pub(crate) spec: Spec,
    /// Secrets in the clear, by reference.
    pub(crate) secrets: BTreeMap<String, SecretString>,
    scope: Value,
    artifact: Option<Value>,
}

/// Inputs in both forms.
pub(crate) struct Inputs {
    /// For the driver.
    pub(crate) resolved: Value,
    /// For the record.
    pub(crate) recorded: Value,
    /// The artifact that they refer to.
    pub(crate) artifact: Option<Value>,
}

impl Prepared {
    /// Masks every secret that the operation may have seen.
    pub(crate) fn redactor(&self) -> Redactor {
        Redactor::new(&self.sensitive())
    }

    /// Every secret.
    pub(crate) fn sensitive(&self) -> Vec<SecretString> {
        self.secrets.values().cloned().collect()
    }

    /// Renders the inputs.
    pub(crate) fn inputs(&self) -> std::result::Result<Inputs, StepError> {
        let Spec { inputs, driver_inputs, .. } = &self.spec;
        let failed = |error: pavior_expr::ExprError| StepError {
            code: "INVALID_ARGUMENT".to_owned(),
            message: error.to_string(),
        };
        let recorded = scope::planned(inputs, driver_inputs, &self.scope, &|_| false).map_err(failed)?;
        let resolved = scope::rendered(inputs, driver_inputs, &self.open(&self.scope)).map_err(failed)?;
        Ok(Inputs { resolved, recorded, artifact: self.artifact.clone() })
    }

    /// The value with every secret reference replaced by its secret.
    pub(crate) fn open(&self, value: &Value) -> Value {
        if let Some(reference) = pavior_expr::secret_reference(value) {
            return match self.secrets.get(reference) {
                Some(secret) => Value::String(secret.expose_secret().to_owned()),
                None => value.clone(),
            };
        }
        match value {
            Value::Array(items) => Value::Array(items.iter().map(|item| self.open(item)).collect()),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(key, item)| (key.clone(), self.open(item))).collect())
            }
            other => other.clone(),
        }
    }
}

impl Engine {
    /// Reads what a step needs.
    pub(crate) async fn prepare(&self, claim: &Claim) -> Result<Prepared> {
        let spec = Spec::from_json(&claim.step.spec)?;
        let rows = self.inner.db.resources_in_scope_unscoped(&claim.step.resource).await?;
        let secrets = self.open_secrets(&rows).await?;
        let mut outputs = Outputs::default();
        for row in &rows {
            let id = names::last(&row.name).to_owned();
            if row.environment == spec.environment && row.name != claim.step.resource {
                outputs.section.insert(id.clone(), row.outputs.clone());
            }
            if row.environment.is_empty() {
                outputs.project.insert(id, row.outputs.clone());
            }
        }
        let artifact = artifact(&spec, claim.run_outputs.as_ref());
        let scope = scope::full(&spec.scope, &outputs, artifact.as_ref());
        let row = rows
            .into_iter()
            .find(|row| row.name == claim.step.resource)
            .ok_or_else(|| Error::Corrupt(format!("resource `{}` is gone", claim.step.resource)))?;
        Ok(Prepared { row, spec, secrets, scope, artifact })
    }

    async fn open_secrets(&self, rows: &[resource::Model]) -> Result<BTreeMap<String, SecretString>> {
        let mut references = Vec::new();
        for row in rows {
            references_in(&row.outputs, &mut references);
        }
        let mut opened = BTreeMap::new();
        for sealed in self.inner.db.secrets_unscoped(references).await? {
            let secret = self.inner.key.open(&sealed.reference, &sealed.sealed)?;
            opened.insert(sealed.reference, secret);
        }
        Ok(opened)
    }

    /// Seals a value.
    pub(crate) fn seal(&self, reference: &str, value: &SecretString) -> Result<Sealed> {
        Ok(Sealed { reference: reference.to_owned(), bytes: self.inner.key.seal(reference, value)? })
    }

    /// Opens the inputs of a former apply: sealed where they held secrets.
    pub(crate) async fn former_inputs(&self, prior: &Value) -> Result<Value> {
        let reference = prior.get("sealed_inputs").and_then(Value::as_str).unwrap_or_default();
        if reference.is_empty() {
            return Ok(prior.get("inputs").cloned().unwrap_or_default());
        }
        let sealed = self.inner.db.secrets_unscoped(vec![reference.to_owned()]).await?;
        let sealed = sealed.first().ok_or_else(|| Error::Corrupt("the former inputs are gone".to_owned()))?;
        let opened = self.inner.key.open(reference, &sealed.sealed)?;
        serde_json::from_str(opened.expose_secret())
            .map_err(|_| Error::Corrupt("the former inputs cannot be read".to_owned()))
    }
}

fn references_in(value: &Value, found: &mut Vec<String>) {
    if let Some(reference) = pavior_expr::secret_reference(value) {
        found.push(reference.to_owned());
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| references_in(item, found)),
        Value::Object(map) => map.values().for_each(|item| references_in(item, found)),
        _ => {}
    }
}

/// The value of `artifact` in expressions.
fn artifact(spec: &Spec, run_outputs: Option<&Value>) -> Option<Value> {
    match &spec.artifact {
        Artifact::None => None,
        Artifact::Known(artifact) => Some(artifact.clone()),
        Artifact::FromStep { name, .. } => from_run(run_outputs?, name),
    }
}

/// The artifact of a run: the one of this name, the first when the name is empty.
pub(crate) fn from_run(run: &Value, name: &str) -> Option<Value> {
    let artifacts = run.get("artifacts")?.as_array()?;
    let chosen = artifacts
        .iter()
        .find(|artifact| name.is_empty() || artifact.get("name").and_then(Value::as_str) == Some(name))?;
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let commit = text(run, "commit");
    let mut map = Map::new();
    for key in ["name", "path", "sha256"] {
        map.insert(key.to_owned(), json!(text(chosen, key)));
    }
    map.insert("run".to_owned(), json!(text(run, "run")));
    map.insert("version".to_owned(), json!(commit.chars().take(12).collect::<String>()));
    map.insert("commit".to_owned(), json!(commit));
    Some(Value::Object(map))
}

//! The inputs of a step, right before its driver is called: references become values, secrets are opened, and what is
//! recorded of them keeps the references.

use std::collections::BTreeMap;

use pavior_driver::Redactor;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::Engine;
use crate::domain::failure::FailureCode;
use crate::domain::plan::{Artifact, Spec};
use crate::domain::resource::Resource;
use crate::domain::scope::{self, Outputs};
use crate::domain::{names, taint};
use crate::error::{Error, Result};
use crate::store::{Claim, Sealed, StepError};

/// Everything that a call needs to know.
pub(crate) struct Prepared {
    /// The resource as it is recorded.
    pub(crate) row: Resource,
    /// What the step was told.
    pub(crate) spec: Spec,
    /// Secrets in the clear, by reference.
    pub(crate) secrets: BTreeMap<String, SecretString>,
    /// What expressions see, with references in the place of secrets.
    scope: Value,
    /// The same with the secrets themselves.
    opened: Value,
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
        let failed =
            |error: pavior_expr::ExprError| StepError::new(FailureCode::InvalidArgument, error.to_string());
        let recorded = scope::planned(inputs, driver_inputs, &self.scope, &|_| false).map_err(failed)?;
        let resolved = scope::rendered(inputs, driver_inputs, &self.opened).map_err(failed)?;
        // What the plan holds fast is laid over both.
        let pinned = &self.spec.pinned;
        Ok(Inputs {
            resolved: scope::merge(resolved, pinned.clone()),
            recorded: scope::merge(recorded, pinned.clone()),
            artifact: self.artifact.clone(),
        })
    }

    /// The arguments of a run, with what the plan holds fast over them.
    pub(crate) fn arguments(&self) -> std::result::Result<Value, StepError> {
        let failed =
            |error: pavior_expr::ExprError| StepError::new(FailureCode::InvalidArgument, error.to_string());
        let pinned = pavior_expr::evaluate(&self.spec.pinned, &self.scope).map_err(failed)?;
        Ok(scope::merge(self.spec.arguments(), pinned))
    }
}

impl Engine {
    /// Reads what a step needs.
    pub(crate) async fn prepare(&self, claim: &Claim) -> Result<Prepared> {
        let spec = claim.step.spec.clone();
        let rows = self.db.resources_in_scope_unscoped(&claim.op.project, &claim.step.resource).await?;
        let secrets = self.open_secrets(&rows).await?;
        let artifact = artifact(&spec, claim.run_outputs.as_ref());
        let scope_over = |outputs: &dyn Fn(&Resource) -> Value| {
            let mut found = Outputs::default();
            for row in &rows {
                let id = names::last(&row.name).to_owned();
                if row.environment == spec.environment && row.name != claim.step.resource {
                    found.section.insert(id.clone(), outputs(row));
                }
                if row.environment.is_empty() {
                    found.project.insert(id, outputs(row));
                }
            }
            scope::full(&spec.scope, &found, artifact.as_ref())
        };
        let scope = scope_over(&|row| row.outputs.clone());
        let opened = scope_over(&|row| opened(row, &secrets));
        let row = rows
            .into_iter()
            .find(|row| row.name == claim.step.resource)
            .ok_or_else(|| Error::Corrupt(format!("resource `{}` is gone", claim.step.resource)))?;
        Ok(Prepared { row, spec, secrets, scope, opened, artifact })
    }

    async fn open_secrets(&self, rows: &[Resource]) -> Result<BTreeMap<String, SecretString>> {
        let sealed = |row: &Resource| -> Vec<String> {
            let sealed = taint::sealed_outputs(&row.uid, &row.outputs);
            sealed.into_iter().map(|(_, reference)| reference.to_owned()).collect()
        };
        let references = rows.iter().flat_map(sealed).collect();
        let mut opened = BTreeMap::new();
        for sealed in self.db.secrets_unscoped(references).await? {
            let secret = self.key.open(&sealed.reference, &sealed.sealed)?;
            opened.insert(sealed.reference, secret);
        }
        Ok(opened)
    }

    /// Seals a value.
    pub(crate) fn seal(&self, reference: &str, value: &SecretString) -> Result<Sealed> {
        Ok(Sealed { reference: reference.to_owned(), bytes: self.key.seal(reference, value)? })
    }

    /// What a driver was told of a resource by the apply that is recorded.
    pub(crate) async fn declaration(
        &self,
        name: &str,
        inputs: &Value,
        sealed_inputs: &str,
    ) -> Result<String> {
        Ok(self.key.declaration(name, &self.opened_inputs(inputs, sealed_inputs).await?))
    }

    /// Opens the inputs of a former apply: sealed where they held secrets.
    pub(crate) async fn opened_inputs(&self, inputs: &Value, reference: &str) -> Result<Value> {
        if reference.is_empty() {
            return Ok(inputs.clone());
        }
        let sealed = self.db.secrets_unscoped(vec![reference.to_owned()]).await?;
        let sealed = sealed.first().ok_or_else(|| Error::Corrupt("the former inputs are gone".to_owned()))?;
        let opened = self.key.open(reference, &sealed.sealed)?;
        serde_json::from_str(opened.expose_secret())
            .map_err(|_| Error::Corrupt("the former inputs cannot be read".to_owned()))
    }
}

/// The outputs of a resource with its secrets in the clear. Nothing else is opened, whatever it looks like.
fn opened(row: &Resource, secrets: &BTreeMap<String, SecretString>) -> Value {
    let mut outputs = row.outputs.clone();
    for (name, reference) in taint::sealed_outputs(&row.uid, &row.outputs) {
        if let (Some(secret), Some(output)) = (secrets.get(reference), outputs.get_mut(name)) {
            *output = Value::String(secret.expose_secret().to_owned());
        }
    }
    outputs
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

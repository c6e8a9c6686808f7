//! Rows as messages.

use pavior_proto::pavior::policy::v1::{Decision, Effect};
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::convert::{from_json, to_money, to_struct, to_timestamp, to_value};
use pavior_rpc::{ErrorReason, Problem, audit};
use prost_types::Struct;
use serde_json::Value;

use super::secret::{Apart, apart};
use crate::app::etag_of;
use crate::app::pipeline::Pipeline;
use crate::app::plan::KeptPlan;
use crate::domain::deployment::{Deployment, DeploymentState};
use crate::domain::drift::Drift;
use crate::domain::environment::{Endpoint, Environment, EnvironmentState, EnvironmentView};
use crate::domain::failure::{FailureCode, StepFailure};
use crate::domain::names;
use crate::domain::operation::OperationState;
use crate::domain::plan::{Action, Artifact, Change, FieldChange, Given, Plan};
use crate::domain::project::{Project, ProjectState};
use crate::domain::question::Question;
use crate::domain::resource::{Resource, ResourceState};
use crate::domain::run::{Run, RunCause, RunState};

fn structure(value: &Value) -> Option<Struct> {
    to_struct(value).ok()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A project.
pub(crate) fn project(row: Project) -> pb::Project {
    let Project {
        uid,
        name,
        display_name,
        owner,
        template_version,
        parameters,
        labels,
        state,
        operation,
        creator,
        create_time,
        update_time,
        revision,
    } = row;
    pb::Project {
        name,
        uid: uid.to_string(),
        etag: etag_of(uid, revision),
        display_name,
        owner,
        template_version,
        parameters: structure(&parameters),
        labels: labels.into_iter().collect(),
        state: project_state(state).into(),
        active_operation: operation,
        creator,
        create_time: Some(to_timestamp(create_time)),
        update_time: Some(to_timestamp(update_time)),
    }
}

/// An environment.
pub(crate) fn environment(view: EnvironmentView) -> pb::Environment {
    let EnvironmentView { environment, endpoints, deployments } = view;
    let Environment {
        uid,
        project: _,
        name,
        display_name,
        class,
        template_version,
        parameters,
        expire_time,
        state,
        operation,
        creator,
        create_time,
        update_time,
        revision,
    } = environment;
    pb::Environment {
        name,
        uid: uid.to_string(),
        etag: etag_of(uid, revision),
        display_name,
        environment_class_id: class,
        template_version,
        parameters: structure(&parameters),
        expiration: expire_time.map(|time| pb::environment::Expiration::ExpireTime(to_timestamp(time))),
        state: environment_state(state).into(),
        active_operation: operation,
        endpoints: endpoints.into_iter().map(endpoint).collect(),
        active_deployments: deployments,
        creator,
        create_time: Some(to_timestamp(create_time)),
        update_time: Some(to_timestamp(update_time)),
    }
}

fn endpoint(endpoint: Endpoint) -> pb::environment::Endpoint {
    let Endpoint { resource, url } = endpoint;
    pb::environment::Endpoint { resource, url }
}

/// A resource.
pub(crate) fn resource(row: Resource) -> pb::Resource {
    let Apart { value: inputs, secrets: input_secrets, unknown: _ } = apart(&row.inputs);
    let Apart { value: outputs, secrets: output_secrets, unknown: _ } = apart(&row.outputs);
    pb::Resource {
        name: row.name,
        uid: row.uid.to_string(),
        etag: etag_of(row.uid, row.revision),
        resource_type: row.resource_type,
        resource_definition: row.resource_definition,
        driver_id: row.driver,
        external_id: row.identity,
        inputs: structure(&inputs),
        outputs: structure(&outputs),
        input_secrets,
        output_secrets,
        state: resource_state(row.state).into(),
        generation: i32::try_from(row.generation).unwrap_or(i32::MAX),
        create_time: Some(to_timestamp(row.create_time)),
        update_time: Some(to_timestamp(row.update_time)),
    }
}

/// A pipeline with its newest run.
pub(crate) fn pipeline(pipeline: Pipeline) -> pb::Pipeline {
    let Pipeline { name, resource, latest_run } = pipeline;
    let create_time = Some(to_timestamp(resource.create_time));
    pb::Pipeline { name, resource: resource.name, latest_run, create_time }
}

/// A run.
pub(crate) fn run(row: Run) -> pb::Run {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let failed = |StepFailure { code, message }| step_failed(code, message).to_rpc_status();
    pb::Run {
        name: row.name,
        uid: row.uid.to_string(),
        state: run_state(row.state).into(),
        revision: row.revision,
        commit: row.commit,
        trigger: match row.cause {
            RunCause::Call => pb::run::Trigger::Call,
            RunCause::Creation => pb::run::Trigger::Creation,
        }
        .into(),
        steps: items(&row.steps).iter().map(run_step).collect(),
        artifacts: items(&row.artifacts)
            .iter()
            .map(|artifact| pb::run::Artifact {
                artifact_id: text(artifact, "name"),
                digest: digest_of(artifact),
                size_bytes: artifact.get("size").and_then(Value::as_i64).unwrap_or_default(),
            })
            .collect(),
        error: row.error.map(failed),
        operation: row.operation,
        creator: row.creator,
        create_time: Some(to_timestamp(row.create_time)),
        end_time: row.end_time.map(to_timestamp),
    }
}

fn run_step(step: &Value) -> pb::run::Step {
    let number = |key: &str| step.get(key).and_then(Value::as_i64);
    let time = |key: &str| number(key).and_then(pavior_store::from_micros).map(to_timestamp);
    let state = pb::run::step::State::from_str_name(&format!("STATE_{}", text(step, "state")));
    let state = state.unwrap_or_default();
    let exit_code = number("exit_code").and_then(|code| i32::try_from(code).ok());
    let error = (state == pb::run::step::State::Failed).then(|| {
        let message = match exit_code {
            Some(code) => format!("ended with exit code {code}"),
            None => text(step, "error"),
        };
        step_failed(FailureCode::WorkFailed, message).to_rpc_status()
    });
    pb::run::Step {
        step_id: text(step, "name"),
        state: state.into(),
        exit_code,
        start_time: time("start_time"),
        end_time: time("end_time"),
        error,
    }
}

/// A driver's failure.
pub(crate) fn step_failed(code: FailureCode, message: String) -> Problem {
    Problem::new(audit::tonic_code(code.status()), ErrorReason::StepFailed, message)
        .with("driverCode", code.as_str())
}

/// A deployment.
pub(crate) fn deployment(row: Deployment) -> pb::Deployment {
    use pb::deployment::Source;
    let source = match (row.source_deployment.as_str(), row.run.as_str()) {
        // The run is yet to come.
        ("", "") => None,
        ("", run) => Some(Source::SourceRun(run.to_owned())),
        (deployment, _) => Some(Source::SourceDeployment(deployment.to_owned())),
    };
    pb::Deployment {
        name: row.name,
        uid: row.uid.to_string(),
        source,
        artifact: Some(pb::deployment::Artifact {
            digest: digest_of(&row.artifact),
            run: row.run,
            commit: row.commit,
        }),
        state: deployment_state(row.state).into(),
        url: row.url,
        operation: row.operation,
        creator: row.creator,
        create_time: Some(to_timestamp(row.create_time)),
        update_time: Some(to_timestamp(row.update_time)),
        resource: row.resource,
    }
}

/// Enums of the domain as those of the same names in the API.
macro_rules! same_names {
    ($($function:ident: $from:ident => $to:path { $($variant:ident),+ })+) => {
        $(
            pub(super) fn $function(value: $from) -> $to {
                use $to as To;
                match value {
                    $($from::$variant => To::$variant),+
                }
            }
        )+
    };
}

same_names! {
    project_state: ProjectState => pb::project::State { Creating, Active, Updating, Deleting, Stuck }
    environment_state: EnvironmentState => pb::environment::State {
        AwaitingApproval, Creating, Active, Updating, Deleting, Stuck
    }
    resource_state: ResourceState => pb::resource::State { Creating, Active, Updating, Deleting, Failed }
    run_state: RunState => pb::run::State { Queued, Running, Succeeded, Failed, Cancelled }
    deployment_state: DeploymentState => pb::deployment::State { Pending, Active, Superseded, Failed }
    operation_state: OperationState => pb::operation_metadata::State {
        Planned, Checking, Denied, AwaitingApproval, Queued, Running, Cancelling, Failing, Compensating, Succeeded,
        Compensated, Stuck
    }
    action: Action => pb::plan::Action { Noop, Create, Update, Replace, Delete, Run }
}

/// A plan that was kept.
pub(crate) fn kept_plan(KeptPlan { plan, intent, .. }: KeptPlan) -> pb::Plan {
    pb::Plan { intent, ..self::plan(plan) }
}

/// A plan that is only looked at.
pub(crate) fn plan(plan: Plan) -> pb::Plan {
    pb::Plan {
        name: names::plan(&plan.organization, &plan.id),
        uid: plan.id.to_string(),
        digest: plan.digest,
        action: plan.action,
        target: plan.target,
        changes: plan.changes.into_iter().map(change).collect(),
        decision: from_json::<Decision>(plan.decision).ok(),
        monthly_cost_before: to_money(&plan.monthly_cost_before),
        monthly_cost_after: to_money(&plan.monthly_cost_after),
        template_version: plan.template_version,
        parameters: structure(&plan.parameters),
        requester: plan.requester,
        author: plan.author,
        summary: plan.summary,
        create_time: Some(to_timestamp(plan.create_time)),
        expire_time: Some(to_timestamp(plan.expire_time)),
        policy_checks: policy_checks(plan.questions, plan.answers),
        intent: None,
    }
}

fn policy_checks(questions: Vec<Question>, answers: Vec<Given>) -> Vec<pb::plan::PolicyCheck> {
    let both = questions.into_iter().zip(answers);
    both.map(|(question, answer)| pb::plan::PolicyCheck {
        action: question.action,
        resource: question.subject.name,
        environment_class_id: question.environment_class,
        decision: answer.decision,
        effect: Effect::from_str_name(&format!("EFFECT_{}", answer.effect)).unwrap_or_default().into(),
    })
    .collect()
}

fn change(change: Change) -> pb::plan::Change {
    let Change {
        step,
        resource,
        resource_type,
        resource_definition,
        driver,
        driver_version: _,
        action: what,
        fields,
        depends_on,
        undoable,
        monthly_cost,
        spec,
        entry: _,
        drift,
    } = change;
    let (artifact_digest, artifact_step_id) = match spec.artifact {
        Artifact::None => Default::default(),
        Artifact::Known(artifact) => (digest_of(&artifact), String::new()),
        Artifact::FromStep { step, name: _ } => (String::new(), step),
    };
    pb::plan::Change {
        step_id: step,
        resource,
        resource_type,
        resource_definition,
        driver_id: driver,
        action: action(what).into(),
        fields: fields.into_iter().map(field).collect(),
        depends_on_step_ids: depends_on,
        undoable,
        monthly_cost: to_money(&monthly_cost),
        pinned: spec.pinned.as_object().filter(|map| !map.is_empty()).and_then(|_| structure(&spec.pinned)),
        artifact_digest,
        artifact_step_id,
        drift: drift.map(self::drift).unwrap_or_default().into(),
        drift_message: drift.map(|drift| drift.words().to_owned()).unwrap_or_default(),
    }
}

fn drift(drift: Drift) -> pb::plan::Drift {
    match drift {
        Drift::Gone => pb::plan::Drift::Missing,
        Drift::Broken => pb::plan::Drift::Incomplete,
        Drift::Different => pb::plan::Drift::Changed,
    }
}

/// The digest of an artifact, as people see it.
fn digest_of(artifact: &Value) -> String {
    let digest = artifact.get("sha256").and_then(Value::as_str).unwrap_or_default();
    if digest.is_empty() { String::new() } else { format!("sha256:{digest}") }
}

fn field(field: FieldChange) -> pb::plan::FieldChange {
    let FieldChange { path, before, after } = field;
    let shown = |side: Option<Value>| side.map(|value| apart(&value));
    let (before, after) = (shown(before), shown(after));
    let value = |side: &Option<Apart>| side.as_ref().map(|side| to_value(&side.value));
    pb::plan::FieldChange {
        path,
        before: value(&before),
        after: value(&after),
        before_secrets: before.map(|side| side.secrets).unwrap_or_default(),
        after_unknown_paths: after.as_ref().map(|side| side.unknown.clone()).unwrap_or_default(),
        after_secrets: after.map(|side| side.secrets).unwrap_or_default(),
    }
}

//! Operations as `google.longrunning` has them, and as the stream tells of them.

use std::collections::BTreeMap;

use pavior_auth::Permit;
use pavior_proto::google::longrunning::{Operation, operation::Result as LroResult};
use pavior_proto::google::rpc;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::r#type::v1::StreamBookmark;
use pavior_proto::shape::Request as _;
use pavior_rpc::convert::to_timestamp;
use pavior_rpc::problem::{any, reason_from_name};
use pavior_rpc::stream::StreamTokens;
use pavior_rpc::{ErrorReason, Problem, audit};
use serde_json::Value;

use super::convert;
use crate::app::rows::{self, OperationView, operation, step, step_body};
use crate::app::watch::{Happened, Message};
use crate::app::{Answer, App, Ask};
use crate::domain::plan::{Action, Kind, Plan};
use crate::domain::state::{OperationState, StepState};
use crate::domain::{failure, names};
use crate::error::Result;

/// An answer to a change.
pub(crate) async fn answer(app: &App, ask: &Ask, answer: Answer) -> Result<Operation> {
    match answer {
        Answer::Operation(view) => encode(app, &ask.permit, *view).await,
        Answer::Plan(plan) => Ok(validated(*plan)),
        Answer::Kept(_) => Err(Problem::internal("a plan was kept that nobody asked for").into()),
        Answer::Nothing => {
            // Named after the request, so that the same one gets the same answer.
            let id = uuid::Uuid::parse_str(&ask.request_id).unwrap_or_else(|_| app.db.ids.uuid());
            Ok(Operation {
                name: names::operation(ask.permit.organization(), &id),
                metadata: None,
                done: true,
                result: Some(LroResult::Response(match ask.method == pb::DeleteProjectRequest::PATH {
                    true => any(&pb::Project::default()),
                    false => any(&pb::Environment::default()),
                })),
            })
        }
    }
}

/// The finished operation of a `validate_only` call: its metadata holds the plan.
fn validated(plan: Plan) -> Operation {
    let kind = plan.kind;
    let metadata = pb::OperationMetadata {
        state: pb::operation_metadata::State::Planned.into(),
        action: plan.action.clone(),
        target: plan.target.clone(),
        plan_digest: plan.digest.clone(),
        requester: plan.requester.clone(),
        create_time: Some(to_timestamp(plan.create_time)),
        end_time: Some(to_timestamp(plan.create_time)),
        progress_percent: 100,
        ..Default::default()
    };
    let target = plan.target.clone();
    // Neither of them can be got: nothing was kept.
    let plan = pb::Plan { name: String::new(), uid: String::new(), ..convert::plan(plan) };
    let metadata = pb::OperationMetadata { validated_plan: Some(plan), ..metadata };
    Operation {
        name: String::new(),
        metadata: Some(any(&metadata)),
        done: true,
        result: Some(LroResult::Response(empty(kind, target))),
    }
}

/// The response of an operation whose result is not there (any more): of the right type, with its name at most.
fn empty(kind: Kind, target: String) -> prost_types::Any {
    match kind {
        Kind::CreateProject | Kind::DestroyProject => {
            any(&pb::Project { name: target, ..Default::default() })
        }
        Kind::CreateEnvironment | Kind::UpdateEnvironment | Kind::DestroyEnvironment => {
            any(&pb::Environment { name: target, ..Default::default() })
        }
        Kind::Run => any(&pb::Run::default()),
        Kind::Deploy => any(&pb::Deployment::default()),
    }
}

/// An operation.
pub(crate) async fn encode(app: &App, permit: &Permit, view: OperationView) -> Result<Operation> {
    let results = Results::of(app, permit, std::iter::once(&view.op)).await?;
    Ok(encoded(&view, &results))
}

/// Operations, in their order.
pub(crate) async fn encode_all(
    app: &App,
    permit: &Permit,
    views: Vec<OperationView>,
) -> Result<Vec<Operation>> {
    let results = Results::of(app, permit, views.iter().map(|view| &view.op)).await?;
    Ok(views.iter().map(|view| encoded(view, &results)).collect())
}

fn encoded(view: &OperationView, results: &Results) -> Operation {
    let state = state_of(&view.op);
    let result = match state {
        OperationState::Succeeded => Some(LroResult::Response(results.response(&view.op))),
        state if state.done() => Some(LroResult::Error(error(&view.op, state))),
        _ => None,
    };
    Operation { name: view.op.name.clone(), metadata: Some(any(&metadata(view))), done: state.done(), result }
}

/// What operations led to, read for all of them at once.
#[derive(Default)]
struct Results {
    projects: BTreeMap<String, rows::project::Model>,
    environments: BTreeMap<String, rows::EnvironmentView>,
    /// By operation.
    runs: BTreeMap<String, rows::run::Model>,
    /// By operation, in order of the workloads.
    made: BTreeMap<String, Vec<rows::deployment::Model>>,
    /// By name.
    running: BTreeMap<String, rows::deployment::Model>,
}

impl Results {
    async fn of(
        app: &App,
        permit: &Permit,
        operations: impl Iterator<Item = &operation::Model>,
    ) -> Result<Self> {
        let (mut projects, mut environments, mut runs, mut deploys) = (vec![], vec![], vec![], vec![]);
        for op in operations.filter(|op| op.state == OperationState::Succeeded.as_str()) {
            match kind_of(op) {
                Kind::CreateProject => projects.push(op.target.clone()),
                Kind::CreateEnvironment | Kind::UpdateEnvironment => environments.push(op.target.clone()),
                Kind::Run => runs.push(op.name.clone()),
                Kind::Deploy => deploys.push((op.name.clone(), op.target.clone())),
                Kind::DestroyProject | Kind::DestroyEnvironment => {}
            }
        }
        let made = deploys.iter().map(|(name, _)| name.clone()).collect();
        let made = app.db.deployments_of_operations(permit, made).await?;
        // The others found that the same artifact ran already.
        environments
            .extend(deploys.into_iter().filter(|(name, _)| !made.contains_key(name)).map(|(_, of)| of));
        let environments = app.db.environments_named(permit, environments).await?;
        let environments = app.db.with_workloads(permit, environments.into_values().collect()).await?;
        let running = environments.iter().filter_map(|view| view.deployments.first().cloned()).collect();
        let environments = environments.into_iter().map(|view| (view.row.name.clone(), view)).collect();
        Ok(Self {
            projects: app.db.projects_named(permit, projects).await?,
            runs: app.db.runs_of_operations(permit, runs).await?,
            running: app.db.deployments_named(permit, running).await?,
            environments,
            made,
        })
    }

    fn response(&self, op: &operation::Model) -> prost_types::Any {
        let kind = kind_of(op);
        let found = match kind {
            Kind::CreateProject => {
                self.projects.get(&op.target).map(|row| any(&convert::project(row.clone())))
            }
            Kind::CreateEnvironment | Kind::UpdateEnvironment => {
                self.environments.get(&op.target).map(|row| any(&convert::environment(row.clone())))
            }
            Kind::DestroyProject => gone(op).map(|row| any(&convert::project(row))),
            Kind::DestroyEnvironment => gone(op).map(|row| any(&convert::environment(row))),
            Kind::Run => self.runs.get(&op.name).map(|row| any(&convert::run(row.clone()))),
            Kind::Deploy => {
                let running = || self.running.get(self.environments.get(&op.target)?.deployments.first()?);
                let deployment =
                    self.made.get(&op.name).and_then(|made| asked_for(op, made)).or_else(running);
                deployment.map(|row| any(&convert::deployment(row.clone())))
            }
        };
        found.unwrap_or_else(|| empty(kind, op.target.clone()))
    }
}

/// Of the deployments that an operation made, that with the id which was asked for: the first where none was.
fn asked_for<'a>(
    op: &operation::Model,
    made: &'a [rows::deployment::Model],
) -> Option<&'a rows::deployment::Model> {
    let id = op.settings.get("deployment_id").and_then(Value::as_str).unwrap_or_default();
    made.iter().find(|deployment| names::last(&deployment.name) == id).or_else(|| made.first())
}

fn state_of(op: &operation::Model) -> OperationState {
    OperationState::parse(&op.state).unwrap_or(OperationState::Planned)
}

fn kind_of(op: &operation::Model) -> Kind {
    Kind::parse(&op.kind).unwrap_or(Kind::Run)
}

/// What went wrong, as far as it has come with undoing it.
fn error(op: &operation::Model, state: OperationState) -> rpc::Status {
    let error = op.error.clone().unwrap_or_default();
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (step, code, message) = (text("step"), text("code"), text("message"));
    let described = |what: &str| match step.as_str() {
        "" => format!("{what}: {message}"),
        step => format!("{what}: step `{step}`: {message}"),
    };
    let undone = if state.done() { "what was made is undone" } else { "what was made is being undone" };
    let (status, reason) = failure::of_operation(state, &text("reason"), &code);
    let message = match reason {
        "OPERATION_STUCK" => described("the operation is stuck and needs an operator"),
        "ARTIFACT_CHANGED" => described(&format!("what was planned with has changed, and {undone}")),
        "STEP_FAILED" => described(&format!("a step failed, and {undone}")),
        _ => message,
    };
    let known = reason_from_name(reason).unwrap_or(ErrorReason::Internal);
    let mut problem = Problem::new(audit::tonic_code(status), known, message);
    if !step.is_empty() {
        problem = problem.with("step", step);
    }
    if !code.is_empty() {
        problem = problem.with("driverCode", code);
    }
    for (name, detail) in error.get("details").and_then(Value::as_object).into_iter().flatten() {
        problem = problem.with(name, detail.as_str().unwrap_or_default());
    }
    problem.to_rpc_status()
}

fn metadata(view: &OperationView) -> pb::OperationMetadata {
    let OperationView { op, steps } = view;
    let over = |step: &&step::Model| matches!(step.state.as_str(), "DONE" | "UNDONE" | "SKIPPED" | "FAILED");
    let progress = match (op.end_time, steps.len()) {
        (Some(_), _) => 100,
        (None, 0) => 0,
        // All of it is done only when the operation is: a step that failed may be left to an operator.
        (None, all) => (steps.iter().filter(over).count() * 100 / all).min(99),
    };
    pb::OperationMetadata {
        state: state(&op.state).into(),
        action: op.action.clone(),
        target: op.target.clone(),
        plan: names::plan(&op.organization, &op.plan),
        plan_digest: op.plan_digest.clone(),
        validated_plan: None,
        approval: op.approval.clone(),
        requester: op.requester.clone(),
        steps: steps.iter().map(|step| self::step(&step_body(step))).collect(),
        progress_percent: i32::try_from(progress).unwrap_or(100),
        cancel_requested: op.cancel_requested,
        create_time: Some(to_timestamp(op.create_time)),
        start_time: op.start_time.map(to_timestamp),
        end_time: op.end_time.map(to_timestamp),
        error: op
            .error
            .as_ref()
            .filter(|_| state_of(op) != OperationState::Succeeded)
            .map(|_| error(op, state_of(op))),
    }
}

fn state(state: &str) -> pb::operation_metadata::State {
    pb::operation_metadata::State::from_str_name(&format!("STATE_{state}")).unwrap_or_default()
}

fn step(body: &Value) -> pb::OperationStep {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let time = |key: &str| {
        let micros = body.get(key).and_then(Value::as_i64)?;
        pavior_store::from_micros(micros).map(to_timestamp)
    };
    let error = body.get("error").filter(|error| error.is_object()).map(|error| {
        let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        step_failed(part("code"), part("message")).with("step", text("name")).to_rpc_status()
    });
    let attempts = body.get("attempt").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
    let (state, detail) = StepState::parse(&text("state")).map(step_state).unwrap_or_default();
    pb::OperationStep {
        step_id: text("name"),
        action: Action::parse(&text("action")).map(convert::action).unwrap_or_default().into(),
        resource: text("resource"),
        driver_id: text("driver"),
        state: state.into(),
        detail: detail.to_owned(),
        attempt_count: attempts.unwrap_or_default(),
        error,
        start_time: time("start_time"),
        end_time: time("end_time"),
    }
}

/// What an operation took down, as it was.
fn gone<M: serde::de::DeserializeOwned>(op: &operation::Model) -> Option<M> {
    serde_json::from_value(op.gone.clone()?).ok()
}

/// Where a step stands, as clients need to tell it apart, and as people may want to know.
fn step_state(state: StepState) -> (pb::operation_step::State, &'static str) {
    use pb::operation_step::State;
    match state {
        StepState::Blocked => (State::Pending, "waits for other steps"),
        StepState::Ready => (State::Pending, "waits for a worker"),
        StepState::Running => (State::Running, ""),
        StepState::Unknown => (State::Unknown, "waits for a worker that asks the driver"),
        StepState::Observing => (State::Unknown, ""),
        StepState::Done => (State::Succeeded, ""),
        StepState::Failed => (State::Failed, ""),
        StepState::UndoReady => (State::Undoing, "waits for a worker"),
        StepState::Undoing => (State::Undoing, ""),
        StepState::Undone => (State::Undone, ""),
        StepState::UndoStuck => (State::UndoFailed, ""),
        StepState::Skipped => (State::Skipped, ""),
    }
}

/// A driver's failure.
pub(crate) fn step_failed(code: &str, message: &str) -> Problem {
    Problem::new(audit::tonic_code(failure::of_driver(code)), ErrorReason::StepFailed, message)
        .with("driverCode", code)
}

/// A message of the stream.
pub(crate) async fn watched(
    app: &App,
    permit: &Permit,
    tokens: &StreamTokens,
    message: Message,
) -> Result<pb::WatchOperationResponse> {
    use pb::watch_operation_response::{Event, LogLine, log_line::Stream};
    let Message { cursor, time, what } = message;
    let event = match what {
        Happened::Operation(view) => Event::Operation(encode(app, permit, *view).await?),
        Happened::Step(body) => Event::Step(step(&body)),
        Happened::Line { step, attempt, stream, text } => {
            let stream = match stream.as_str() {
                "stdout" => Stream::Stdout,
                "stderr" => Stream::Stderr,
                _ => Stream::Driver,
            };
            Event::LogLine(LogLine { step_id: step, attempt, stream: stream.into(), text })
        }
        Happened::Bookmark => Event::Bookmark(StreamBookmark {}),
    };
    Ok(pb::WatchOperationResponse {
        resume_token: tokens.token(&cursor.write()),
        event_time: Some(to_timestamp(time)),
        event: Some(event),
    })
}

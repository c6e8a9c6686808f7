//! Operations as `google.longrunning` has them, and as the stream tells of them.

use pavior_proto::google::longrunning::{Operation, operation::Result as LroResult};
use pavior_proto::google::rpc;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::r#type::v1::StreamBookmark;
use pavior_proto::shape::Request as _;
use pavior_rpc::convert::to_timestamp;
use pavior_rpc::problem::{any, reason_from_name};
use pavior_rpc::stream::StreamTokens;
use pavior_rpc::{ErrorReason, Problem, audit};

use super::convert;
use crate::app::operation::OperationView;
use crate::app::response::{OperationAnswer, Response};
use crate::app::watch::{Message, WatchEvent};
use crate::app::{Answer, App, ChangeContext};
use crate::domain::failure::{Failure, FailureCode, FailureReason, StepFailure};
use crate::domain::names;
use crate::domain::operation::{self as domain, OperationState, StepProgress, StepState};
use crate::domain::plan::{Kind, Plan};
use crate::error::Result;

/// An answer to a change.
pub(crate) fn answer(app: &App, context: &ChangeContext, answer: Answer) -> Result<Operation> {
    match answer {
        Answer::Operation(answer) => Ok(encode(*answer)),
        Answer::Plan(plan) => Ok(validated(*plan)),
        Answer::Kept(_) => Err(Problem::internal("a plan was kept that nobody asked for").into()),
        Answer::Nothing => {
            // Named after the request, so that the same one gets the same answer.
            let id = uuid::Uuid::parse_str(&context.request_id).unwrap_or_else(|_| app.db.ids.uuid());
            Ok(Operation {
                name: names::operation(context.permit.organization(), &id),
                metadata: None,
                done: true,
                result: Some(LroResult::Response(match context.method == pb::DeleteProjectRequest::PATH {
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
        Kind::CreateProject | Kind::RepairProject | Kind::DestroyProject => {
            any(&pb::Project { name: target, ..Default::default() })
        }
        Kind::CreateEnvironment | Kind::UpdateEnvironment | Kind::DestroyEnvironment => {
            any(&pb::Environment { name: target, ..Default::default() })
        }
        Kind::Run => any(&pb::Run::default()),
        Kind::Deploy => any(&pb::Deployment::default()),
        Kind::DeleteOrphan => any(&()),
    }
}

/// An operation with what it led to.
pub(crate) fn encode(answer: OperationAnswer) -> Operation {
    let OperationAnswer { view, response: found } = answer;
    let (op, state) = (&view.op, view.op.state);
    let result = match state {
        OperationState::Succeeded => {
            Some(LroResult::Response(found.map_or_else(|| empty(op.kind, op.target.clone()), response)))
        }
        state if state.done() => Some(LroResult::Error(error(op))),
        _ => None,
    };
    Operation { name: op.name.clone(), metadata: Some(any(&metadata(&view))), done: state.done(), result }
}

fn response(response: Response) -> prost_types::Any {
    match response {
        Response::Project(project) => any(&convert::project(*project)),
        Response::Environment(view) => any(&convert::environment(*view)),
        Response::Run(run) => any(&convert::run(*run)),
        Response::Deployment(deployment) => any(&convert::deployment(*deployment)),
    }
}

/// What went wrong, as far as it has come with undoing it.
fn error(op: &domain::Operation) -> rpc::Status {
    let failure = op.error.clone().unwrap_or(Failure::UNTOLD);
    let (status, reason) = failure.told(op.state == OperationState::Stuck);
    let Failure { reason: _, step, code, message, details, before: _ } = failure;
    let described = |what: &str| match step.as_str() {
        "" => format!("{what}: {message}"),
        step => format!("{what}: step `{step}`: {message}"),
    };
    let undone = if op.state.done() { "what was made is undone" } else { "what was made is being undone" };
    let message = match reason {
        FailureReason::OperationStuck => described("the operation is stuck and needs an operator"),
        FailureReason::ArtifactChanged => {
            described(&format!("what was planned with has changed, and {undone}"))
        }
        FailureReason::StepFailed => described(&format!("a step failed, and {undone}")),
        _ => message,
    };
    let known = reason_from_name(reason.as_str()).unwrap_or(ErrorReason::Internal);
    let mut problem = Problem::new(audit::tonic_code(status), known, message);
    if !step.is_empty() {
        problem = problem.with("step", step);
    }
    if code != FailureCode::None {
        problem = problem.with("driverCode", code.as_str());
    }
    details.into_iter().fold(problem, |problem, (name, detail)| problem.with(&name, detail)).to_rpc_status()
}

fn metadata(view: &OperationView) -> pb::OperationMetadata {
    let OperationView { op, steps } = view;
    use StepState as S;
    let over = |step: &&domain::Step| matches!(step.state, S::Done | S::Undone | S::Skipped | S::Failed);
    let progress = match (op.end_time, steps.len()) {
        (Some(_), _) => 100,
        (None, 0) => 0,
        // All of it is done only when the operation is: a step that failed may be left to an operator.
        (None, all) => (steps.iter().filter(over).count() * 100 / all).min(99),
    };
    pb::OperationMetadata {
        state: convert::operation_state(op.state).into(),
        action: op.action.clone(),
        target: op.target.clone(),
        plan: names::plan(&op.organization, &op.plan),
        plan_digest: op.plan_digest.clone(),
        validated_plan: None,
        approval: op.approval.clone(),
        requester: op.requester.clone(),
        steps: steps.iter().cloned().map(StepProgress::from).map(step).collect(),
        progress_percent: i32::try_from(progress).unwrap_or(100),
        cancel_requested: op.cancel_requested,
        create_time: Some(to_timestamp(op.create_time)),
        start_time: op.start_time.map(to_timestamp),
        end_time: op.end_time.map(to_timestamp),
        error: op.error.as_ref().filter(|_| op.state != OperationState::Succeeded).map(|_| error(op)),
    }
}

fn step(step: StepProgress) -> pb::OperationStep {
    let StepProgress { name, action, resource, driver, state, attempt, error, start_time, end_time } = step;
    let failed = |StepFailure { code, message }| convert::step_failed(code, message).with("step", &name);
    let error = error.map(failed).map(|problem| problem.to_rpc_status());
    let (state, detail) = step_state(state);
    pb::OperationStep {
        step_id: name,
        action: convert::action(action).into(),
        resource,
        driver_id: driver,
        state: state.into(),
        detail: detail.to_owned(),
        attempt_count: attempt,
        error,
        start_time: start_time.map(to_timestamp),
        end_time: end_time.map(to_timestamp),
    }
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

/// A message of the stream.
pub(crate) fn watched(tokens: &StreamTokens, message: Message) -> pb::WatchOperationResponse {
    use pb::watch_operation_response::{Event, LogLine, log_line::Stream};
    let Message { cursor, time, what } = message;
    let event = match what {
        WatchEvent::Operation(answer) => Event::Operation(encode(*answer)),
        WatchEvent::Step(progress) => Event::Step(step(*progress)),
        WatchEvent::Line { step, attempt, stream, text } => {
            let stream = match stream.as_str() {
                "stdout" => Stream::Stdout,
                "stderr" => Stream::Stderr,
                _ => Stream::Driver,
            };
            Event::LogLine(LogLine { step_id: step, attempt, stream: stream.into(), text })
        }
        WatchEvent::Bookmark => Event::Bookmark(StreamBookmark {}),
    };
    pb::WatchOperationResponse {
        resume_token: tokens.token(&cursor.write()),
        event_time: Some(to_timestamp(time)),
        event: Some(event),
    }
}

//! Follows a long-running operation: states, steps and log lines as they happen.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use pavior_proto::google::longrunning::Operation;
use pavior_proto::google::rpc;
use pavior_proto::pavior::provisioning::v1::watch_operation_response::Event;
use pavior_proto::pavior::provisioning::v1::{
    OperationMetadata, OperationStep, WatchOperationRequest, operation_metadata, operation_step, plan,
};
use pavior_rpc::stream;
use tonic::{Code, Status};

use super::client::Client;
use super::exit::Exit;
use super::failure::{self, Ended};
use super::output;
use super::retry::{self, Patience};

/// Where progress goes: a spinner with lines above it at a terminal, plain lines elsewhere.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    quiet: bool,
    state: operation_metadata::State,
    running: BTreeMap<String, String>,
    last: BTreeMap<String, (i32, String, i32)>,
}

impl Progress {
    /// Shows nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let state = operation_metadata::State::Unspecified;
        Self { bar, quiet, state, running: BTreeMap::new(), last: BTreeMap::new() }
    }

    fn line(&self, text: String) {
        match (&self.bar, self.quiet) {
            (_, true) => {}
            (Some(bar), _) => bar.println(text),
            (None, _) => eprintln!("{text}"),
        }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Operation(operation) => {
                let state = metadata(&operation).unwrap_or_default().state();
                // A stream that is resumed may repeat the state.
                if std::mem::replace(&mut self.state, state) != state {
                    self.line(format!("  {}", output::state(state.as_str_name(), "STATE_")));
                }
            }
            Event::Step(step) => self.show_step(&step),
            Event::LogLine(line) => self.line(format!("    {} | {}", line.step_id, line.text.trim_end())),
            Event::Bookmark(_) => {}
        }
    }

    fn show_step(&mut self, step: &OperationStep) {
        let news = (step.state, step.detail.clone(), step.attempt_count);
        if self.last.insert(step.step_id.clone(), news.clone()) == Some(news) {
            return;
        }
        let state = step.state();
        let verb = match plan::Action::try_from(step.action).unwrap_or_default() {
            plan::Action::Create => "make",
            plan::Action::Update => "change",
            plan::Action::Replace => "replace",
            plan::Action::Delete => "take down",
            plan::Action::Run => "run",
            plan::Action::Noop | plan::Action::Unspecified => "look at",
        };
        if matches!(state, operation_step::State::Running | operation_step::State::Undoing) {
            self.running.insert(step.step_id.clone(), verb.to_owned());
        } else {
            self.running.remove(&step.step_id);
        }
        if state != operation_step::State::Pending {
            let error = step.error.as_ref().map(|e| format!(": {}", e.message)).unwrap_or_default();
            let mut shown = output::state(state.as_str_name(), "STATE_");
            if !step.detail.is_empty() {
                shown = format!("{shown}, {}", step.detail);
            }
            self.line(format!("  {verb} {} ({}): {shown}{error}", step.step_id, step.driver_id));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.running.keys().cloned().collect::<Vec<_>>().join(", "));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Reads an operation's metadata.
pub fn metadata(operation: &Operation) -> anyhow::Result<OperationMetadata> {
    let any = operation.metadata.as_ref().context("the operation has no metadata")?;
    Ok(any.to_msg::<OperationMetadata>()?)
}

/// How far an operation is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until it is done or stuck, or waits for people.
    Approval,
    /// Until it is done or stuck.
    End,
}

/// Follows an operation and returns it as it is then. Breaks in the stream are mended from the last resume token.
pub async fn follow(client: &Client, name: &str, until: Until, quiet: bool) -> anyhow::Result<Operation> {
    let mut progress = Progress::new(quiet);
    let mut resume_token = String::new();
    let mut last = None;
    let mut patience = Patience::after_an_answer();
    let followed = async {
        loop {
            let before = resume_token.clone();
            match watch(client, name, until, &mut resume_token, &mut last, &mut progress).await {
                Ok(()) => return Ok(()),
                Err(status) => {
                    if resume_token != before {
                        patience = Patience::after_an_answer();
                    }
                    patience.bear(status).await?;
                }
            }
        }
    };
    followed.await.map_err(|status: Status| given_up(status, &output::id(name)))?;
    last.context("the server sent nothing about the operation")
}

/// When the connection is gone for good, the operation is not.
fn given_up(status: Status, id: &str) -> anyhow::Error {
    let is_break = retry::is_break(&status);
    let error = anyhow::Error::from(status);
    match is_break {
        true => error.context(format!(
            "no longer watched; the operation goes on when the server is back: pavior op watch {id}"
        )),
        false => error,
    }
}

/// As [`follow`], until Ctrl-C: then only the watching ends, and that is said.
pub(crate) async fn follow_interruptibly(
    client: &Client,
    name: &str,
    until: Until,
    quiet: bool,
) -> anyhow::Result<Operation> {
    tokio::select! {
        operation = follow(client, name, until, quiet) => operation,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot listen for Ctrl-C")?;
            let id = output::id(name);
            Err(Ended {
                message: format!(
                    "stopped watching; the operation goes on\n\
                     follow it with: pavior op watch {id}\nstop it with: pavior op cancel {id}"
                ),
                exit: Exit::Interrupted,
            }
            .into())
        }
    }
}

/// That an operation is not for the caller to read, as the end of a command whose request was `taken`; any other error as
/// it is. Whoever may ask for something need not be allowed to read operations: it goes on all the same.
pub(super) fn unless_unseen(error: anyhow::Error, taken: &str, name: &str) -> anyhow::Error {
    let status = error.chain().find_map(|cause| cause.downcast_ref::<Status>());
    let Some(status) = status.filter(|status| failure::refuses_caller(status)) else { return error };
    let message = format!(
        "{taken}: {name}\nhow it ends cannot be followed: {}\nwhoever may read it follows it with: pavior op \
         watch {}",
        status.message(),
        output::id(name)
    );
    Ended { message, exit: Exit::Accepted }.into()
}

async fn watch(
    client: &Client,
    name: &str,
    until: Until,
    resume_token: &mut String,
    last: &mut Option<Operation>,
    progress: &mut Progress,
) -> Result<(), Status> {
    let request = WatchOperationRequest { name: name.to_owned(), start: stream::resume(resume_token) };
    let mut stream = client.operation_service().watch_operation(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        *resume_token = response.resume_token;
        let Some(event) = response.event else { continue };
        if let Event::Operation(operation) = &event {
            *last = Some(operation.clone());
        }
        progress.show(event);
        if until == Until::Approval && progress.state == operation_metadata::State::AwaitingApproval {
            break;
        }
    }
    Ok(())
}

/// Whether nothing more happens to an operation by itself: it is done, or stuck.
pub fn rests(operation: &Operation) -> bool {
    operation.done || failure(operation).is_some()
}

/// Why an operation did not, or does not, come to a good end: it is done without one, or is stuck.
pub fn failure(operation: &Operation) -> Option<rpc::Status> {
    use pavior_proto::google::longrunning::operation::Result as Outcome;
    match &operation.result {
        Some(Outcome::Error(error)) => Some(error.clone()),
        Some(Outcome::Response(_)) => None,
        None => {
            let metadata = metadata(operation).ok()?;
            let is_stuck = metadata.state() == operation_metadata::State::Stuck;
            is_stuck.then(|| metadata.error.unwrap_or_default())
        }
    }
}

/// What is wrong with an operation: how it ended otherwise than well, or what keeps it from going on.
pub(crate) fn trouble(operation: &Operation) -> Option<rpc::Status> {
    let going_on =
        || metadata(operation).ok().filter(|_| !operation.done).and_then(|metadata| metadata.error);
    failure(operation).or_else(going_on)
}

/// The same in a few words; empty for one that does well.
pub(crate) fn outcome(operation: &Operation) -> String {
    use pavior_rpc::ErrorReason;
    let Some(status) = trouble(operation) else { return String::new() };
    let error = pavior_rpc::problem::from_rpc_status(&status);
    let step = error.metadata.get("step").map(String::as_str).unwrap_or_default();
    let with_step = |what: &str| match step {
        "" => what.to_owned(),
        step => format!("{what}: {step}"),
    };
    if error.is(ErrorReason::Cancelled) {
        "cancelled".to_owned()
    } else if error.is(ErrorReason::OperationStuck) {
        with_step("stuck")
    } else if error.is(ErrorReason::StepFailed) || error.is(ErrorReason::ArtifactChanged) {
        with_step("failed")
    } else {
        error.message.clone()
    }
}

/// Turns how an operation came to rest into the command's end: nothing to say, waiting for approval, or the error.
pub fn conclude(operation: &Operation) -> anyhow::Result<()> {
    let metadata = metadata(operation)?;
    if metadata.state() == operation_metadata::State::AwaitingApproval && !operation.done {
        return Err(Ended {
            message: format!(
                "waits for approval: pavior approve {}\nfollow it with: pavior op watch {}",
                output::id(&metadata.approval),
                output::id(&operation.name)
            ),
            exit: Exit::AwaitingApproval,
        }
        .into());
    }
    let Some(error) = failure(operation) else { return Ok(()) };
    // The status goes on as the server gave it, details included, so that it reads like any other error.
    let details = prost::Message::encode_to_vec(&error);
    Err(Status::with_details(Code::from_i32(error.code), error.message.clone(), details.into()).into())
}

#[cfg(test)]
mod tests {
    use pavior_proto::google::longrunning::operation::Result as Outcome;
    use pavior_rpc::{ErrorReason, Problem};

    use super::*;

    #[test]
    fn what_was_accepted_and_may_not_be_read_is_not_called_refused() {
        let name = "organizations/acme/operations/1";
        let end = |code, reason| {
            let status = Status::from(Problem::new(code, reason, "`bob` may not"));
            let error =
                unless_unseen(anyhow::Error::from(status).context("watching"), "accepted, and goes on", name);
            (failure::exit_of(&error), failure::describe(&error))
        };
        for code in [Code::PermissionDenied, Code::Unauthenticated] {
            let (exit, said) = end(code, ErrorReason::AccessDenied);
            assert_eq!(exit, Exit::Accepted);
            for part in
                ["accepted, and goes on: organizations/acme/operations/1", "`bob` may not", "op watch 1"]
            {
                assert!(said.contains(part) && !said.starts_with("error"), "{part}: {said}");
            }
        }
        // How it ended is its end, whoever said no.
        assert_eq!(end(Code::PermissionDenied, ErrorReason::NotApproved).0, Exit::Forbidden);
        assert_eq!(end(Code::Unavailable, ErrorReason::DependencyUnavailable).0, Exit::Unavailable);
    }

    #[test]
    fn how_an_operation_ended_is_said_in_a_few_words() {
        let ended = |problem: Problem| {
            let result = Some(Outcome::Error(problem.to_rpc_status()));
            outcome(&Operation { done: true, result, ..Default::default() })
        };
        let failed = Problem::new(Code::FailedPrecondition, ErrorReason::StepFailed, "a step failed: no");
        assert_eq!(ended(failed.with("step", "dev.database")), "failed: dev.database");
        assert_eq!(ended(Problem::new(Code::Cancelled, ErrorReason::Cancelled, "by x")), "cancelled");
        let stuck = Problem::new(Code::FailedPrecondition, ErrorReason::OperationStuck, "no");
        let metadata = OperationMetadata {
            state: operation_metadata::State::Stuck.into(),
            error: Some(stuck.to_rpc_status()),
            ..Default::default()
        };
        let with = |metadata: &OperationMetadata| {
            let metadata = prost_types::Any::from_msg(metadata).ok();
            Operation { metadata, ..Default::default() }
        };
        let stuck = with(&metadata);
        assert_eq!(outcome(&stuck), "stuck", "although it is not done");
        let status = conclude(&stuck).unwrap_err().downcast::<Status>().unwrap();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "no"));
        let away = "not begun yet: policy is over an older copy of its database";
        let waits = Problem::new(Code::Unavailable, ErrorReason::RestoreNeeded, away).to_rpc_status();
        let state = operation_metadata::State::Checking.into();
        let waits = with(&OperationMetadata { state, error: Some(waits), ..Default::default() });
        assert_eq!(outcome(&waits), away);
        assert!(!rests(&waits));
        conclude(&waits).unwrap();
        let denied = "denied by vera: not on a Friday";
        assert_eq!(ended(Problem::new(Code::PermissionDenied, ErrorReason::NotApproved, denied)), denied);
        assert_eq!(outcome(&Operation::default()), "");
    }
}

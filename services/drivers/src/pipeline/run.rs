//! One run: checkout, steps, artifacts, and a workspace that is gone afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pavior_driver::{CallContext, Failure, FailureCode, LogStream, Progress, Redactor, Sink};
use serde_json::{Value, json};

use super::PipelineDriver;
use super::artifacts::{StoreLock, collect};
use super::declared::{Artifact, Script, Step};
use super::report::Report;
use super::workspace::Workspace;
use crate::child::{self, StopSignal, Supervised, Work};

/// Everything that one run needs.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) repository: PathBuf,
    pub(super) commit: String,
    pub(super) steps: Vec<Step>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) store: PathBuf,
    pub(super) store_lock: StoreLock,
    pub(super) redactor: Redactor,
}

/// How often a sign of life goes to the engine.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why a step was stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Cancelled,
    Timeout,
    ClaimLost,
}

/// What keeping a line costs besides its bytes, so that empty ones are not for nothing.
const LINE_COST: usize = 64;

struct Log<'a> {
    sink: &'a dyn Sink,
    left: usize,
}

impl Log<'_> {
    /// A line without secrets.
    async fn line(&mut self, stream: LogStream, line: &[u8]) {
        if self.left == 0 {
            return;
        }
        self.left = self.left.saturating_sub(line.len() + LINE_COST);
        self.sink.log(stream, line).await;
        if self.left == 0 {
            self.sink.log(LogStream::System, b"the log is longer than allowed; the rest is dropped\n").await;
        }
    }
}

impl PipelineDriver {
    /// Runs everything and removes the workspace in any case: when this is dropped, as soon as what runs in it ended.
    pub(super) async fn run(
        &self,
        context: &CallContext,
        run: &Run,
        sink: &dyn Sink,
    ) -> Result<Value, Failure> {
        let cancelled = || Failure::new(FailureCode::Cancelled, "cancelled before it began");
        let workspace = tokio::select! {
            workspace = self.workspaces.take(&run.id) => Arc::new(workspace?),
            () = context.cancel.cancelled() => return Err(cancelled()),
        };
        let result = self.run_in(&workspace, context, run, sink).await;
        workspace.leave().await;
        result
    }

    async fn run_in(
        &self,
        workspace: &Arc<Workspace>,
        context: &CallContext,
        run: &Run,
        sink: &dyn Sink,
    ) -> Result<Value, Failure> {
        let source = workspace.path.join("src");
        sink.progress(Progress::message(format!("checking out `{}`", run.commit))).await;
        let git = self.git.holding(Arc::clone(workspace) as _);
        git.checkout(&run.repository, &run.commit, &source).await?;
        let mut log = Log { sink, left: self.config.max_log_bytes };
        let mut report = Report::new(run.steps.iter().map(|step| step.name.as_str()));
        for (index, step) in run.steps.iter().enumerate() {
            let percent = u8::try_from(index * 100 / run.steps.len().max(1)).ok();
            sink.progress(Progress { message: format!("step `{}`", step.name), percent }).await;
            report.begun(index);
            sink.checkpoint(report.to_json()).await?;
            let ended = self.step(workspace, context, run, step, &mut log).await;
            report.ended(index, &ended);
            if !matches!(ended, Ok(0)) {
                // What is known of the steps outlives the failure. Without the claim it is no longer asked for.
                let _ = sink.checkpoint(report.to_json()).await;
            }
            let code = ended?;
            if code != 0 {
                let message = format!("step `{}` failed with exit code {code}", step.name);
                return Err(Failure::new(FailureCode::WorkFailed, message));
            }
        }
        let (wanted, store, store_lock) = (run.artifacts.clone(), run.store.clone(), run.store_lock.clone());
        let held = Arc::clone(workspace);
        let collected = move || {
            let _held = held;
            collect(&store_lock, &source, &store, &wanted)
        };
        let artifacts = tokio::task::spawn_blocking(collected)
            .await
            .map_err(|_| Failure::new(FailureCode::Internal, "collecting artifacts broke off"))??;
        let mut outputs = report.to_json();
        outputs["run"] = run.id.clone().into();
        outputs["commit"] = run.commit.clone().into();
        outputs["artifacts"] = json!(artifacts);
        Ok(outputs)
    }

    fn work(&self, workspace: &Arc<Workspace>, run: &Run, step: &Step) -> Work {
        let command: Vec<OsString> = match &step.run {
            Script::Shell(script) => ["/bin/sh", "-eu", "-c", script].map(OsString::from).to_vec(),
            Script::Command(words) => words.iter().map(OsString::from).collect(),
        };
        let mut environment = run.environment.clone();
        for (name, value) in &step.environment.0 {
            environment.insert(name.clone(), value.clone());
        }
        Work {
            command,
            environment,
            directory: workspace.path.join("src"),
            status_file: Some(workspace.status.clone()),
            grace: self.config.grace,
            redactor: run.redactor.clone(),
            holds: Some(Arc::clone(workspace) as _),
        }
    }

    async fn step(
        &self,
        workspace: &Arc<Workspace>,
        context: &CallContext,
        run: &Run,
        step: &Step,
        log: &mut Log<'_>,
    ) -> Result<i32, Failure> {
        let wanted = step.timeout.map_or(self.config.step_timeout, |span| span.0);
        let timeout = wanted.min(self.config.max_step_timeout);
        let title = run.redactor.text(&format!("step `{}`\n", step.name));
        log.line(LogStream::System, title.as_bytes()).await;
        let (mut child, mut lines) =
            child::spawn(&self.shim, &self.work(workspace, run, step)).map_err(|error| {
                tracing::error!(error = %error, "the shim cannot be started");
                Failure::new(FailureCode::Internal, "the step cannot be started")
            })?;
        let deadline = tokio::time::sleep(timeout);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut stopped: Option<Stop> = None;
        tokio::pin!(deadline);
        loop {
            let stop = tokio::select! {
                line = lines.recv() => match line {
                    Some((stream, bytes)) => {
                        log.line(stream, &bytes).await;
                        continue;
                    }
                    None => break,
                },
                () = &mut deadline, if stopped.is_none() => Stop::Timeout,
                () = context.cancel.cancelled(), if stopped.is_none() => Stop::Cancelled,
                _ = heartbeat.tick(), if stopped.is_none() => match log.sink.heartbeat().await {
                    Ok(()) => continue,
                    Err(_) => Stop::ClaimLost,
                },
            };
            stopped = Some(stop);
            child
                .signal(if stop == Stop::ClaimLost { StopSignal::Kill } else { StopSignal::Interrupt })
                .await;
        }
        finish(&mut child, step, stopped, timeout).await
    }
}

async fn finish(
    child: &mut Supervised,
    step: &Step,
    stopped: Option<Stop>,
    timeout: Duration,
) -> Result<i32, Failure> {
    let status = child.wait().await.map_err(|_| Failure::new(FailureCode::Internal, "the step was lost"))?;
    let name = &step.name;
    match stopped {
        None => Ok(status.code().unwrap_or(-1)),
        Some(Stop::Cancelled) => {
            Err(Failure::new(FailureCode::Cancelled, format!("step `{name}` was cancelled")))
        }
        Some(Stop::Timeout) => {
            let message = format!("step `{name}` took longer than {timeout:?}");
            Err(Failure::new(FailureCode::Timeout, message))
        }
        Some(Stop::ClaimLost) => Err(Failure::new(FailureCode::Fenced, "the claim on this run is lost")),
    }
}

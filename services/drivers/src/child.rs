//! Work under the shim, seen from the supervisor.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pavior_driver::{LogStream, RedactedStream, Redactor};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::files;
use crate::shim::start_time;

/// Longest log line; a longer one is split, after secrets are taken out of it.
const MAX_LINE: usize = 8 * 1024;
/// Most bytes that are kept of what a command says.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// How long what was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to run, and how.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) command: Vec<OsString>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) directory: PathBuf,
    pub(crate) status_file: Option<PathBuf>,
    /// From the first signal to the kill.
    pub(crate) grace: Duration,
    /// For its output.
    pub(crate) redactor: Redactor,
    /// Is not given up before all of the work has ended, whoever waits for that.
    pub(crate) holds: Option<Arc<dyn Any + Send + Sync>>,
}

/// A line of output without secrets.
pub(crate) type Line = (LogStream, Vec<u8>);

/// The shim's process, which does not end before its work has.
struct Shim {
    child: Option<Child>,
    holds: Option<Arc<dyn Any + Send + Sync>>,
}

impl Shim {
    fn new(child: Child, work: &Work) -> Self {
        Self { child: Some(child), holds: work.holds.clone() }
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let child = self.child.as_mut().ok_or_else(|| std::io::Error::other("waited for already"))?;
        let status = child.wait().await?;
        (self.child, self.holds) = (None, None);
        Ok(status)
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // What it holds is given up when it has ended. With the runtime the whole process ends.
        if let (Some(mut child), Ok(runtime)) = (self.child.take(), Handle::try_current()) {
            let held = self.holds.take();
            runtime.spawn(async move {
                if let Err(error) = child.wait().await {
                    tracing::error!(%error, "the shim is lost");
                }
                drop(held);
            });
        }
    }
}

/// Running work. Dropping it closes the pipe, and the shim ends the whole group.
pub(crate) struct Supervised {
    // In this order they are dropped.
    control: Option<ChildStdin>,
    shim: Shim,
}

/// How to ask work to end; after the grace time it is killed in any case.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StopSignal {
    Interrupt,
    Terminate,
    Kill,
}

/// Starts work under the shim. Its output comes as lines through the channel, which closes when all of it ended.
pub(crate) fn spawn(shim: &[OsString], work: &Work) -> std::io::Result<(Supervised, mpsc::Receiver<Line>)> {
    let mut child = command(shim, work, "stdin")?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let control = child.stdin.take();
    let (sender, lines) = mpsc::channel(64);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(pump(stdout, LogStream::Stdout, work.redactor.stream(), sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(pump(stderr, LogStream::Stderr, work.redactor.stream(), sender));
    }
    Ok((Supervised { control, shim: Shim::new(child, work) }, lines))
}

/// How work ended, and what it said.
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Runs work under the shim to its end, with nothing on its input. Of what it says the first bytes are kept.
pub(crate) async fn output(shim: &[OsString], work: &Work) -> std::io::Result<Output> {
    let mut child = command(shim, work, "stdin")?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (control, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut running = Supervised { control, shim: Shim::new(child, work) };
    let (stdout, stderr) = tokio::try_join!(first_bytes(stdout), first_bytes(stderr))?;
    let code = running.wait().await?.code();
    Ok(Output { code, stdout, stderr })
}

async fn first_bytes(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// Work that is talked to: its input and its output. Dropping it closes the pipe, and the shim ends the whole group.
pub(crate) struct Conversation {
    // In this order they are dropped.
    _control: std::io::PipeWriter,
    _shim: Shim,
}

/// Starts work under the shim that reads an input and whose output is not a log.
pub(crate) fn converse(
    shim: &[OsString],
    work: &Work,
) -> std::io::Result<(Conversation, ChildStdin, ChildStdout)> {
    let (heard, control) = std::io::pipe()?;
    let mut child =
        command(shim, work, "stderr")?.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(heard).spawn()?;
    let gone = || std::io::Error::other("no pipe to the work");
    let input = child.stdin.take().ok_or_else(gone)?;
    let output = child.stdout.take().ok_or_else(gone)?;
    Ok((Conversation { _control: control, _shim: Shim::new(child, work) }, input, output))
}

/// The shim's command, with the place of the pipe by which it is told.
fn command(shim: &[OsString], work: &Work, control: &str) -> std::io::Result<Command> {
    let Some((program, first)) = shim.split_first() else {
        return Err(std::io::Error::other("no shim is configured"));
    };
    let status = work.status_file.as_deref().unwrap_or(Path::new("-"));
    let mut command = Command::new(program);
    command
        .args(first)
        .arg("supervise")
        .arg(control)
        .arg(work.grace.as_millis().to_string())
        .arg(status)
        .arg(shim.len().to_string())
        .args(shim)
        .args(&work.command)
        .env_clear()
        .envs(&work.environment)
        .current_dir(&work.directory)
        // Its own group: an interrupt typed at the terminal goes to the supervisor, which then stops work in order.
        .process_group(0);
    Ok(command)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    stream: LogStream,
    mut redacted: RedactedStream,
    to: mpsc::Sender<Line>,
) {
    let mut buffer = vec![0; MAX_LINE];
    let mut text = Vec::new();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        text.extend(redacted.push(&buffer[..read]));
        while let Some(end) = end_of_line(&text) {
            let rest = text.split_off(end);
            if to.send((stream, std::mem::replace(&mut text, rest))).await.is_err() {
                // Nobody listens; keep reading, so that the work does not block on a full pipe.
                let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
                return;
            }
        }
    }
    text.extend(redacted.finish());
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    while let Some(end) = end_of_line(&text) {
        let rest = text.split_off(end);
        if to.send((stream, std::mem::replace(&mut text, rest))).await.is_err() {
            return;
        }
    }
}

/// Behind the first line, if there is a whole one or more than one may be.
fn end_of_line(text: &[u8]) -> Option<usize> {
    let line = &text[..text.len().min(MAX_LINE)];
    let whole = line.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
    whole.or_else(|| (line.len() == MAX_LINE).then_some(MAX_LINE))
}

impl Supervised {
    /// Asks the whole group to end.
    pub(crate) async fn signal(&mut self, how: StopSignal) {
        let byte = match how {
            StopSignal::Interrupt => b"i",
            StopSignal::Terminate => b"t",
            StopSignal::Kill => b"k",
        };
        if let Some(control) = &mut self.control {
            // An error means that the shim has ended already.
            let _ = control.write_all(byte).await;
            let _ = control.flush().await;
        }
    }

    /// Waits for the work and everything it left behind.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        // `Child::wait` would close the control pipe if it still held it, so it was taken out before.
        self.shim.wait().await
    }
}

/// One process for good: its id and when it started.
type Process = (u32, u64);

/// The shim and its work, as the shim wrote them.
fn read_status(path: &Path) -> Option<(Process, Option<Process>)> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let mut process = || Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?));
    Some((process()?, process()))
}

/// The process id of the work that a status file tells of.
pub(crate) fn pid_of_work(status: &Path) -> Option<u32> {
    read_status(status)?.1.map(|(pid, _)| pid)
}

/// Waits until the work of an earlier supervisor is gone with all that it started; its shim ends it, and after
/// `patience` we do. False when it does not end.
pub(crate) async fn gone(status: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let mut killed = false;
    // Read again each time: the shim may not have started its work yet.
    while let Some((shim, work)) = read_status(status) {
        let runs = |(pid, start): Process| start_time(pid) == Some(start);
        if !runs(shim) && !work.is_some_and(runs) {
            files::remove(status).unwrap_or_default();
            return true;
        }
        if Instant::now() > deadline && !killed {
            killed = true;
            let group = work.and_then(|(pid, _)| i32::try_from(pid).ok()).and_then(Pid::from_raw);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
        }
        if Instant::now() > deadline + PATIENCE {
            tracing::error!(?work, "old work does not end");
            return false;
        }
        // It is no child of this process, so that nothing tells when it ends.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

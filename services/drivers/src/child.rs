//! Work under the shim, seen from the supervisor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pavior_driver::{LogStream, RedactedStream, Redactor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// Longest log line; a longer one is split, after secrets are taken out of it.
const MAX_LINE: usize = 8 * 1024;

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
}

/// A line of output without secrets.
pub(crate) type Line = (LogStream, Vec<u8>);

/// Running work. Dropping it closes the pipe, and the shim ends the whole group.
pub(crate) struct Supervised {
    child: Child,
    control: Option<ChildStdin>,
}

/// How to ask work to end; after the grace time it is killed in any case.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
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
    Ok((Supervised { child, control }, lines))
}

/// Work that is talked to: its input and its output. Dropping it closes the pipe, and the shim ends the whole group.
pub(crate) struct Conversation {
    _child: Child,
    _control: std::io::PipeWriter,
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
    Ok((Conversation { _child: child, _control: control }, input, output))
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
    pub(crate) async fn ask(&mut self, how: Ask) {
        let byte = match how {
            Ask::Interrupt => b"i",
            Ask::Terminate => b"t",
            Ask::Kill => b"k",
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
        self.child.wait().await
    }
}

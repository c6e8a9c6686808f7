//! Work under the shim, seen from the supervisor.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pavior_driver::LogStream;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

/// Longest log line; a longer one is split.
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
}

/// A line of output.
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
    let Some((program, first)) = shim.split_first() else {
        return Err(std::io::Error::other("no shim is configured"));
    };
    let status = work.status_file.as_deref().unwrap_or(Path::new("-"));
    let mut child = Command::new(program)
        .args(first)
        .arg("supervise")
        .arg(work.grace.as_millis().to_string())
        .arg(status)
        .arg(shim.len().to_string())
        .args(shim)
        .args(&work.command)
        .env_clear()
        .envs(&work.environment)
        .current_dir(&work.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its own group: an interrupt typed at the terminal goes to the supervisor, which then stops work in order.
        .process_group(0)
        .spawn()?;
    let control = child.stdin.take();
    let (sender, lines) = mpsc::channel(64);
    if let Some(stdout) = child.stdout.take() {
        tokio::spawn(pump(stdout, LogStream::Stdout, sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(pump(stderr, LogStream::Stderr, sender));
    }
    Ok((Supervised { child, control }, lines))
}

async fn pump(from: impl AsyncRead + Unpin, stream: LogStream, to: mpsc::Sender<Line>) {
    let mut reader = BufReader::with_capacity(MAX_LINE, from);
    let mut line = Vec::new();
    while let Ok(available) = reader.fill_buf().await {
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let take = end.unwrap_or(available.len()).min(MAX_LINE);
        line.extend_from_slice(&available[..take]);
        reader.consume(take);
        if (end == Some(take) || line.len() >= MAX_LINE)
            && to.send((stream, std::mem::take(&mut line))).await.is_err()
        {
            // Nobody listens; keep reading, so that the work does not block on a full pipe.
            let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
            return;
        }
    }
    if !line.is_empty() {
        line.push(b'\n');
        let _ = to.send((stream, line)).await;
    }
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

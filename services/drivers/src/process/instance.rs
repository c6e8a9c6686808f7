//! One supervised workload: started, restarted with backoff when it crashes, stopped when told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::port::Port;
use super::release::Used;
use crate::child::{self, Line, StopSignal, Supervised, Work};
use crate::config::ProcessConfig;
use crate::files;

/// After this long without a crash the backoff begins anew.
const STEADY: Duration = Duration::from_secs(30);
/// How long one health request may take.
const PROBE: Duration = Duration::from_secs(2);

/// Where a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Live {
    Starting,
    Up { pid: u32 },
    Crashed { message: String },
    Stopped,
}

/// How it is run.
pub(super) struct Launch {
    pub(super) shim: Vec<OsString>,
    pub(super) work: Work,
    pub(super) status: PathBuf,
    pub(super) log: PathBuf,
    pub(super) port: Port,
    /// What must be as it was deployed, at each start.
    pub(super) used: Used,
    pub(super) config: ProcessConfig,
}

/// Sees how a workload does.
#[derive(Clone)]
pub(super) struct Watcher {
    port: u16,
    live: watch::Receiver<Live>,
}

/// A workload that is being supervised. Dropping it ends the process.
pub(super) struct Instance {
    pub(super) port: u16,
    live: watch::Receiver<Live>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Instance {
    pub(super) fn start(launch: Launch) -> Self {
        let (sender, live) = watch::channel(Live::Starting);
        let stop = CancellationToken::new();
        let port = launch.port.number;
        let task = tokio::spawn(supervise(launch, sender, stop.clone()));
        Self { port, live, stop, task }
    }

    pub(super) fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Returns when the process and all it started are gone.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        if (&mut self.task).await.is_err() {
            tracing::error!("the supervision of a workload broke off");
        }
    }

    pub(super) fn watcher(&self) -> Watcher {
        Watcher { port: self.port, live: self.live.clone() }
    }
}

impl Watcher {
    /// Where it is; one that is being started may take some time for it.
    pub(super) async fn begun(&mut self, within: Duration) -> Live {
        let begun = self.live.wait_for(|live| *live != Live::Starting);
        // In time or not, and also when nobody supervises it any more: what was seen last.
        let _ = tokio::time::timeout(within, begun).await.map(drop);
        self.live.borrow().clone()
    }

    /// Waits until it answers, has crashed, or the time is over.
    pub(super) async fn healthy(&mut self, path: Option<&str>, within: Duration) -> Result<u32, String> {
        let deadline = Instant::now() + within;
        let mut wait = Duration::from_millis(15);
        loop {
            let live = self.live.borrow().clone();
            match live {
                Live::Up { pid } if probe(self.port, path).await => return Ok(pid),
                Live::Crashed { message } => return Err(message),
                Live::Stopped => return Err("it was stopped".to_owned()),
                Live::Up { .. } | Live::Starting => {}
            }
            if Instant::now() > deadline {
                let what = path.unwrap_or("its port");
                return Err(format!("`{what}` did not answer within {within:?}"));
            }
            // A change of state ends the wait early.
            let _ = tokio::time::timeout(wait, self.live.changed()).await;
            wait = (wait * 2).min(Duration::from_millis(200));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Whether the port answers: with an open connection, or with 2xx or 3xx to a GET of `path`.
pub(super) async fn probe(port: u16, path: Option<&str>) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let Some(path) = path else { return Ok(true) };
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0_u8; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<bool, std::io::Error>(answer.starts_with(b"HTTP/1.") && matches!(answer[9], b'2' | b'3'))
    };
    matches!(tokio::time::timeout(PROBE, ask).await, Ok(Ok(true)))
}

async fn supervise(launch: Launch, live: watch::Sender<Live>, stop: CancellationToken) {
    let mut log = Log { path: launch.log.clone(), limit: launch.config.max_log_bytes };
    let mut backoff = launch.config.min_backoff;
    loop {
        let started = Instant::now();
        let message = match launch.used.verify().await {
            Ok(()) => live_once(&launch, &mut log, &live, &stop).await,
            Err(failure) => format!("is not started: {}", failure.message),
        };
        if stop.is_cancelled() {
            break;
        }
        log.write(format!("-- {message}\n").as_bytes()).await;
        live.send_replace(Live::Crashed { message });
        if started.elapsed() > STEADY {
            backoff = launch.config.min_backoff;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = stop.cancelled() => break,
        }
        backoff = (backoff * 2).min(launch.config.max_backoff);
        live.send_replace(Live::Starting);
    }
    live.send_replace(Live::Stopped);
}

/// One life of the process; says how it ended.
async fn live_once(
    launch: &Launch,
    log: &mut Log,
    live: &watch::Sender<Live>,
    stop: &CancellationToken,
) -> String {
    match child::spawn(&launch.shim, &launch.work) {
        Ok((mut process, mut lines)) => {
            let status = attend(launch, &mut process, &mut lines, log, live, stop).await;
            files::remove(&launch.status).unwrap_or_default();
            status
        }
        Err(error) => format!("cannot be started: {}", error.kind()),
    }
}

/// Attends the process until it and its output have ended.
async fn attend(
    launch: &Launch,
    process: &mut Supervised,
    lines: &mut tokio::sync::mpsc::Receiver<Line>,
    log: &mut Log,
    live: &watch::Sender<Live>,
    stop: &CancellationToken,
) -> String {
    let mut asked = false;
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let mut known = false;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some((_, bytes)) => log.write(&bytes).await,
                None => break,
            },
            _ = look.tick(), if !known => {
                if let Some(pid) = child::pid_of_work(&launch.status) {
                    known = true;
                    live.send_replace(Live::Up { pid });
                }
            }
            () = stop.cancelled(), if !asked => {
                asked = true;
                process.signal(StopSignal::Terminate).await;
            }
        }
    }
    match process.wait().await {
        Ok(status) => format!("ended with exit code {}", status.code().unwrap_or(-1)),
        Err(error) => format!("was lost: {}", error.kind()),
    }
}

/// A log file of bounded size with one older one. What is written has no secrets in it.
struct Log {
    path: PathBuf,
    limit: u64,
}

impl Log {
    async fn write(&mut self, line: &[u8]) {
        if let Err(error) = self.try_write(line).await {
            tracing::warn!(error = %error, "a workload's log cannot be written");
        }
    }

    async fn try_write(&self, line: &[u8]) -> std::io::Result<()> {
        let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(&self.path).await?;
        file.write_all(line).await?;
        file.flush().await?;
        if file.metadata().await?.len() > self.limit {
            tokio::fs::rename(&self.path, self.path.with_extension("log.1")).await?;
        }
        Ok(())
    }
}

/// The last lines of a log, and of them the last bytes when they have more than `most`.
pub(super) fn tail(path: &Path, lines: usize, most: usize) -> String {
    let mut text = String::new();
    for file in [path.with_extension("log.1"), path.to_owned()] {
        text.push_str(&String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()));
    }
    let all: Vec<&str> = text.lines().collect();
    let last = all[all.len().saturating_sub(lines)..].join("\n");
    last[last.ceil_char_boundary(last.len().saturating_sub(most))..].to_owned()
}

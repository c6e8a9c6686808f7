//! The process between a supervisor and the work it started, so that no work outlives its supervisor.
//!
//! The supervisor holds a pipe to the shim's standard input; work that has an input of its own gets the standard input,
//! and the pipe is on standard error instead. One byte asks for a signal to the whole process group
//! (`i` interrupt, `t` terminate, `k` kill); the end of the pipe, which also comes when the supervisor is killed with
//! signal 9, means terminate, then kill after the grace time. When the work's main process ends, whatever it left
//! behind is killed, daemons that left the group included: the shim is their reaper.
//!
//! Two stages: `supervise` watches, and starts `exec`, which asks the kernel for its own death should the shim die,
//! and becomes the work. Exit code: the work's, or 128 and the signal's number.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How long what was killed may take to end before it is killed once more.
const KILLED: Duration = Duration::from_secs(3_600);
const USAGE: u8 = 125;
const CANNOT_RUN: u8 = 127;

/// Whether a work's exit code says that it was not run at all. Git has no such code of its own.
#[must_use]
pub(crate) fn is_own_failure(code: i32) -> bool {
    [USAGE, CANNOT_RUN].contains(&u8::try_from(code).unwrap_or_default())
}

/// Runs the shim with the arguments behind its own command. Never returns while work is alive.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let stage = args.next();
    let result = match stage.as_deref().and_then(OsStr::to_str) {
        Some("supervise") => Options::parse(&mut args).and_then(|options| supervise(&options)),
        Some("exec") => Err(exec(&mut args)),
        _ => Err("this command is for pavior's own use".to_owned()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::from(if stage.as_deref() == Some(OsStr::new("exec")) { CANNOT_RUN } else { USAGE })
        }
    }
}

/// Where the supervisor's pipe is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Stdin,
    Stderr,
}

struct Options {
    control: Control,
    grace: Duration,
    status: Option<PathBuf>,
    shim: Vec<OsString>,
    work: Vec<OsString>,
}

impl Options {
    /// `<stdin or stderr> <grace in ms> <status file or -> <n> <n words of the shim's own command> <program> <arguments…>`
    fn parse(args: &mut std::vec::IntoIter<OsString>) -> Result<Self, String> {
        let control = match args.next().as_deref().and_then(OsStr::to_str) {
            Some("stdin") => Control::Stdin,
            Some("stderr") => Control::Stderr,
            _ => return Err("no place of the supervisor's pipe".to_owned()),
        };
        let mut number = || args.next().and_then(|word| word.to_str()?.parse::<u64>().ok());
        let grace = number().ok_or("no grace time")?;
        let status = args.next().ok_or("no status file")?;
        let count = args.next().and_then(|word| word.to_str()?.parse::<usize>().ok()).ok_or("no count")?;
        let shim: Vec<OsString> = args.by_ref().take(count).collect();
        let work: Vec<OsString> = args.collect();
        if shim.is_empty() || work.is_empty() {
            return Err("nothing to run".to_owned());
        }
        let status = (status != "-").then(|| PathBuf::from(status));
        Ok(Self { control, grace: Duration::from_millis(grace), status, shim, work })
    }
}

/// Becomes the work. Returns only when that fails.
fn exec(args: &mut std::vec::IntoIter<OsString>) -> String {
    let parent = args.next().and_then(|word| word.to_str()?.parse::<i32>().ok());
    let Some(program) = args.next() else { return "nothing to run".to_owned() };
    #[cfg(target_os = "linux")]
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return "the kernel refuses a death signal".to_owned();
    }
    // The shim may have died before the kernel was asked.
    if rustix::process::getppid().map(Pid::as_raw_pid) != parent {
        return "the supervisor is gone".to_owned();
    }
    let error = Command::new(&program).args(args).exec();
    format!("cannot run `{}`: {error}", program.to_string_lossy())
}

enum Event {
    Exited,
    Signal(Signal),
    SupervisorGone,
}

fn supervise(options: &Options) -> Result<u8, String> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| error.to_string())?;
    let (program, first) = options.shim.split_first().ok_or("no shim")?;
    // Before there is anything to wait for, so that nobody who looks misses it.
    options.status.as_deref().map_or(Ok(()), |path| write_status(path, None)).map_err(unwritten)?;
    let mut child = Command::new(program)
        .args(first)
        .arg("exec")
        .arg(std::process::id().to_string())
        .args(&options.work)
        .stdin(if options.control == Control::Stdin { Stdio::null() } else { Stdio::inherit() })
        .stderr(if options.control == Control::Stdin { Stdio::inherit() } else { Stdio::null() })
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start the work: {error}"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    if let Some(path) = &options.status
        && let Err(error) = write_status(path, Some(child.id()))
    {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let _ = child.wait();
        return Err(unwritten(error));
    }
    let (sender, events) = channel();
    listen(options.control, sender.clone());
    await_exit(pid, sender);
    let until = watch(pid, options.grace, &events);
    finish(&mut child, pid, until)
}

#[allow(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
fn unwritten(error: std::io::Error) -> String {
    format!("cannot write the status file: {error}")
}

/// `<shim> <its start time>`, and behind it the same of the work once there is some.
fn write_status(path: &Path, work: Option<u32>) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let processes = std::iter::once(std::process::id()).chain(work);
    let words: Vec<String> =
        processes.map(|pid| format!("{pid} {}", start_time(pid).unwrap_or_default())).collect();
    std::fs::write(&temporary, words.join(" ") + "\n")?;
    std::fs::rename(temporary, path)
}

/// When a process started, in clock ticks since boot: with the pid it names one process for good. Nothing when it has
/// ended.
#[must_use]
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold anything; fields are counted behind it.
    let fields = stat.rsplit_once(')')?.1.trim_start();
    let ended = fields.starts_with(['Z', 'X']);
    fields.split_whitespace().nth(19)?.parse().ok().filter(|_| !ended)
}

fn listen(control: Control, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut byte = [0_u8];
        loop {
            let read = match control {
                Control::Stdin => std::io::stdin().read(&mut byte),
                Control::Stderr => {
                    rustix::io::read(std::io::stderr(), &mut byte).map_err(std::io::Error::from)
                }
            };
            let event = match read {
                Ok(1) => match byte[0] {
                    b'i' => Event::Signal(Signal::INT),
                    b't' => Event::Signal(Signal::TERM),
                    b'k' => Event::Signal(Signal::KILL),
                    _ => continue,
                },
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                _ => Event::SupervisorGone,
            };
            let last = matches!(event, Event::SupervisorGone);
            if events.send(event).is_err() || last {
                return;
            }
        }
    });
}

fn await_exit(pid: Pid, events: Sender<Event>) {
    std::thread::spawn(move || {
        // Not reaped yet: as long as the zombie stands, its group number cannot name anybody else.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
        let _ = events.send(Event::Exited);
    });
}

/// Returns when the work's main process has ended; where it was asked to, with the end of the time that it was given.
fn watch(group: Pid, grace: Duration, events: &Receiver<Event>) -> Option<Instant> {
    let mut deadline: Option<Instant> = None;
    let mut killed = false;
    loop {
        let event = match deadline {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let signal = match event {
            Ok(Event::Exited) | Err(RecvTimeoutError::Disconnected) => return deadline.filter(|_| !killed),
            Ok(Event::Signal(signal)) => signal,
            Ok(Event::SupervisorGone) => Signal::TERM,
            Err(RecvTimeoutError::Timeout) => Signal::KILL,
        };
        let _ = rustix::process::kill_process_group(group, signal);
        killed |= signal == Signal::KILL;
        deadline = match (signal, deadline) {
            (Signal::KILL, _) => Some(Instant::now() + KILLED),
            (_, Some(at)) => Some(at),
            (_, None) => Some(Instant::now() + grace),
        };
    }
}

fn finish(child: &mut Child, group: Pid, until: Option<Instant>) -> Result<u8, String> {
    // The others were asked to end as well, and may be about to remove what they would leave behind. Nothing tells of the
    // end of processes that are not our children, so they are looked for until their time is up.
    while until.is_some_and(|until| Instant::now() < until) && has_members(group) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    let status = child.wait().map_err(|error| error.to_string())?;
    bury_orphans();
    Ok(code(status))
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Kills what was handed to the shim as reaper, until nothing is left; a fork bomb gets a limited number of rounds.
fn bury_orphans() {
    for _ in 0..2_000 {
        let orphans = children();
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans {
            let _ = rustix::process::kill_process(orphan, Signal::KILL);
        }
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn children() -> Vec<Pid> {
    let me = std::process::id().to_string();
    processes()
        .filter(|process| process.parent == me)
        .filter_map(|process| Pid::from_raw(process.pid))
        .collect()
}

/// Whether a process of the group has not ended.
fn has_members(group: Pid) -> bool {
    let group = group.as_raw_pid().to_string();
    processes().any(|process| process.group == group && !["Z", "X"].contains(&process.state.as_str()))
}

struct Process {
    pid: i32,
    state: String,
    parent: String,
    group: String,
}

/// All processes (proc_pid_stat(5)).
fn processes() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
        Some(Process { pid, state: fields.next()?, parent: fields.next()?, group: fields.next()? })
    })
}

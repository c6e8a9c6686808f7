//! What a machine does to a system: a disk that fills or breaks, a clock that steps, a database server that restarts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// What a program needs is not to be had on this machine.
#[derive(Debug, thiserror::Error)]
#[error("skipped: {0}")]
pub(crate) struct Skip(&'static str);

/// A small file system in memory. It needs root, as CI has.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(megabytes: u32) -> Result<Self> {
        if !is_root()? {
            return Err(Skip("mounting a small file system needs root").into());
        }
        let directory = tempfile::Builder::new().prefix("pavior-disk-").tempdir()?;
        let size = format!("size={megabytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()))?;
        Ok(Self { directory })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all space that is left, but for so many bytes.
    pub(crate) fn fill(&self, leave: u64) -> Result<()> {
        let file = fs::File::create(self.filler())?;
        let mut free = self.free()?.saturating_sub(leave);
        let block = vec![1_u8; 4_096];
        while free >= 4_096 {
            use std::io::Write as _;
            if (&file).write_all(&block).is_err() {
                break;
            }
            free -= 4_096;
        }
        Ok(())
    }

    /// Gives the space back.
    pub(crate) fn free_up(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("the filler is gone")
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    fn free(&self) -> Result<u64> {
        let output = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df gave no figure")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The directory is removed afterwards; what still has files open loses only its name for them.
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

/// A disk that breaks while a flag stands: a library that is loaded before the C library.
#[derive(Debug)]
pub(crate) struct BrokenDisk {
    directory: tempfile::TempDir,
}

impl BrokenDisk {
    pub(crate) fn build() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pavior-io-").tempdir()?;
        let source = directory.path().join("failing_io.c");
        fs::write(&source, include_str!("failing_io.c"))?;
        let library = directory.path().join("failing_io.so");
        run(Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl"))?;
        Ok(Self { directory })
    }

    /// What the process must have in its environment.
    pub(crate) fn variables(&self) -> [(&'static str, String); 2] {
        let library = self.directory.path().join("failing_io.so");
        [("LD_PRELOAD", library.display().to_string()), ("CHAOS_IO_FLAG", self.flag().display().to_string())]
    }

    pub(crate) fn break_down(&self) -> Result<()> {
        fs::write(self.flag(), "").context("the flag")
    }

    pub(crate) fn mend(&self) -> Result<()> {
        fs::remove_file(self.flag()).context("the flag")
    }

    fn flag(&self) -> PathBuf {
        self.directory.path().join("broken")
    }
}

/// A clock that can be set: Debian's libfaketime.
#[derive(Debug)]
pub(crate) struct Clock {
    directory: tempfile::TempDir,
    library: PathBuf,
}

impl Clock {
    pub(crate) fn find() -> Result<Self> {
        let library = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
            .iter()
            .map(|place| Path::new(place).join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.is_file())
            .ok_or(Skip("libfaketime is missing (Debian's package `faketime`)"))?;
        let clock = Self { directory: tempfile::Builder::new().prefix("pavior-clock-").tempdir()?, library };
        clock.step(0)?;
        Ok(clock)
    }

    /// What the process must have in its environment.
    pub(crate) fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// Sets the clock so many seconds off.
    pub(crate) fn step(&self, seconds: i64) -> Result<()> {
        let next = self.file().with_extension("next");
        fs::write(&next, format!("{seconds:+}s\n"))?;
        fs::rename(next, self.file()).context("the clock's file")
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }
}

/// A PostgreSQL server of one's own, durable, that can be ended and started again.
#[derive(Debug)]
pub(crate) struct Postgres {
    directory: tempfile::TempDir,
    port: u16,
    running: Option<Child>,
}

impl Postgres {
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("pavior-pg-").tempdir()?;
        if is_root()? {
            run(Command::new("chown").arg("postgres").arg(directory.path()))?;
        }
        let data = directory.path().join("data");
        run(as_postgres("initdb")?
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-D"])
            .arg(&data)
            .current_dir(directory.path()))?;
        // Chosen by the system, and kept over restarts, so that the address stays.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = Self { directory, port, running: None };
        server.up()?;
        Ok(server)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Ends the server as a crash does, and starts it again.
    pub(crate) fn crash_and_up(&mut self) -> Result<()> {
        self.down("-QUIT")?;
        self.up()
    }

    fn up(&mut self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.directory.path().join("log"))?;
        let child = as_postgres("postgres")?
            .arg("-D")
            .arg(self.directory.path().join("data"))
            .args(["-h", "127.0.0.1", "-c", "max_connections=300", "-p", &self.port.to_string(), "-k"])
            .arg(self.directory.path())
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.running = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !pavior_testkit::db::ready(&self.directory.path().join("data")) {
            ensure!(Instant::now() < deadline, "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn down(&mut self, signal: &str) -> Result<()> {
        let Some(mut child) = self.running.take() else { return Ok(()) };
        let pid = fs::read_to_string(self.directory.path().join("data/postmaster.pid"))?;
        let pid = pid.lines().next().context("no postmaster.pid")?.trim().to_owned();
        run(Command::new("kill").arg(signal).arg(pid))?;
        child.wait()?;
        // A server that crashed leaves it behind, with "ready" in it.
        let file = self.directory.path().join("data/postmaster.pid");
        fs::remove_file(&file)
            .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The program is over; a server that does not end in order is of no interest.
        let _ = self.down("-QUIT");
    }
}

fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim() == "0")
}

/// A program of PostgreSQL, as somebody it lets itself be run by.
fn as_postgres(program: &str) -> Result<Command> {
    let path = find(program).with_context(|| format!("`{program}` is missing"))?;
    if !is_root()? {
        return Ok(Command::new(path));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
    Ok(command)
}

fn find(program: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    // Links are followed, since PostgreSQL finds its files from the place of its program.
    places.into_iter().map(|place| place.join(program)).find_map(|path| path.canonicalize().ok())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

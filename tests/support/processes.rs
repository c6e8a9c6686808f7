//! The real binary, as an operator runs it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use pavior::cli::apply;
use pavior::serve::DEV_OPERATOR;
use pavior::starter::{self, Databases};

use crate::Person;

const START_LIMIT: Duration = Duration::from_secs(60);

/// The binary under test. `tests/run` builds it before the tests.
pub fn binary() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().map(|folder| folder.join("pavior")).find(|path| path.is_file());
    found.context("the binary `pavior` is not built: cargo build -p pavior")
}

/// Processes of the real binary over one data folder.
#[derive(Debug)]
pub struct Processes {
    data: tempfile::TempDir,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    log: Option<PathBuf>,
    running: BTreeMap<String, Running>,
    /// Where services that run apart listen, also while they do not.
    apart: BTreeMap<String, String>,
}

/// The services, in the order in which they need each other.
const SERVICES: [&str; 4] = ["audit", "catalog", "policy", "provisioning"];

#[derive(Debug)]
struct Running {
    child: Child,
    addresses: BTreeMap<String, String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The test is over, well or not: nothing may be left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Processes {
    /// A data folder and the settings that every process gets; nothing runs yet.
    pub fn new(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::within(&std::env::temp_dir(), settings)
    }

    /// The same with the data folder in a folder of one's own choice, for example on a small file system.
    pub fn within(parent: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let data = pavior_files::temporary_directory_in(parent, "pavior-e2e-")?;
        let skeletons = crate::starter().join("skeletons").canonicalize()?;
        let mut all = vec![
            ("data_dir".to_owned(), data.path().display().to_string()),
            ("development.issuer".to_owned(), "true".to_owned()),
            ("shutdown.notice_ms".to_owned(), "0".to_owned()),
            ("drivers.skeleton_roots".to_owned(), format!("['{}']", skeletons.display())),
        ];
        for listener in ["gateway", "admin", "git", "audit", "catalog", "policy", "provisioning"] {
            all.push((format!("listen.{listener}"), "127.0.0.1:0".to_owned()));
        }
        all.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Ok(Self {
            data,
            settings: all,
            environment: Vec::new(),
            log: None,
            running: BTreeMap::new(),
            apart: BTreeMap::new(),
        })
    }

    /// Sets a variable in the environment of every process that is started from now on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Appends what the processes say to a file, instead of showing it when the test fails.
    pub fn log_to(&mut self, path: PathBuf) {
        self.log = Some(path);
    }

    /// Everything in one process, with the starter kit loaded.
    pub async fn whole() -> anyhow::Result<Self> {
        let mut processes = Self::new(&[])?;
        processes.start("all", &["--all"], &[])?;
        processes.load_starter_kit(Databases::Sqlite).await?;
        Ok(processes)
    }

    /// Each service in a process of its own, on SQLite, with the starter kit loaded.
    pub async fn apart() -> anyhow::Result<Self> {
        let mut processes = Self::new(&[])?;
        pavior::serve::generate_keys(&processes.data().join("keys"))?;
        for role in SERVICES.into_iter().chain(["gateway"]) {
            processes.start_apart(role)?;
        }
        processes.load_starter_kit(Databases::Sqlite).await?;
        Ok(processes)
    }

    /// Starts a service in a process of its own, where it was before if it was.
    pub fn start_apart(&mut self, role: &str) -> anyhow::Result<()> {
        let private = self.data().join("keys/private").join(role);
        let mut extra = vec![("internal.private_key_dir".to_owned(), private.display().to_string())];
        for (peer, address) in &self.apart {
            extra.push((format!("peers.{peer}"), format!("http://{address}")));
        }
        if let Some(address) = self.apart.get(role) {
            extra.push((format!("listen.{role}"), address.clone()));
        }
        let extra: Vec<(&str, String)> =
            extra.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        self.start(role, &[role], &extra)?;
        let address = self.address_of(role, role)?;
        if SERVICES.contains(&role) {
            self.apart.insert(role.to_owned(), address);
        }
        Ok(())
    }

    /// The address of a listener of one process.
    pub fn address_of(&self, name: &str, listener: &str) -> anyhow::Result<String> {
        let found = self.running.get(name).and_then(|running| running.addresses.get(listener));
        found.cloned().with_context(|| format!("`{name}` does not listen as {listener}"))
    }

    /// Starts a process and waits until it listens. `extra` settings win over those of all.
    pub fn start(&mut self, name: &str, roles: &[&str], extra: &[(&str, String)]) -> anyhow::Result<()> {
        let mut command = Command::new(binary()?);
        command.arg("serve").args(roles);
        let extra = extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        for (key, value) in self.settings.iter().cloned().chain(extra) {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.envs(self.environment.iter().cloned());
        let mut log = match &self.log {
            Some(path) => Some(std::fs::File::options().create(true).append(true).open(path)?),
            None => None,
        };
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (send, receive) = mpsc::channel();
        let prefix = name.to_owned();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                match &mut log {
                    // A log that cannot be written is no reason to stop reading.
                    Some(file) => drop(writeln!(file, "[{prefix}] {line}")),
                    // Shown when the test fails.
                    None => eprintln!("[{prefix}] {line}"),
                }
                if let Some((listener, address)) = line.split_once(" listens on ") {
                    let _ = send.send(Some((listener.to_owned(), address.to_owned())));
                } else if line.contains("is ready") || line.contains("answers reads") {
                    let _ = send.send(None);
                }
            }
        });
        let mut running = Running { child, addresses: BTreeMap::new() };
        while let Some((listener, address)) =
            receive.recv_timeout(START_LIMIT).context("the process did not start")?
        {
            running.addresses.insert(listener, address);
        }
        self.running.insert(name.to_owned(), running);
        Ok(())
    }

    /// Applies the starter kit as the operator of the installation.
    pub async fn load_starter_kit(&self, databases: Databases) -> anyhow::Result<()> {
        apply::apply(&*self.person(DEV_OPERATOR)?, &starter::documents(databases)?, |_, _| {}).await?;
        Ok(())
    }

    /// The address of a listener of any process.
    pub fn address(&self, listener: &str) -> anyhow::Result<String> {
        let found = self.running.values().find_map(|running| running.addresses.get(listener));
        found.cloned().with_context(|| format!("nothing listens as {listener}"))
    }

    /// A person of the starter kit, at the first gateway.
    pub fn person(&self, name: &str) -> anyhow::Result<Person> {
        let server = format!("http://{}", self.address("gateway")?);
        Person::new(&server, self.data(), name, starter::ORGANIZATION)
    }

    /// Kills a process as `kill -9` does.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let mut running = self.running.remove(name).with_context(|| format!("`{name}` does not run"))?;
        running.child.kill()?;
        running.child.wait()?;
        Ok(())
    }

    /// Sends a signal to a process, for example `STOP`.
    pub fn signal(&self, name: &str, signal: &str) -> anyhow::Result<()> {
        let running = self.running.get(name).with_context(|| format!("`{name}` does not run"))?;
        let status =
            Command::new("kill").arg(format!("-{signal}")).arg(running.child.id().to_string()).status()?;
        anyhow::ensure!(status.success(), "`{name}` could not be sent {signal}");
        Ok(())
    }

    /// Ends a process in order, and says when it did not end well.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let mut running = self.running.remove(name).with_context(|| format!("`{name}` does not run"))?;
        let pid = running.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = running.child.wait()?;
        anyhow::ensure!(status.success(), "`{name}` ended with {status}");
        Ok(())
    }

    /// Where everything is kept.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Verifies the audit log, whether or not anything runs.
    pub async fn verify_audit_log(&self) -> anyhow::Result<()> {
        crate::embedded::verify(self.data()).await
    }
}

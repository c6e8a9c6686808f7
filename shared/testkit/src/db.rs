//! A database of its own for each test, on SQLite and on PostgreSQL.
//!
//! PostgreSQL is the one at `PAVIOR_TEST_POSTGRES_URL`, else a server made with `initdb` and `postgres` from PATH. That
//! server is shared by all test processes of a user, listens on a Unix socket only, and ends itself (and removes its
//! data) five minutes after the last test asked for a database.

use pavior_store::{DatabaseConfig, Store};
use sea_orm::{ConnectionTrait as _, Database};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A database of one test. It is removed when the value is dropped.
#[derive(Debug)]
pub struct TestDb {
    /// The address, for a [`DatabaseConfig`].
    pub url: String,
    /// `sqlite` or `postgres`, for messages.
    pub kind: &'static str,
    cleanup: Cleanup,
}

#[derive(Debug)]
enum Cleanup {
    Directory { _dir: tempfile::TempDir },
    Postgres { admin: String, database: String },
}

impl TestDb {
    /// The configuration of a service that uses this database. It waits longer for its turn than a service does, so
    /// that a machine under load fails no test.
    pub fn config(&self) -> DatabaseConfig {
        DatabaseConfig { acquire_timeout_ms: 60_000, ..DatabaseConfig::at(self.url.as_str()) }
    }

    /// A copy of it as it is now, as a backup would hold it. On PostgreSQL whoever is connected is cut off.
    pub async fn copy(&self) -> TestDb {
        match &self.cleanup {
            Cleanup::Directory { .. } => {
                let copy = sqlite();
                let path = copy.url.trim_start_matches("sqlite://").trim_end_matches("?mode=rwc").to_owned();
                let connection = Database::connect(&self.url).await.expect("test database");
                connection.execute_unprepared(&format!("VACUUM INTO '{path}'")).await.expect("copy");
                connection.close().await.expect("test database");
                copy
            }
            Cleanup::Postgres { admin, database } => copy_postgres(admin, database).await.expect("copy"),
        }
    }

    /// Connects. On SQLite only one store can be connected at a time.
    pub async fn connect(&self) -> Store {
        Store::connect(&self.config(), "test").await.expect("test database")
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let Cleanup::Postgres { admin, database } = &self.cleanup else { return };
        let (admin, sql) = (admin.clone(), format!("DROP DATABASE IF EXISTS \"{database}\" WITH (FORCE)"));
        // Not on the test's runtime, which may be shutting down.
        let _ = std::thread::spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                runtime.block_on(async {
                    if let Ok(connection) = Database::connect(admin).await {
                        let _ = connection.execute_unprepared(&sql).await;
                    }
                });
            }
        })
        .join();
    }
}

/// A new SQLite file.
pub fn sqlite() -> TestDb {
    let dir = tempfile::Builder::new().prefix("pavior-test-").tempdir().expect("temporary directory");
    let url = format!("sqlite://{}?mode=rwc", dir.path().join("test.db").display());
    TestDb { url, kind: "sqlite", cleanup: Cleanup::Directory { _dir: dir } }
}

/// A new PostgreSQL database; none, after a line that says why, on a machine without PostgreSQL.
pub async fn postgres() -> Option<TestDb> {
    match new_postgres().await {
        Ok(db) => Some(db),
        Err(reason) if std::env::var("CI").is_ok_and(|v| v == "true") => {
            panic!("PostgreSQL is needed in CI: {reason}")
        }
        Err(reason) => {
            println!("SKIP (PostgreSQL): {reason}");
            None
        }
    }
}

/// Runs a test on SQLite and, where there is one, on PostgreSQL.
pub async fn both<F, Fut>(test: F)
where
    F: Fn(TestDb) -> Fut,
    Fut: Future<Output = ()>,
{
    test(sqlite()).await;
    if let Some(db) = postgres().await {
        test(db).await;
    }
}

async fn new_postgres() -> Result<TestDb, String> {
    let admin = match std::env::var("PAVIOR_TEST_POSTGRES_URL") {
        Ok(url) if !url.is_empty() => url,
        _ => tokio::task::spawn_blocking(server).await.map_err(|e| e.to_string())??,
    };
    let connection = Database::connect(&admin).await.map_err(|e| format!("cannot connect: {e}"))?;
    let database = format!("pavior_test_{}", uuid::Uuid::now_v7().simple());
    connection
        .execute_unprepared(&format!("CREATE DATABASE \"{database}\""))
        .await
        .map_err(|e| format!("cannot create a database: {e}"))?;
    connection.close().await.map_err(|e| e.to_string())?;
    let url = with_database(&admin, &database)?;
    Ok(TestDb { url, kind: "postgres", cleanup: Cleanup::Postgres { admin, database } })
}

async fn copy_postgres(admin: &str, database: &str) -> Result<TestDb, String> {
    let failed = |error: sea_orm::DbErr| error.to_string();
    let connection = Database::connect(admin).await.map_err(failed)?;
    let copy = format!("pavior_test_{}", uuid::Uuid::now_v7().simple());
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    let create = format!("CREATE DATABASE \"{copy}\" TEMPLATE \"{database}\"");
    // Somebody who is cut off may connect again before the copy begins.
    let mut made = Ok(());
    for _ in 0..20 {
        connection.execute_unprepared(&cut).await.map_err(failed)?;
        made = connection.execute_unprepared(&create).await.map(drop);
        if made.is_ok() {
            break;
        }
    }
    made.map_err(failed)?;
    connection.close().await.map_err(failed)?;
    let url = with_database(admin, &copy)?;
    Ok(TestDb {
        url,
        kind: "postgres",
        cleanup: Cleanup::Postgres { admin: admin.to_owned(), database: copy },
    })
}

/// Replaces the database in `postgres://user@host/database?options`.
fn with_database(url: &str, database: &str) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").ok_or("PAVIOR_TEST_POSTGRES_URL is not an address")?;
    let (rest, options) = rest.split_once('?').map_or((rest, String::new()), |(r, o)| (r, format!("?{o}")));
    let authority = rest.split('/').next().unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{database}{options}"))
}

/// The address of the shared server, which is started if it does not run.
fn server() -> Result<String, String> {
    let initdb = find("initdb").ok_or("`initdb` was not found (PATH, /usr/lib/postgresql)")?;
    let user = Command::new("id").arg("-u").output().map_err(|e| format!("id: {e}"))?;
    let uid = String::from_utf8_lossy(&user.stdout).trim().to_owned();
    let base = PathBuf::from(format!("/tmp/pavior-test-pg-{uid}"));
    let lock = base.with_extension("lock");
    let file = std::fs::File::create(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    file.lock().map_err(|e| format!("{}: {e}", lock.display()))?;
    let address = format!("postgres://postgres@localhost/postgres?host={}", base.display());
    if !answers(&base) {
        let _ = std::fs::remove_dir_all(&base);
        start(&initdb, &base, &lock, uid == "0")?;
    }
    std::fs::write(base.join("heartbeat"), "").map_err(|e| format!("heartbeat: {e}"))?;
    Ok(address)
}

fn answers(base: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(base.join(".s.PGSQL.5432")).is_ok()
}

/// Makes the data directory, starts the server and the watchdog that ends it.
fn start(initdb: &Path, base: &Path, lock: &Path, root: bool) -> Result<(), String> {
    std::fs::create_dir_all(base).map_err(|e| format!("{}: {e}", base.display()))?;
    if root {
        // PostgreSQL refuses to run as root.
        let done =
            Command::new("chown").arg("postgres").arg(base).status().map_err(|e| format!("chown: {e}"))?;
        if !done.success() {
            return Err("running as root, and there is no user `postgres`".to_owned());
        }
    }
    let data = base.join("data");
    let log = std::fs::File::create(base.join("log")).map_err(|e| format!("log: {e}"))?;
    let output = as_postgres(initdb, root)
        .args([
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "-D",
        ])
        .arg(&data)
        .current_dir(base)
        .output()
        .map_err(|e| format!("initdb: {e}"))?;
    if !output.status.success() {
        return Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let settings = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300"];
    let quiet = || log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from);
    let mut command = as_postgres(&initdb.with_file_name("postgres"), root);
    command.arg("-D").arg(&data).arg("-k").arg(base).args(["-c", "listen_addresses="]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    detached(&mut command, base, quiet(), quiet())?;
    let until = Instant::now() + Duration::from_secs(20);
    while !answers(base) || !ready(&data) {
        if Instant::now() > until {
            let log = std::fs::read_to_string(base.join("log")).unwrap_or_default();
            return Err(format!("the server did not start: {log}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Ends the server by its own process id when no test has asked for five minutes.
    let script = format!(
        "while sleep 20; do exec 9>'{lock}'; flock 9; \
         if [ -z \"$(find '{base}/heartbeat' -mmin -5)\" ]; then \
         kill -INT \"$(head -1 '{base}/data/postmaster.pid')\"; rm -rf '{base}'; exit 0; fi; exec 9>&-; done",
        lock = lock.display(),
        base = base.display(),
    );
    let mut watchdog = Command::new("sh");
    watchdog.arg("-c").arg(script);
    detached(&mut watchdog, Path::new("/"), quiet(), quiet())
}

/// Whether the server of a data directory takes connections: the eighth line of its `postmaster.pid`, as `pg_ctl`
/// reads it. `pg_isready` is not asked, since it belongs to the client's package.
pub fn ready(data: &Path) -> bool {
    std::fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|status| status.trim() == "ready"))
}

/// Starts a process that outlives the test and holds none of its pipes.
fn detached(command: &mut Command, dir: &Path, out: Stdio, err: Stdio) -> Result<(), String> {
    use std::os::unix::process::CommandExt as _;
    command.stdin(Stdio::null()).stdout(out).stderr(err).current_dir(dir).process_group(0);
    command.spawn().map(drop).map_err(|e| format!("{:?}: {e}", command.get_program()))
}

fn as_postgres(program: &Path, root: bool) -> Command {
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

/// From PATH, else the newest of Debian's directories. Links are followed, since PostgreSQL finds its files from
/// the place of its program.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<PathBuf> = versions.flatten().map(|v| v.path().join("bin")).collect();
        versions.sort();
        places.extend(versions.into_iter().rev());
    }
    places.into_iter().map(|dir| dir.join(program)).find_map(|file| file.canonicalize().ok())
}

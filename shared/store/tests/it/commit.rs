//! A commit of which the answer is lost: nobody knows whether it holds, and the same request id tells.

use super::idempotency::{create, key};
use super::{count, db, store};
use pavior_store::idempotency::IdempotencyError;
use pavior_store::{DatabaseConfig, ErrorKind, Store};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(30);
/// What the store sends to commit.
const COMMIT: &[u8] = b"COMMIT";

/// What a connection does with a commit.
const PASSES: u8 = 0;
/// It breaks before the database hears of it.
const BREAKS_BEFORE: u8 = 1;
/// It breaks when the database has answered.
const BREAKS_AFTER: u8 = 2;

/// Stands between the store and PostgreSQL; gives the port. `next` is for one commit.
async fn proxy(to: String, next: Arc<AtomicU8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, next) = (to.clone(), next.clone());
            tokio::spawn(async move { drop(pass(client, &to, &next).await) });
        }
    });
    port
}

/// Passes everything on until either side ends or the commit comes that breaks the connection.
async fn pass(mut client: TcpStream, to: &str, next: &AtomicU8) -> std::io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let message = &asked[..read?];
                let commits = message.windows(COMMIT.len()).any(|part| part == COMMIT);
                let order = if commits { next.swap(PASSES, Ordering::SeqCst) } else { PASSES };
                if message.is_empty() || order == BREAKS_BEFORE {
                    return Ok(());
                }
                server.write_all(message).await?;
                if order == BREAKS_AFTER {
                    return server.read(&mut answered).await.map(drop);
                }
            }
            read = server.read(&mut answered) => match read? {
                0 => return Ok(()),
                read => client.write_all(&answered[..read]).await?,
            },
        }
    }
}

/// The change that gives `answer`, of which nobody hears.
async fn unheard(store: &Store, answer: i64) {
    match create(store, &key("r1"), b"h", answer).await {
        Err(IdempotencyError::Store(error)) if error.kind() == ErrorKind::Unknown => {}
        other => panic!("the outcome is known: {other:?}"),
    }
}

/// The same request until there is an answer: the first one, or `answer` where the change had not been made.
async fn repeated(store: &Store, answer: i64) -> i64 {
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut again = tokio::time::interval(Duration::from_millis(20));
    loop {
        again.tick().await;
        match create(store, &key("r1"), b"h", answer).await {
            Ok(told) => return i64::from_be_bytes(told.try_into().unwrap()),
            Err(error) => assert!(tokio::time::Instant::now() < until, "still {error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_commit_whose_answer_is_lost_is_found_or_made_once() {
    for (order, truth) in [(BREAKS_AFTER, 1), (BREAKS_BEFORE, 2)] {
        let Some(db) = db::postgres().await else { return };
        drop(store(&db).await);
        let (rest, path) = db.url.rsplit_once('/').unwrap();
        let (scheme, address) = rest.rsplit_once('@').unwrap();
        let next = Arc::new(AtomicU8::new(PASSES));
        let port = proxy(address.to_owned(), next.clone()).await;
        let mark = if path.contains('?') { '&' } else { '?' };
        // In the clear, so that the commit can be seen.
        let url = format!("{scheme}@127.0.0.1:{port}/{path}{mark}sslmode=disable");
        let store = Store::connect(&DatabaseConfig::at(url), "test").await.unwrap();
        next.store(order, Ordering::SeqCst);
        unheard(&store, 1).await;
        assert_eq!(repeated(&store, 2).await, truth, "{order}");
        assert_eq!((count(&store, "counters").await, count(&store, "outbox").await), (1, 1), "{order}");
        store.close().await.unwrap();
    }
}

const FLAG: &str = "FAILING_SYNC_FLAG";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_commit_that_cannot_be_synced_is_found_or_made_once() {
    if let Ok(flag) = std::env::var(FLAG) {
        return unsynced(Path::new(&flag)).await;
    }
    // The same test once more, in a process in which files cannot be synced while there is a flag.
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("failing_sync.c"), folder.path().join("failing_sync.so"));
    std::fs::write(&source, include_str!("failing_sync.c")).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    assert!(built.unwrap().success());
    let name = "commit::on_sqlite_a_commit_that_cannot_be_synced_is_found_or_made_once";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("LD_PRELOAD", &library)
        .env(FLAG, folder.path().join("flag"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn unsynced(flag: &Path) {
    let db = db::sqlite();
    let first = store(&db).await;
    std::fs::write(flag, "").unwrap();
    unheard(&first, 1).await;
    std::fs::remove_file(flag).unwrap();
    let truth = repeated(&first, 2).await;
    assert_eq!((count(&first, "counters").await, count(&first, "outbox").await), (1, 1));
    first.close().await.unwrap();
    // What another process finds is the same.
    let again = db.connect().await;
    assert_eq!(repeated(&again, 3).await, truth);
    assert_eq!((count(&again, "counters").await, count(&again, "outbox").await), (1, 1));
}

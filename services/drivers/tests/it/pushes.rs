//! Pushes by a real client: what they may move and how much they may bring, and that nothing of them outlives whoever
//! asked or the platform.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use pavior_driver::{ExposeSecret, Success};
use pavior_drivers::DriversConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::git::{git, must, with_password};
use crate::world::{World, alive, wait_for};

/// A repository with a clone of it, in a folder that goes with the last value.
async fn cloned(change: impl FnOnce(&mut DriversConfig)) -> (World, Success, PathBuf, tempfile::TempDir) {
    let world = World::with(change).await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let work = tempfile::tempdir().unwrap();
    must(work.path(), &["clone", "-q", &address(&made), "copy"]).await;
    let copy = work.path().join("copy");
    (world, made, copy, work)
}

fn address(made: &Success) -> String {
    let password = made.secrets.get("password").unwrap().expose_secret().to_owned();
    with_password(made.outputs["url"].as_str().unwrap(), &password)
}

async fn refused(copy: &Path, args: &[&str], why: &str) {
    let output = git(copy, args).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{args:?} is not refused: {text}");
    assert!(text.contains(why), "{args:?}: {text}");
}

#[tokio::test]
async fn only_branches_and_tags_with_plain_names_are_pushed() {
    let (world, made, copy, _work) = cloned(|_| {}).await;
    let own = "only branches and tags can be pushed";
    refused(&copy, &["push", "origin", "HEAD:refs/pavior/rendered"], own).await;
    refused(&copy, &["push", "origin", "HEAD:refs/pavior/new"], own).await;
    refused(&copy, &["push", "origin", "HEAD:refs/notes/commits"], own).await;
    refused(&copy, &["push", "origin", ":refs/pavior/rendered"], own).await;
    let direction = "the name has control, space or invisible characters in it";
    refused(&copy, &["push", "origin", "HEAD:refs/heads/a\u{202e}b"], direction).await;
    // One that is refused refuses the others, which are told why.
    let both = ["push", "origin", "HEAD:refs/heads/fine", "HEAD:refs/pavior/x"];
    refused(&copy, &both, "the push moves `refs/pavior/x` too, which is refused").await;
    // Each is recorded with why it was refused.
    let recorded: Vec<_> = world.pushes.seen.lock().unwrap().drain(..).map(|push| push.refused).collect();
    assert_eq!(recorded, [own, own, own, own, direction, own].map(|why| Some(why.to_owned())));
    let path = world.repository_path(&made);
    let refs = must(&path, &["for-each-ref", "--format=%(refname)"]).await;
    assert_eq!(refs, "refs/heads/main\nrefs/pavior/rendered");
    must(&copy, &["push", "-q", "origin", "HEAD:refs/heads/fine", "HEAD:refs/tags/v1"]).await;
    must(&copy, &["push", "-q", "origin", ":refs/heads/fine"]).await;
}

/// A file that does not compress.
fn noise(copy: &Path, name: &str, bytes: usize) {
    let mut state = 88_172_645_463_325_252_u64;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<u8> = std::iter::repeat_with(word).take(bytes / 8).flat_map(u64::to_le_bytes).collect();
    std::fs::write(copy.join(name), words).unwrap();
}

async fn commit(copy: &Path, name: &str) {
    must(copy, &["add", "."]).await;
    must(copy, &["commit", "-q", "-m", name]).await;
}

#[tokio::test]
async fn a_push_that_is_too_large_is_refused() {
    let (world, made, copy, _work) = cloned(|config| config.git.max_push_bytes = 300_000).await;
    noise(&copy, "large.bin", 4_000_000);
    commit(&copy, "Large").await;
    let why = "the push has more than 300000 bytes";
    refused(&copy, &["push", "origin", "main"], why).await;
    // Sent in pieces, it was announced before its size was known.
    let recorded: Vec<_> = world.pushes.seen.lock().unwrap().drain(..).map(|push| push.refused).collect();
    assert_eq!(recorded, [None, Some(why.to_owned())]);
    refused(&copy, &["-c", "http.postBuffer=16777216", "push", "origin", "main"], why).await;
    let recorded: Vec<_> = world.pushes.seen.lock().unwrap().drain(..).map(|push| push.refused).collect();
    assert_eq!(recorded, [Some(why.to_owned())]);
    let path = world.repository_path(&made);
    assert_eq!(must(&path, &["rev-parse", "main"]).await, made.outputs["commit"].as_str().unwrap());
    must(&copy, &["reset", "-q", "--hard", "HEAD~1"]).await;
    std::fs::write(copy.join("small"), "x").unwrap();
    commit(&copy, "Small").await;
    must(&copy, &["push", "-q", "origin", "main"]).await;
}

#[tokio::test]
async fn a_repository_does_not_grow_over_its_quota() {
    let (_world, _made, copy, _work) = cloned(|config| config.git.max_repository_bytes = 400_000).await;
    noise(&copy, "first.bin", 40_000);
    commit(&copy, "First").await;
    must(&copy, &["push", "-q", "origin", "main"]).await;
    noise(&copy, "second.bin", 4_000_000);
    commit(&copy, "Second").await;
    let why = "the repository would have more than 400000 bytes";
    refused(&copy, &["push", "origin", "main"], why).await;
    // What brings nothing is let in.
    must(&copy, &["push", "-q", "origin", "HEAD~1:refs/heads/other"]).await;
    must(&copy, &["push", "-q", "origin", ":refs/heads/other"]).await;
}

#[tokio::test]
async fn a_full_repository_takes_deletions_only() {
    let (world, made, copy, _work) = cloned(|config| config.git.max_repository_bytes = 1).await;
    let path = world.repository_path(&made);
    must(&path, &["update-ref", "refs/heads/old", "main"]).await;
    refused(&copy, &["push", "origin", "HEAD:refs/heads/x"], "the repository would have more than 1 bytes")
        .await;
    let why = Some("the repository would have more than 1 bytes".to_owned());
    assert_eq!(world.pushes.seen.lock().unwrap().pop().unwrap().refused, why);
    must(&copy, &["push", "-q", "origin", ":refs/heads/old"]).await;
    assert_eq!(world.pushes.seen.lock().unwrap().pop().unwrap().refused, None);
}

/// Every push brings a pack; they are put together now and then, with nobody pushing and nothing lost.
#[tokio::test]
async fn packs_of_many_pushes_become_one() {
    let (world, made, copy, _work) = cloned(|_| {}).await;
    let path = world.repository_path(&made);
    must(&path, &["config", "gc.autoPackLimit", "4"]).await;
    let packs = || {
        let files = std::fs::read_dir(path.join("objects/pack")).unwrap();
        files
            .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "pack"))
            .count()
    };
    for n in 0..12 {
        std::fs::write(copy.join("count"), n.to_string()).unwrap();
        commit(&copy, &format!("Commit {n}")).await;
        must(&copy, &["push", "-q", "origin", "main", &format!("HEAD:refs/tags/v{n}")]).await;
    }
    wait_for("few packs", || (packs() <= 4).then_some(())).await;
    // What nobody points at any more, and whoever reads meanwhile, is not harmed.
    must(&path, &["fsck", "--full", "--strict"]).await;
    let again = tempfile::tempdir().unwrap();
    must(again.path(), &["clone", "-q", &address(&made), "copy"]).await;
    let copy = again.path().join("copy");
    assert_eq!(std::fs::read_to_string(copy.join("count")).unwrap(), "11");
    assert_eq!(must(&copy, &["tag"]).await.lines().count(), 12);
    // The quota counts what there is.
    std::fs::write(copy.join("count"), "more").unwrap();
    commit(&copy, "More").await;
    must(&copy, &["push", "-q", "origin", "main"]).await;
}

/// Process ids of git commands that work on this data folder.
fn back_ends(data: &Path) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let root = format!("GIT_PROJECT_ROOT={}", data.display());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut words = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        if words.any(|word| word.starts_with(&root)) && alive(pid) {
            found.insert(pid);
        }
    }
    found
}

/// Sends so much of a push.
async fn post(url: &str, headers: &str, length: usize, body: &[u8]) -> tokio::net::TcpStream {
    let rest = url.strip_prefix("http://").unwrap();
    let (credentials, rest) = rest.split_once('@').unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let token = base64::engine::general_purpose::STANDARD.encode(credentials);
    let head = format!(
        "POST /{path}/git-receive-pack HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {token}\r\n\
         Content-Type: application/x-git-receive-pack-request\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    stream
}

fn line(name: &[u8]) -> Vec<u8> {
    let command = [format!("{} {} ", "0".repeat(40), "1".repeat(40)).as_bytes(), name].concat();
    [format!("{:04x}", command.len() + 4).as_bytes(), &command].concat()
}

/// Begins a push and does not go on.
async fn half_a_push(url: &str) -> tokio::net::TcpStream {
    // One object of a million bytes, not compressed, of which the first 60,000 come.
    let pack = b"PACK\x00\x00\x00\x02\x00\x00\x00\x01\xb0\xa4\xe8\x03\x78\x01\x00\x60\xea\x9f\x15";
    let command = line(b"refs/heads/half\0 report-status side-band-64k");
    let body = [&command[..], b"0000", pack, &[7; 60_000]].concat();
    post(url, "", 1_000_000, &body).await
}

/// The files of pushes to a repository that are not accepted.
fn incoming(repository: &Path) -> BTreeSet<PathBuf> {
    let folder = repository.join("incoming");
    let packs = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok);
    packs
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_pack"))
        .map(|e| e.into_path())
        .collect()
}

/// Also while others go on beside it.
#[tokio::test]
async fn a_push_that_is_broken_off_leaves_nothing() {
    let (world, made, copy, _work) = cloned(|config| config.git.max_repository_bytes = 3_000_000).await;
    let path = world.repository_path(&made);
    let url = address(&made);
    let kept = half_a_push(&url).await;
    let first = wait_for("its pack", || Some(incoming(&path)).filter(|packs| packs.len() == 1)).await;
    for _ in 0..4 {
        let broken = half_a_push(&url).await;
        wait_for("the packs", || (incoming(&path).len() == 2).then_some(())).await;
        drop(broken);
        wait_for("the end of the one", || (incoming(&path) == first).then_some(())).await;
    }
    // There is room for another, which is as large as all of them together.
    noise(&copy, "large.bin", 1_500_000);
    commit(&copy, "Large").await;
    must(&copy, &["push", "-q", "origin", "main"]).await;
    assert_eq!(incoming(&path), first);
    drop(kept);
    wait_for("the end of the other", || incoming(&path).is_empty().then_some(())).await;
    wait_for("its folder", || {
        std::fs::read_dir(path.join("incoming")).unwrap().next().is_none().then_some(())
    })
    .await;
    must(&path, &["fsck", "--full", "--strict"]).await;
    let head = must(&copy, &["rev-parse", "HEAD"]).await;
    assert_eq!(must(&path, &["rev-parse", "main"]).await, head);
}

#[tokio::test]
async fn whatever_is_refused_is_recorded() {
    let world = World::new().await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let url = address(&made);
    let fine = [&line(b"refs/heads/x\0report-status")[..], b"0000"].concat();
    let names: Vec<u8> = (0..501).flat_map(|n| line(format!("refs/heads/n{n}").as_bytes())).collect();
    let no_text = [&line(b"refs/heads/\xff\xfe")[..], b"0000"].concat();
    let long = [&line(&[b"refs/heads/".as_slice(), &[b'\x01'; 60_000]].concat())[..], b"0000"].concat();
    let cases: [(&str, &[u8], &str, usize, &str); 5] = [
        ("Content-Encoding: gzip\r\n", &fine, "415", 0, "a push must not be compressed once more"),
        ("", &names, "413", 500, "the push moves too many references"),
        ("", &no_text, "400", 1, "the name of a reference is not UTF-8"),
        ("", b"nonsense", "400", 0, "this is not a push"),
        ("", &long, "403", 1, "the name is longer than 255 bytes"),
    ];
    for (headers, body, status, named, why) in cases {
        let mut stream = post(&url, &format!("{headers}Connection: close\r\n"), body.len(), body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{why}: {answer}");
        let push = world.pushes.seen.lock().unwrap().pop().unwrap();
        assert_eq!((push.updates.len(), push.refused.as_deref()), (named, Some(why)));
        assert!(push.updates.iter().all(|update| update.name.len() <= 255));
        assert!(world.pushes.seen.lock().unwrap().is_empty(), "{why}: more than one record");
    }
}

#[tokio::test]
async fn a_push_whose_client_goes_away_ends() {
    let world = World::new().await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let stream = half_a_push(&address(&made)).await;
    wait_for("the back end", || (back_ends(&world.data).len() > 2).then_some(())).await;
    drop(stream);
    wait_for("its end", || back_ends(&world.data).is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_push_that_does_not_go_on_ends_with_its_time() {
    let time = std::time::Duration::from_secs(2);
    let world = World::with(|config| config.git.request_timeout = time).await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let _stream = half_a_push(&address(&made)).await;
    wait_for("the back end", || (!back_ends(&world.data).is_empty()).then_some(())).await;
    wait_for("its end", || back_ends(&world.data).is_empty().then_some(())).await;
}

/// Not a test of its own: the platform that `a_killed_platform_leaves_no_back_end` kills.
#[tokio::test]
async fn platform_with_a_repository() {
    let Ok(told) = std::env::var("PAVIOR_TEST_REPOSITORY_TOLD") else { return };
    let world = World::new().await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let _stream = half_a_push(&address(&made)).await;
    wait_for("the back end", || (back_ends(&world.data).len() > 2).then_some(())).await;
    let told = Path::new(&told);
    std::fs::write(told.with_extension("tmp"), world.data.display().to_string()).unwrap();
    std::fs::rename(told.with_extension("tmp"), told).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_platform_leaves_no_back_end() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let mut platform = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pushes::platform_with_a_repository", "--nocapture"])
        .env("PAVIOR_TEST_REPOSITORY_TOLD", &told)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let data = wait_for("the push", || std::fs::read_to_string(&told).ok()).await;
    assert!(!back_ends(Path::new(&data)).is_empty());
    platform.start_kill().unwrap();
    platform.wait().await.unwrap();
    wait_for("its end", || back_ends(Path::new(&data)).is_empty().then_some(())).await;
}

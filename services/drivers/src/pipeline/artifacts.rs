//! What a run leaves: copied out of the workspace whole, with a digest, never through a link.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pavior_core::digest::Digest;
use pavior_driver::{Failure, FailureCode};
use serde::{Serialize, Serializer};

use super::declared::Artifact;
use crate::content::{copy, digest};
use crate::files;

/// An artifact that is kept.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StoredArtifact {
    name: String,
    path: PathBuf,
    /// Without its algorithm, which the field's name says: `artifact.sha256` in templates.
    #[serde(serialize_with = "hex")]
    sha256: Digest,
    size: u64,
}

fn hex<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&digest.hex())
}

fn io(name: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| {
        tracing::error!(error = %error, artifact = name, "artifact cannot be kept");
        Failure::new(FailureCode::Internal, format!("artifact `{name}` cannot be kept"))
    }
}

/// The folder of a store in which artifacts stand under their digests.
const BY_DIGEST: &str = "sha256";

/// How long an artifact may be of a run that is not recorded yet.
const UNRECORDED: Duration = Duration::from_secs(24 * 3_600);

/// Nothing is put to a store while something is taken from one. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct StoreLock(Arc<Mutex<()>>);

impl StoreLock {
    fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what nothing refers to and is old.
    pub(super) async fn keep(&self, stores: PathBuf, kept: BTreeSet<String>) {
        let store_lock = self.clone();
        let swept = tokio::task::spawn_blocking(move || store_lock.sweep(&stores, &kept, UNRECORDED));
        match swept.await.map_err(std::io::Error::other).flatten() {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "artifacts that nothing refers to are removed"),
            Err(error) => tracing::warn!(%error, "artifacts that nothing refers to could not be removed yet"),
        }
    }

    /// Removes the artifacts of all stores that are not among the `kept` digests and were last made longer ago than
    /// `grace`. Answers how many.
    fn sweep(&self, stores: &Path, kept: &BTreeSet<String>, grace: Duration) -> std::io::Result<usize> {
        // By the clock that their times are from.
        let now = tempfile::tempfile_in(stores)?.metadata()?.modified()?;
        let old = |path: &Path| -> std::io::Result<bool> {
            Ok(now.duration_since(std::fs::metadata(path)?.modified()?).is_ok_and(|age| age > grace))
        };
        let mut swept = 0;
        for place in folders(stores)?.iter().map(|organization| folders(organization)) {
            for digests in place?.iter().map(|store| folders(&store.join(BY_DIGEST))) {
                for path in digests? {
                    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    if kept.contains(name) {
                        continue;
                    }
                    let _held = self.hold();
                    if old(&path)? {
                        files::remove_tree(&path)?;
                        swept += 1;
                    }
                }
            }
        }
        Ok(swept)
    }
}

/// The folders in a folder; none when it does not exist.
fn folders(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Copies every artifact into `store`, read-only under its digest. One that is there already is not written again.
pub(super) fn collect(
    store_lock: &StoreLock,
    workspace: &Path,
    store: &Path,
    wanted: &[Artifact],
) -> Result<Vec<StoredArtifact>, Failure> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let place = store.join(BY_DIGEST);
    files::private_directory(&place).map_err(io("all"))?;
    let staging = tempfile::tempdir_in(store).map_err(io("all"))?;
    let mut kept = Vec::new();
    for artifact in wanted {
        let source = find(workspace, artifact)?;
        let file_name = source.file_name().map(PathBuf::from).unwrap_or_default();
        let staged = staging.path().join(&artifact.name);
        let (sha256, size) = copy(&source, &staged).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                Failure::new(FailureCode::WorkFailed, format!("artifact `{}`: {error}", artifact.name))
            }
            _ => io(&artifact.name)(error),
        })?;
        let path = place.join(sha256.hex()).join(file_name);
        let _held = store_lock.hold();
        put(&staged, &path, sha256).map_err(io(&artifact.name))?;
        kept.push(StoredArtifact { name: artifact.name.clone(), path, sha256, size });
    }
    files::sync_directory(&place).map_err(io("all"))?;
    Ok(kept)
}

/// Moves what has this digest to its place, where it is not changed any more. One at a time: what another run has put
/// there by then stays.
fn put(staged: &Path, path: &Path, sha256: Digest) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    files::private_directory(parent)?;
    if path.exists() && digest(path)? == sha256 {
        // As young as any: it is of this run now, too.
        let made = std::fs::metadata(staged)?.modified()?;
        return File::open(parent)?.set_modified(made);
    }
    // What stands there is not what its name says.
    files::remove_tree(path)?;
    std::fs::rename(staged, path)?;
    files::read_only(path)?;
    files::sync_directory(parent)
}

/// An artifact of an organization's stores: where it stands as a whole, and the digest under which it does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ArtifactLocation {
    pub(crate) root: PathBuf,
    pub(crate) digest: Digest,
}

/// The artifact that a path below an organization's stores is, or lies in; none when it is not one.
pub(crate) fn stored(stores: &Path, path: &Path) -> Option<ArtifactLocation> {
    let mut parts = path.strip_prefix(stores).ok()?.components();
    let mut next = || match parts.next() {
        Some(Component::Normal(part)) => part.to_str().map(str::to_owned),
        _ => None,
    };
    let (store, by_digest, sha256, name) = (next()?, next()?, next()?, next()?);
    let digest = Digest::from_hex(&sha256).ok()?;
    let root = stores.join(store).join(&by_digest).join(&sha256).join(name);
    (by_digest == BY_DIGEST).then_some(ArtifactLocation { root, digest })
}

/// The artifact of an organization's stores that has this digest, in whichever of them.
pub(super) fn find_by_digest(stores: &Path, digest: Digest) -> std::io::Result<Option<ArtifactLocation>> {
    for store in folders(stores)? {
        let entries = match std::fs::read_dir(store.join(BY_DIGEST).join(digest.hex())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        if let Some(entry) = entries.into_iter().next() {
            return Ok(Some(ArtifactLocation { root: entry?.path(), digest }));
        }
    }
    Ok(None)
}

/// The one file or directory that a pattern names.
fn find(workspace: &Path, artifact: &Artifact) -> Result<PathBuf, Failure> {
    let bad = |why: &str| {
        let message = format!("artifact `{}`: `{}` {why}", artifact.name, artifact.path);
        Failure::new(FailureCode::WorkFailed, message)
    };
    let mut found = vec![workspace.to_owned()];
    for part in Path::new(&artifact.path).components() {
        let pattern = match part {
            Component::CurDir => continue,
            Component::Normal(pattern) => pattern.to_str().ok_or_else(|| bad("is not UTF-8"))?,
            _ => return Err(bad("is not a path below the workspace")),
        };
        let mut next = Vec::new();
        for directory in found {
            if pattern.contains('*') {
                let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
                let names = entries
                    .filter(|entry| entry.file_name().to_str().is_some_and(|name| matches(pattern, name)));
                next.extend(names.map(|entry| entry.path()));
            } else {
                next.push(directory.join(pattern));
            }
        }
        next.retain(|path| std::fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_symlink()));
        found = next;
    }
    match found.as_slice() {
        [one] if one.is_file() || one.is_dir() => Ok(one.clone()),
        // To read a pipe or a device is to wait for whoever writes.
        [_] => Err(bad("is neither a file nor a folder")),
        [] => Err(bad("does not exist after the last step")),
        _ => Err(bad("names more than one file")),
    }
}

/// Whether `name` fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn patterns_match_names() {
        assert!(
            matches("a*c", "abc")
                && matches("*", "x")
                && matches("*.so", "lib.so")
                && matches("a*b*c", "a1b2c")
        );
        assert!(!matches("a*c", "ab") && !matches("*.so", "lib.so.1") && !matches("ab*ba", "aba"));
    }

    #[test]
    fn the_artifact_that_a_path_lies_in() {
        let (stores, digest) = (Path::new("/a/acme"), "a".repeat(64));
        let parsed = Digest::from_hex(&digest).unwrap();
        let root = PathBuf::from(format!("/a/acme/pipeline-1/sha256/{digest}/app"));
        let found = Some(ArtifactLocation { root: root.clone(), digest: parsed });
        assert_eq!(stored(stores, &root), found);
        assert_eq!(stored(stores, &root.join("bin/app")), found);
        for other in [
            format!("/a/globex/pipeline-1/sha256/{digest}/app"),
            format!("/a/acme/pipeline-1/sha256/{digest}"),
            format!("/a/acme/pipeline-1/md5/{digest}/app"),
            format!("/a/acme/../globex/sha256/{digest}/app"),
            "/a/acme/pipeline-1/sha256/beef/app".to_owned(),
            "/a/acme/pipeline-1/run1/app/app.py".to_owned(),
        ] {
            assert_eq!(stored(stores, Path::new(&other)), None, "{other}");
        }
    }

    /// Whoever has put it finds it there, whole and read-only, whatever others put there at the same time.
    #[test]
    fn runs_that_leave_the_same_do_not_disturb_each_other() {
        const RUNS: usize = 4;
        let folder = tempfile::tempdir().unwrap();
        let workspace = folder.path().join("src");
        std::fs::create_dir_all(workspace.join("site/css")).unwrap();
        std::fs::write(workspace.join("site/css/a.css"), "a").unwrap();
        let wanted = [Artifact { name: "site".to_owned(), path: "site".to_owned() }];
        let store_lock = StoreLock::default();
        for round in 0..50 {
            let store = folder.path().join(format!("store-{round}"));
            let together = std::sync::Barrier::new(RUNS);
            std::thread::scope(|scope| {
                for _ in 0..RUNS {
                    scope.spawn(|| {
                        together.wait();
                        let kept = collect(&store_lock, &workspace, &store, &wanted).unwrap().remove(0);
                        assert_eq!(digest(&kept.path).unwrap(), kept.sha256);
                        let mode = std::fs::metadata(&kept.path).unwrap().permissions().mode();
                        assert_eq!(mode & 0o222, 0);
                    });
                }
            });
            files::remove_tree(&store).unwrap();
        }
    }

    #[test]
    fn what_nothing_refers_to_goes_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let (workspace, stores) = (folder.path().join("src"), folder.path().join("artifacts"));
        let store = stores.join("acme/pipeline-1");
        let store_lock = StoreLock::default();
        std::fs::create_dir_all(&workspace).unwrap();
        let make = |content: &str| {
            std::fs::write(workspace.join("app"), content).unwrap();
            let wanted = [Artifact { name: "app".to_owned(), path: "app".to_owned() }];
            collect(&store_lock, &workspace, &store, &wanted).unwrap().remove(0)
        };
        let made = ["one", "two", "three"].map(make);
        for kept in &made {
            let place = File::open(kept.path.parent().unwrap()).unwrap();
            let old = place.metadata().unwrap().modified().unwrap() - Duration::from_secs(3_600);
            place.set_modified(old).unwrap();
        }
        // The same again, by a run that is not recorded yet.
        make("two");
        let kept = BTreeSet::from([made[0].sha256.hex()]);
        let grace = Duration::from_secs(60);
        assert_eq!(store_lock.sweep(&stores, &kept, grace).unwrap(), 1);
        assert_eq!(made.map(|kept| kept.path.exists()), [true, true, false]);
        assert_eq!(store_lock.sweep(&stores, &kept, grace).unwrap(), 0);
    }

    #[test]
    fn what_is_stored_is_read_only_and_mended_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (workspace, store) = (folder.path().join("src"), folder.path().join("store"));
        std::fs::create_dir_all(workspace.join("site/css")).unwrap();
        std::fs::write(workspace.join("app"), "one").unwrap();
        std::fs::write(workspace.join("site/css/a.css"), "a").unwrap();
        let wanted = [("app", "app"), ("site", "site")]
            .map(|(name, path)| Artifact { name: name.to_owned(), path: path.to_owned() });
        let store_lock = StoreLock::default();
        let first = collect(&store_lock, &workspace, &store, &wanted).unwrap();
        let css = first[1].path.join("css/a.css");
        for path in [&first[0].path, &css, &first[1].path] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o222, 0, "{}", path.display());
        }
        std::fs::set_permissions(&css, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&css, "changed").unwrap();
        assert_ne!(digest(&first[1].path).unwrap(), first[1].sha256);
        let second = collect(&store_lock, &workspace, &store, &wanted).unwrap();
        assert_eq!(second[1].path, first[1].path);
        assert_eq!(digest(&first[1].path).unwrap(), first[1].sha256);
        files::remove_tree(&store).unwrap();
        assert!(!store.exists());
    }
}

//! The git binary, with an environment in which only what is written here counts.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pavior_core::digest::Digest;
use pavior_driver::{Failure, FailureCode, Redactor};
use pavior_expr::{SkeletonFile, evaluate_text, render_skeleton};
use serde_json::Value;

use crate::child::{self, Work};
use crate::content::{copy, digest};
use crate::files;
use crate::shim;

/// Longest a single git command may take here.
const TIMEOUT: Duration = Duration::from_secs(120);
/// From the signal to the kill of one that nobody waits for.
const GRACE: Duration = Duration::from_secs(2);
/// The last commit that the platform rendered: base of upgrades.
const RENDERED: &str = "refs/pavior/rendered";
/// Branch that an upgrade is offered on.
const UPGRADE: &str = "refs/heads/pavior-upgrade";

/// Runs git.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    environment: Arc<BTreeMap<String, String>>,
    shim: Arc<[OsString]>,
    holds: Option<Arc<dyn Any + Send + Sync>>,
}

pub(crate) fn io(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| {
        tracing::error!(error = %error, "repository files cannot be {what}");
        Failure::new(FailureCode::Internal, format!("the repository's files cannot be {what}"))
    }
}

impl Git {
    pub(crate) fn new(inherited: &BTreeMap<String, String>, shim: &[OsString]) -> Self {
        let mut environment: BTreeMap<String, String> = BTreeMap::new();
        if let Some(path) = inherited.get("PATH") {
            environment.insert("PATH".to_owned(), path.clone());
        }
        let fixed = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("HOME", "/nonexistent"),
            ("LC_ALL", "C.UTF-8"),
            ("GIT_AUTHOR_NAME", "Pavior"),
            ("GIT_AUTHOR_EMAIL", "pavior@localhost"),
            ("GIT_COMMITTER_NAME", "Pavior"),
            ("GIT_COMMITTER_EMAIL", "pavior@localhost"),
            // Hooks and file system monitors of a repository are code of whoever wrote it.
            ("GIT_CONFIG_COUNT", "10"),
            ("GIT_CONFIG_KEY_0", "core.hooksPath"),
            ("GIT_CONFIG_VALUE_0", "/dev/null"),
            ("GIT_CONFIG_KEY_1", "core.fsmonitor"),
            ("GIT_CONFIG_VALUE_1", "false"),
            ("GIT_CONFIG_KEY_2", "safe.directory"),
            ("GIT_CONFIG_VALUE_2", "*"),
            ("GIT_CONFIG_KEY_3", "core.fsync"),
            ("GIT_CONFIG_VALUE_3", "committed"),
            // What others push is branches and tags; the rest is the platform's own.
            ("GIT_CONFIG_KEY_4", "receive.hideRefs"),
            ("GIT_CONFIG_VALUE_4", "refs"),
            ("GIT_CONFIG_KEY_5", "receive.hideRefs"),
            ("GIT_CONFIG_VALUE_5", "!refs/heads"),
            ("GIT_CONFIG_KEY_6", "receive.hideRefs"),
            ("GIT_CONFIG_VALUE_6", "!refs/tags"),
            // Nothing goes on behind a command that has ended.
            ("GIT_CONFIG_KEY_7", "gc.autoDetach"),
            ("GIT_CONFIG_VALUE_7", "false"),
            // A push reads objects from elsewhere than it has its own, so what is there twice is not its to tidy up.
            ("GIT_CONFIG_KEY_8", "receive.autogc"),
            ("GIT_CONFIG_VALUE_8", "false"),
            // What it brings is a pack, which is put where packs are.
            ("GIT_CONFIG_KEY_9", "receive.unpackLimit"),
            ("GIT_CONFIG_VALUE_9", "1"),
        ];
        environment.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self { environment: Arc::new(environment), shim: shim.into(), holds: None }
    }

    /// The same, of which no command ends after this is given up.
    pub(crate) fn holding(&self, what: Arc<dyn Any + Send + Sync>) -> Self {
        Self { holds: Some(what), ..self.clone() }
    }

    /// What a git command sees of the environment.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        BTreeMap::clone(&self.environment)
    }

    /// Runs a git command with the scrubbed environment and nothing on its standard input. It does not outlive its
    /// caller or the platform.
    async fn output<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        extra: &[(&str, &Path)],
    ) -> Result<(Option<i32>, String, String), Failure> {
        let mut environment = self.environment();
        for (name, path) in extra {
            environment.insert((*name).to_owned(), path.to_string_lossy().into_owned());
        }
        let words = args.iter().map(|word| word.as_ref().to_owned());
        let work = Work {
            command: std::iter::once(OsString::from("git")).chain(words).collect(),
            environment,
            directory: PathBuf::from("/"),
            status_file: None,
            grace: GRACE,
            redactor: Redactor::default(),
            holds: self.holds.clone(),
        };
        let unavailable =
            |why: &str| Failure::new(FailureCode::Unavailable, format!("git cannot be run{why}"));
        let output = tokio::time::timeout(TIMEOUT, child::output(&self.shim, &work))
            .await
            .map_err(|_| Failure::new(FailureCode::Timeout, "git took too long"))?
            .map_err(|error| unavailable(&format!(": {}", error.kind())))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.code.is_some_and(shim::is_own_failure) {
            tracing::error!(stderr = text(&output.stderr), "git cannot be run");
            return Err(unavailable(""));
        }
        Ok((output.code, text(&output.stdout), text(&output.stderr)))
    }

    pub(crate) async fn run<S: AsRef<OsStr>>(
        &self,
        args: &[S],
        extra: &[(&str, &Path)],
    ) -> Result<String, Failure> {
        let (code, stdout, stderr) = self.output(args, extra).await?;
        if code == Some(0) {
            return Ok(stdout);
        }
        tracing::error!(?code, stderr, "git failed");
        Err(Failure::new(FailureCode::Internal, "git failed"))
    }

    pub(crate) async fn version(&self) -> Result<String, Failure> {
        self.run(&["--version"], &[]).await
    }

    /// A value of the repository's own configuration.
    pub(crate) async fn config(&self, repository: &Path, name: &str) -> Result<Option<String>, Failure> {
        let file = repository.join("config");
        let args: [&OsStr; 5] =
            ["config".as_ref(), "--file".as_ref(), file.as_ref(), "--get".as_ref(), name.as_ref()];
        let (code, stdout, _) = self.output(&args, &[]).await?;
        Ok((code == Some(0)).then_some(stdout))
    }

    /// Sets a value of the repository's own configuration.
    pub(crate) async fn configure(&self, repository: &Path, name: &str, value: &str) -> Result<(), Failure> {
        let file = repository.join("config");
        let args: [&OsStr; 5] =
            ["config".as_ref(), "--file".as_ref(), file.as_ref(), name.as_ref(), value.as_ref()];
        self.run(&args, &[]).await.map(|_| ())
    }

    /// Packs what has become many small files, if it has.
    pub(crate) async fn sweep_old(&self, repository: &Path) -> Result<(), Failure> {
        let args: [&OsStr; 5] =
            ["-C".as_ref(), repository.as_ref(), "gc".as_ref(), "--auto".as_ref(), "--quiet".as_ref()];
        self.run(&args, &[]).await.map(drop)
    }

    /// Head of a branch; nothing when the branch has no commit.
    pub(crate) async fn head(&self, repository: &Path, branch: &str) -> Result<Option<String>, Failure> {
        self.resolve(repository, &format!("refs/heads/{branch}")).await
    }

    /// The commit behind a revision, when there is one.
    pub(crate) async fn resolve(&self, repository: &Path, revision: &str) -> Result<Option<String>, Failure> {
        let revision = format!("{revision}^{{commit}}");
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &revision];
        let (code, stdout, _) = self.output(&args, &[("GIT_DIR", repository)]).await?;
        Ok((code == Some(0) && !stdout.is_empty()).then_some(stdout))
    }

    /// Makes a whole repository beside its place and moves it there in one step.
    pub(crate) async fn create(
        &self,
        building: &Path,
        target: &Path,
        branch: &str,
        files: Vec<SkeletonFile>,
        settings: &[(&str, String)],
        mark: &(dyn Fn(&Path) -> std::io::Result<()> + Sync),
    ) -> Result<(), Failure> {
        let workshop = tempfile::tempdir_in(building).map_err(io("made"))?;
        let repository = workshop.path().join("repository.git");
        let branch_option = format!("--initial-branch={branch}");
        let init: [&OsStr; 6] = [
            "init".as_ref(),
            "--bare".as_ref(),
            "--quiet".as_ref(),
            "--template=".as_ref(),
            branch_option.as_ref(),
            repository.as_ref(),
        ];
        self.run(&init, &[]).await?;
        let fixed =
            [("http.receivepack", "true"), ("transfer.fsckObjects", "true"), ("core.hooksPath", "/dev/null")];
        let all =
            fixed.into_iter().map(|(name, value)| (name, value.to_owned())).chain(settings.iter().cloned());
        for (name, value) in all {
            self.configure(&repository, name, &value).await?;
        }
        if !files.is_empty() {
            let tree = self.tree(&repository, workshop.path(), files).await?;
            let commit =
                self.commit(&repository, &tree, None, "Create the repository from its golden path").await?;
            self.update_ref(&repository, RENDERED, &commit).await?;
            self.update_ref(&repository, &format!("refs/heads/{branch}"), &commit).await?;
        }
        mark(&repository).map_err(io("made"))?;
        let parent = target.parent().unwrap_or(building);
        files::private_directory(parent).map_err(io("made"))?;
        std::fs::rename(&repository, target).map_err(io("moved"))?;
        files::sync_directory(parent).map_err(io("moved"))
    }

    /// Offers a new rendering: as a branch that merges as usual, and directly where nobody has changed anything.
    pub(crate) async fn upgrade(
        &self,
        repository: &Path,
        branch: &str,
        files: Vec<SkeletonFile>,
        key: &str,
    ) -> Result<(), Failure> {
        let workshop = tempfile::tempdir().map_err(io("made"))?;
        let tree = self.tree(repository, workshop.path(), files).await?;
        let base = self.resolve(repository, RENDERED).await?;
        if let Some(base) = &base {
            let old =
                self.run(&["rev-parse", &format!("{base}^{{tree}}")], &[("GIT_DIR", repository)]).await?;
            if old == tree {
                return Ok(());
            }
        }
        let head = self.head(repository, branch).await?;
        if let Some(head) = &head {
            let current =
                self.run(&["rev-parse", &format!("{head}^{{tree}}")], &[("GIT_DIR", repository)]).await?;
            if current == tree {
                // An earlier attempt got this far, or the developers did the same by hand.
                return self.update_ref(repository, RENDERED, head).await;
            }
        }
        let message = format!("Upgrade from the golden path\n\nKey: {key}");
        let commit = self.commit(repository, &tree, base.as_deref(), &message).await?;
        if head == base {
            self.update_ref(repository, &format!("refs/heads/{branch}"), &commit).await?;
        } else {
            self.update_ref(repository, UPGRADE, &commit).await?;
        }
        self.update_ref(repository, RENDERED, &commit).await
    }

    async fn tree(
        &self,
        repository: &Path,
        workshop: &Path,
        files: Vec<SkeletonFile>,
    ) -> Result<String, Failure> {
        let worktree = workshop.join("tree");
        let target = worktree.clone();
        tokio::task::spawn_blocking(move || write_files(&target, files))
            .await
            .map_err(|_| Failure::new(FailureCode::Internal, "writing broke off"))?
            .map_err(io("written"))?;
        let index = workshop.join("index");
        let places: [(&str, &Path); 3] =
            [("GIT_DIR", repository), ("GIT_WORK_TREE", &worktree), ("GIT_INDEX_FILE", &index)];
        self.run(&["add", "--all", "--force", "--", ":/"], &places).await?;
        self.run(&["write-tree"], &places).await
    }

    async fn commit(
        &self,
        repository: &Path,
        tree: &str,
        parent: Option<&str>,
        message: &str,
    ) -> Result<String, Failure> {
        let mut args = vec!["commit-tree", "-m", message];
        if let Some(parent) = parent {
            args.extend(["-p", parent]);
        }
        args.push(tree);
        self.run(&args, &[("GIT_DIR", repository)]).await
    }

    async fn update_ref(&self, repository: &Path, name: &str, commit: &str) -> Result<(), Failure> {
        self.run(&["update-ref", name, commit], &[("GIT_DIR", repository)]).await.map(|_| ())
    }

    /// A private copy of one commit, without the way back to the repository.
    pub(crate) async fn checkout(
        &self,
        repository: &Path,
        commit: &str,
        target: &Path,
    ) -> Result<(), Failure> {
        let clone: [&OsStr; 7] = [
            "clone".as_ref(),
            "--quiet".as_ref(),
            "--no-checkout".as_ref(),
            "--no-hardlinks".as_ref(),
            "--template=".as_ref(),
            repository.as_ref(),
            target.as_ref(),
        ];
        self.run(&clone, &[]).await?;
        let places: [(&str, &Path); 2] = [("GIT_DIR", &target.join(".git")), ("GIT_WORK_TREE", target)];
        self.run(&["checkout", "--quiet", "--detach", commit], &places).await?;
        self.run(&["remote", "remove", "origin"], &places).await.map(|_| ())
    }
}

/// A link is in no digest, so it is in no skeleton.
fn plain(directory: &Path) -> Result<(), Failure> {
    let mut entries = walkdir::WalkDir::new(directory).into_iter().flatten();
    let plain = |kind: std::fs::FileType| kind.is_file() || kind.is_dir();
    if entries.any(|entry| entry.path_is_symlink() || !plain(entry.file_type())) {
        let message = "a skeleton holds plain files only, no links";
        return Err(Failure::new(FailureCode::InvalidArgument, message));
    }
    Ok(())
}

/// The digest of a skeleton.
pub(crate) fn skeleton_digest(directory: &Path) -> Result<Digest, Failure> {
    plain(directory)?;
    digest(directory).map_err(io("read"))
}

/// A copy of a skeleton that has the digest which was planned with, to be rendered from.
pub(crate) fn pinned_copy(directory: &Path, planned: &Digest) -> Result<tempfile::TempDir, Failure> {
    plain(directory)?;
    let copied = tempfile::tempdir().map_err(io("copied"))?;
    let (found, _) = copy(directory, copied.path()).map_err(io("copied"))?;
    if found == *planned { Ok(copied) } else { Err(Failure::changed("the skeleton", planned, &found)) }
}

/// Skeleton and single files, rendered; a single file replaces one of the skeleton.
pub(crate) fn render(
    directory: Option<&Path>,
    extra: &BTreeMap<String, String>,
    scope: &Value,
) -> Result<Vec<SkeletonFile>, Failure> {
    let bad = |error: pavior_expr::ExprError| Failure::new(FailureCode::InvalidArgument, error.to_string());
    let mut files: BTreeMap<String, SkeletonFile> = BTreeMap::new();
    if let Some(directory) = directory {
        render_skeleton(directory, scope, &mut |file| {
            let path = file.path.clone();
            match files.insert(path.clone(), file) {
                None => Ok(()),
                Some(_) => Err(format!("two files render to `{path}`")),
            }
        })
        .map_err(bad)?;
    }
    for (path, content) in extra {
        let normal = Path::new(path).components().all(
            |part| matches!(part, std::path::Component::Normal(name) if !name.eq_ignore_ascii_case(".git")),
        );
        if !normal || path.is_empty() || path.contains(['\\', '\0']) {
            let message = format!("`{path}` is not a path below the repository");
            return Err(Failure::new(FailureCode::InvalidArgument, message));
        }
        let bytes = evaluate_text(content, scope).map_err(bad)?.into_bytes();
        files.insert(path.clone(), SkeletonFile { path: path.clone(), bytes, executable: false });
    }
    let directories: BTreeSet<&str> =
        files.keys().flat_map(|path| path.match_indices('/').map(move |(at, _)| &path[..at])).collect();
    if let Some(both) = files.keys().find(|path| directories.contains(path.as_str())) {
        let message = format!("`{both}` is a file and a directory");
        return Err(Failure::new(FailureCode::InvalidArgument, message));
    }
    Ok(files.into_values().collect())
}

fn write_files(target: &Path, files: Vec<SkeletonFile>) -> std::io::Result<()> {
    files::private_directory(target)?;
    for file in files {
        let path = target.join(&file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.bytes)?;
        if file.executable {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Out of its place first, so that nobody sees half of it; then deleted.
pub(crate) fn remove(path: &Path, grave: &PathBuf) -> std::io::Result<()> {
    files::remove_tree(grave)?;
    match std::fs::rename(path, grave) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    files::remove_tree(grave)
}

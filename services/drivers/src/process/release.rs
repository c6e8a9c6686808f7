//! A workload's own copies of the artifacts that it is told of.
//!
//! What a command or a variable says is text. Wherever an artifact stands in it, the workload gets the path of a copy
//! whose digest was taken; any other way into the store that the text names is refused. What a program makes up by
//! itself while it runs is beyond this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pavior_core::digest::Digest;
use pavior_driver::{Failure, FailureCode};

use crate::content::{copy, digest};
use crate::pipeline::{ArtifactLocation, stored};
use crate::place::below;

/// Where a workload's artifacts come from and go to.
pub(super) struct Place {
    /// The stores of all organizations.
    pub(super) artifacts: PathBuf,
    pub(super) organization: String,
    /// The workload's copies.
    pub(super) releases: PathBuf,
    /// Where its process starts: what relative paths are below.
    pub(super) home: PathBuf,
}

/// What is installed.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) command: Vec<String>,
    pub(super) variables: BTreeMap<String, String>,
    /// The first artifact's.
    pub(super) digest: Option<Digest>,
}

/// Copies the artifacts that command and variables name into the workload's own directory, so that it does not depend
/// on how long runs are kept, and gives both over the copies. What is copied must have the digest under which it
/// stands.
pub(super) fn install(
    place: &Place,
    command: &[String],
    variables: &BTreeMap<String, String>,
) -> Result<Installed, Failure> {
    let mut work = Work::new(place);
    let mut words = Vec::new();
    for (index, word) in command.iter().enumerate() {
        words.push(work.text(&format!("command[{index}]"), word)?);
    }
    let mut named = BTreeMap::new();
    for (name, value) in variables {
        named.insert(name.clone(), work.text(&format!("variables.{name}"), value)?);
    }
    Ok(Installed { command: words, variables: named, digest: work.digest })
}

/// The releases that a workload's command and variables name. Each stands under its digest.
#[derive(Clone)]
pub(super) struct Used {
    pub(super) releases: PathBuf,
    pub(super) texts: Vec<String>,
}

impl Used {
    fn names(&self, folder: &Path) -> bool {
        let folder = format!("{}/", folder.display());
        self.texts.iter().any(|text| text.contains(&folder))
    }

    /// Removes the others.
    pub(super) fn prune(&self) {
        for entry in std::fs::read_dir(&self.releases).into_iter().flatten().flatten() {
            if !self.names(&entry.path()) {
                // What cannot be removed now is removed with the workload.
                let _ = crate::files::remove_tree(&entry.path());
            }
        }
    }

    /// Takes their digests again, off the async threads: what was changed since it was deployed is not to be started.
    pub(super) async fn verify(&self) -> Result<(), Failure> {
        let used = self.clone();
        let verified = tokio::task::spawn_blocking(move || used.compare()).await;
        verified.map_err(|_| Failure::new(FailureCode::Internal, "looking at the artifacts broke off"))?
    }

    fn compare(&self) -> Result<(), Failure> {
        let io = |error: std::io::Error| {
            tracing::error!(error = %error, "a release cannot be read");
            Failure::new(FailureCode::Internal, "the workload's artifacts cannot be read")
        };
        for entry in std::fs::read_dir(&self.releases).map_err(io)? {
            let folder = entry.map_err(io)?.path();
            if !self.names(&folder) {
                continue;
            }
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            for copied in std::fs::read_dir(&folder).map_err(io)? {
                let copied = copied.map_err(io)?.path();
                let found = digest(&copied).map_err(io)?;
                // Those of earlier versions of the platform stand under the first half.
                if !found.hex().starts_with(&*name) {
                    let expected = format!("sha256:{name}");
                    let name = copied.file_name().unwrap_or_default().to_string_lossy();
                    let what = format!("the workload's copy of artifact `{name}`");
                    return Err(Failure::changed(&what, &expected, &found));
                }
            }
        }
        Ok(())
    }
}

struct Work<'a> {
    place: &'a Place,
    /// The folder of all stores as texts may spell it, the longest first: as configured, and with links resolved.
    roots: Vec<String>,
    /// The same with links resolved, when it exists.
    root: Option<PathBuf>,
    own: Option<PathBuf>,
    digest: Option<Digest>,
}

impl<'a> Work<'a> {
    fn new(place: &'a Place) -> Self {
        let root = place.artifacts.canonicalize().ok();
        let spelled: BTreeSet<String> = std::iter::once(&place.artifacts)
            .chain(root.as_ref())
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let mut roots: Vec<String> = spelled.into_iter().collect();
        roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
        let own = below(&place.artifacts, &[&place.organization], "").and_then(|own| own.canonicalize().ok());
        Self { place, roots, root, own, digest: None }
    }

    /// The text over copies. `field` names it; the text itself may hold secrets and is not told.
    fn text(&mut self, field: &str, text: &str) -> Result<String, Failure> {
        let foreign = || {
            let message = format!("`{field}` names a path that is not an artifact of this organization");
            Failure::new(FailureCode::InvalidArgument, message)
        };
        // A whole path may lead to an artifact through links and `..`.
        let whole = Path::new(text).is_absolute().then(|| Path::new(text).canonicalize().ok()).flatten();
        if let Some(real) = whole.filter(|real| self.in_store(real)) {
            let found = self.own.as_ref().and_then(|own| stored(own, &real)).ok_or_else(foreign)?;
            let copied = self.release(&found)?;
            let below = real.strip_prefix(&found.root).ok().filter(|below| !below.as_os_str().is_empty());
            return Ok(below
                .map_or(copied.clone(), |below| copied.join(below))
                .to_string_lossy()
                .into_owned());
        }
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, length)) = self.next_root(rest) {
            let (before, found) = rest.split_at(at);
            if self.leads_in(before) {
                return Err(foreign());
            }
            result.push_str(before);
            let Some((artifact, named)) = self.named(&found[length..]) else {
                return Err(self.lost(&found[length..]).unwrap_or_else(foreign));
            };
            result.push_str(&self.release(&artifact)?.to_string_lossy());
            rest = &found[length + named..];
            // What follows belongs to the copy, and stays in it.
            let below = rest.split(ends_path).next().unwrap_or_default();
            if Path::new(below).components().any(|part| part == Component::ParentDir) {
                return Err(foreign());
            }
            result.push_str(below);
            rest = &rest[below.len()..];
        }
        if self.leads_in(rest) {
            return Err(foreign());
        }
        result.push_str(rest);
        Ok(result)
    }

    /// Where the text next names the folder of all stores, and how long that name is there.
    fn next_root(&self, text: &str) -> Option<(usize, usize)> {
        let found = self.roots.iter().flat_map(|root| {
            let longer = |next: char| next.is_alphanumeric() || "._-".contains(next);
            let hits = text.match_indices(root.as_str()).map(|(at, _)| (at, root.len()));
            hits.filter(move |(at, length)| !text[at + length..].starts_with(longer))
        });
        found.min_by_key(|(at, length)| (*at, std::cmp::Reverse(*length)))
    }

    /// The artifact whose path below the folder of all stores a text begins with, and how much of the text it is.
    fn named(&self, text: &str) -> Option<(ArtifactLocation, usize)> {
        let mut parts = text.strip_prefix('/')?.splitn(5, '/');
        let (organization, store, kind, digest, rest) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let own = self.own.as_ref().filter(|_| organization == self.place.organization)?;
        let folder = below(own, &[store, kind, digest], "")?;
        // Names may hold anything, so that only what stands there tells where one ends.
        let names = std::fs::read_dir(&folder).ok()?.flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let ends = |name: &str| {
            let after = rest.strip_prefix(name);
            after.is_some_and(|after| {
                after.is_empty() || after.starts_with('/') || after.starts_with(ends_path)
            })
        };
        let name = names.filter(|name| ends(name)).max_by_key(String::len)?;
        let artifact = stored(own, &folder.join(&name))?;
        Some((artifact, text.len() - rest.len() + name.len()))
    }

    /// That the text names an artifact of the organization which is kept no more.
    fn lost(&self, text: &str) -> Option<Failure> {
        let parts: Vec<&str> = text.strip_prefix('/')?.splitn(5, '/').collect();
        let [organization, store, kind, digest, name] = parts.as_slice() else { return None };
        let own = below(&self.place.artifacts, &[organization], "");
        let own = own.filter(|_| *organization == self.place.organization)?;
        let path = below(&own, &[store, kind, digest], "")?;
        let digest = stored(&own, &path.join(name))?.digest;
        let is_there = std::fs::read_dir(path).is_ok_and(|mut names| names.next().is_some());
        let message = format!("artifact `{digest}` is kept no more: run the pipeline again");
        (!is_there).then(|| Failure::new(FailureCode::NotFound, message))
    }

    /// Whether a path in the text leads into the store, be it relative, through links or with `..`.
    fn leads_in(&self, text: &str) -> bool {
        text.split(ends_path).filter(|word| !word.is_empty()).any(|word| {
            let begins = [Some(0), word.find('/'), word.find("..")];
            begins.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().any(|at| {
                let path = self.place.home.join(&word[at..]);
                self.in_store(&plain(&path)) || path.canonicalize().is_ok_and(|real| self.in_store(&real))
            })
        })
    }

    fn in_store(&self, path: &Path) -> bool {
        path.starts_with(&self.place.artifacts)
            || self.root.as_ref().is_some_and(|root| path.starts_with(root))
    }

    /// The workload's own copy of an artifact.
    fn release(&mut self, artifact: &ArtifactLocation) -> Result<PathBuf, Failure> {
        let io = |error: std::io::Error| {
            tracing::error!(error = %error, "artifact cannot be installed");
            Failure::new(FailureCode::Internal, "the artifact cannot be installed")
        };
        let releases = &self.place.releases;
        let name = artifact.root.file_name().map(PathBuf::from).unwrap_or_default();
        let staged = tempfile::tempdir_in(releases).map_err(io)?;
        // The digest is that of the copy, so that nothing can be changed between the look and the use.
        let (found, _) = copy(&artifact.root, &staged.path().join(&name)).map_err(io)?;
        if found != artifact.digest {
            let what = format!("artifact `{}`", name.display());
            return Err(Failure::changed(&what, &artifact.digest, &found));
        }
        // By digest, so that a running older release is never written over.
        let target = releases.join(found.hex());
        let copied = target.join(&name);
        if !digest(&copied).is_ok_and(|there| there == found) {
            crate::files::private_directory(&target).map_err(io)?;
            crate::files::remove_tree(&copied).map_err(io)?;
            std::fs::rename(staged.path().join(&name), &copied).map_err(io)?;
            // A program that writes beside itself would not be what was deployed at its next start.
            crate::files::read_only(&copied).map_err(io)?;
        }
        self.digest.get_or_insert(found);
        Ok(copied)
    }
}

/// Whether a path in a text cannot go on over this character.
fn ends_path(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'`=:;,|&<>(){}[]$@?#*!\\".contains(c)
}

/// A path without `.` and `..`, as far as its text tells.
fn plain(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(result.pop()),
            part => result.push(part),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use pavior_core::digest::sha256_hex;

    use super::*;

    struct World {
        place: Place,
        artifact: String,
        _base: tempfile::TempDir,
    }

    fn world() -> World {
        let base = tempfile::tempdir().unwrap();
        let data = base.path().canonicalize().unwrap().join("my data");
        let artifacts = data.join("artifacts");
        let mut paths = Vec::new();
        for organization in ["acme", "globex"] {
            let folder =
                artifacts.join(organization).join("pipeline-1/sha256").join(sha256_hex(b"echo one\n"));
            std::fs::create_dir_all(&folder).unwrap();
            for name in ["app", "app one.sh"] {
                std::fs::write(folder.join(name), "echo one\n").unwrap();
            }
            paths.push(folder.join("app").to_string_lossy().into_owned());
        }
        let (releases, home) = (data.join("workloads/w/releases"), data.join("workloads/w/data"));
        for folder in [&releases, &home] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::os::unix::fs::symlink(artifacts.join("acme"), data.join("link")).unwrap();
        let organization = "acme".to_owned();
        let place = Place { artifacts, organization, releases, home };
        World { place, artifact: paths.remove(0), _base: base }
    }

    impl World {
        fn word(&self, word: &str) -> Result<Installed, Failure> {
            install(&self.place, &[word.to_owned()], &BTreeMap::new())
        }

        fn copied(&self, name: &str) -> String {
            let digest = sha256_hex(b"echo one\n");
            self.place.releases.join(&digest).join(name).to_string_lossy().into_owned()
        }
    }

    #[test]
    fn a_copy_stands_wherever_an_artifact_is_named() {
        let world = world();
        let (artifact, copied) = (&world.artifact, world.copied("app"));
        for (text, want) in [
            (artifact.clone(), copied.clone()),
            (format!("--app={artifact}"), format!("--app={copied}")),
            (format!("-I{artifact}/include"), format!("-I{copied}/include")),
            (format!("exec \"{artifact}\"/run; {artifact} x"), format!("exec \"{copied}\"/run; {copied} x")),
            (format!("{artifact}/bin:/usr/bin"), format!("{copied}/bin:/usr/bin")),
            (format!("'{artifact} one.sh' {artifact}"), format!("'{}' {copied}", world.copied("app one.sh"))),
            (format!("file://{artifact}"), format!("file://{copied}")),
        ] {
            let installed = world.word(&text).unwrap();
            assert_eq!(installed.command, std::slice::from_ref(&want), "{text}");
            assert_eq!(installed.digest, Some(Digest::of(b"echo one\n")));
            let variables = BTreeMap::from([("APP".to_owned(), text.clone())]);
            let installed = install(&world.place, &[], &variables).unwrap();
            assert_eq!(installed.variables["APP"], want, "{text}");
        }
        for name in ["app", "app one.sh"] {
            assert_eq!(std::fs::read_to_string(world.copied(name)).unwrap(), "echo one\n");
        }
    }

    #[test]
    fn an_artifact_that_is_kept_no_more_is_told_from_one_that_never_was() {
        let world = world();
        let folder = Path::new(&world.artifact).parent().unwrap();
        for remove in ["app", "app one.sh"] {
            std::fs::remove_file(folder.join(remove)).unwrap();
        }
        let message =
            format!("artifact `{}` is kept no more: run the pipeline again", Digest::of(b"echo one\n"));
        for _ in 0..2 {
            let failure = world.word(&format!("--app={}", world.artifact)).unwrap_err();
            assert_eq!((failure.code, &failure.message), (FailureCode::NotFound, &message));
            crate::files::remove_tree(folder).unwrap();
        }
    }

    #[test]
    fn no_other_way_leads_into_the_store() {
        let world = world();
        let (artifact, artifacts) = (&world.artifact, world.place.artifacts.display().to_string());
        let below = artifact.strip_prefix(&artifacts).unwrap().trim_start_matches('/');
        let foreign = artifact.replace("/acme/", "/globex/");
        for text in [
            foreign.clone(),
            format!("--app={foreign}"),
            format!("exec {artifacts}"),
            format!("cat {artifacts}/*/*/sha256/*/app"),
            format!("{artifact}/../app"),
            format!("x {artifact}/../app"),
            format!("{artifacts}/acme/pipeline-1/sha256/{}/other", sha256_hex(b"echo one\n")),
            format!("../../../artifacts/{below}"),
            format!("--app=../../../artifacts/{below}"),
            format!("-I../../../artifacts/{below}"),
            "cd ../../../artifacts && acme/pipeline-1".to_owned(),
            format!("./../../../link/{}", below.trim_start_matches("acme/")),
        ] {
            let failure = world.word(&text).unwrap_err();
            assert_eq!(failure.code, FailureCode::InvalidArgument, "{text}");
            assert_eq!(
                failure.message, "`command[0]` names a path that is not an artifact of this organization",
                "{text}"
            );
        }
        for organization in ["..", "../acme", "", &format!("{artifacts}/acme")] {
            let Place { artifacts, releases, home, .. } = &world.place;
            let (artifacts, releases, home) = (artifacts.clone(), releases.clone(), home.clone());
            let place = Place { artifacts, organization: organization.to_owned(), releases, home };
            let failure = install(&place, std::slice::from_ref(artifact), &BTreeMap::new()).unwrap_err();
            assert_eq!(failure.code, FailureCode::InvalidArgument, "{organization}");
        }
        let variables = BTreeMap::from([("APP".to_owned(), foreign)]);
        let failure = install(&world.place, &[], &variables).unwrap_err();
        assert_eq!(
            failure.message,
            "`variables.APP` names a path that is not an artifact of this organization"
        );
        for text in ["app", "-c", "import os; print(1/2)", "../x", "/usr/bin/../bin/env", "${HOME}/a"] {
            assert_eq!(world.word(text).unwrap().command, [text]);
        }
        let other = format!("{artifacts}-of-others/x");
        assert_eq!(world.word(&other).unwrap().command, [other]);
    }

    #[test]
    fn what_is_used_by_a_variable_is_not_pruned() {
        let world = world();
        let variables = BTreeMap::from([("APP".to_owned(), format!("x={}", world.artifact))]);
        let installed = install(&world.place, &[], &variables).unwrap();
        let texts: Vec<String> = installed.variables.into_values().collect();
        let used = |texts| Used { releases: world.place.releases.clone(), texts };
        used(texts).prune();
        assert!(Path::new(&world.copied("app")).exists());
        used(Vec::new()).prune();
        assert!(!Path::new(&world.copied("app")).exists());
    }
}

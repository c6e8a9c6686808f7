//! What a run leaves: copied out of the workspace whole, with a digest, never through a link.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use pavior_core::digest::sha256_hex;
use pavior_driver::{Failure, FailureCode};
use serde::Serialize;

use super::Artifact;
use crate::files;

/// An artifact that is kept.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kept {
    name: String,
    path: PathBuf,
    sha256: String,
    size: u64,
}

fn io(name: &str) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| {
        tracing::error!(error = %error, artifact = name, "artifact cannot be kept");
        Failure::new(FailureCode::Internal, format!("artifact `{name}` cannot be kept"))
    }
}

/// Copies every artifact into `target`, which appears whole or not at all.
pub(super) fn collect(workspace: &Path, target: &Path, wanted: &[Artifact]) -> Result<Vec<Kept>, Failure> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let parent = target.parent().unwrap_or(target);
    files::private_directory(parent).map_err(io("all"))?;
    let staging = tempfile::tempdir_in(parent).map_err(io("all"))?;
    let mut kept = Vec::new();
    for artifact in wanted {
        let source = find(workspace, artifact)?;
        let file_name = source.file_name().map(PathBuf::from).unwrap_or_default();
        let relative = Path::new(&artifact.name).join(file_name);
        let (sha256, size) = copy(&source, &staging.path().join(&relative)).map_err(io(&artifact.name))?;
        kept.push(Kept { name: artifact.name.clone(), path: target.join(relative), sha256, size });
    }
    // A run that was repeated leaves the same set again.
    files::remove_tree(target).map_err(io("all"))?;
    std::fs::rename(staging.keep(), target).map_err(io("all"))?;
    files::sync_directory(parent).map_err(io("all"))?;
    Ok(kept)
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
        [one] => Ok(one.clone()),
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

/// Copies a file or a tree; digest of a tree is the digest over its sorted list of paths and digests.
pub(crate) fn copy(source: &Path, target: &Path) -> std::io::Result<(String, u64)> {
    if !std::fs::symlink_metadata(source)?.is_dir() {
        return copy_file(source, target);
    }
    let mut list = String::new();
    let mut size = 0;
    for entry in walkdir::WalkDir::new(source).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::other)?;
        let relative = entry.path().strip_prefix(source).map_err(std::io::Error::other)?;
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(target.join(relative))?;
        } else if entry.file_type().is_file() {
            let (digest, bytes) = copy_file(entry.path(), &target.join(relative))?;
            size += bytes;
            list.push_str(&format!("{digest}  {}\n", relative.display()));
        }
    }
    Ok((sha256_hex(list.as_bytes()), size))
}

fn copy_file(source: &Path, target: &Path) -> std::io::Result<(String, u64)> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut from = File::open(source)?;
    let mode = from.metadata()?.permissions().mode() & 0o755;
    let mut to = File::create(target)?;
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0_u8; 128 * 1024];
    let mut size = 0_u64;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        size += read as u64;
    }
    to.set_permissions(std::fs::Permissions::from_mode(mode))?;
    to.sync_all()?;
    Ok((hex::encode(digest.finish()), size))
}

#[cfg(test)]
mod tests {
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
}

//! Files and trees by content: copies of them, and their digests.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use pavior_core::digest::Digest;

/// Copies a file or a tree; digest of a tree is the digest over its sorted list of paths and digests.
pub(crate) fn copy(source: &Path, target: &Path) -> std::io::Result<(Digest, u64)> {
    read(source, Some(target))
}

/// The digest that a copy would have.
pub(crate) fn digest(source: &Path) -> std::io::Result<Digest> {
    read(source, None).map(|(digest, _)| digest)
}

fn read(source: &Path, target: Option<&Path>) -> std::io::Result<(Digest, u64)> {
    if !std::fs::symlink_metadata(source)?.is_dir() {
        return read_file(source, target);
    }
    let mut list = String::new();
    let mut size = 0;
    for entry in walkdir::WalkDir::new(source).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::other)?;
        let relative = entry.path().strip_prefix(source).map_err(std::io::Error::other)?;
        let to = target.map(|target| target.join(relative));
        if entry.file_type().is_dir() {
            to.map_or(Ok(()), std::fs::create_dir_all)?;
        } else if entry.file_type().is_file() {
            let (digest, bytes) = read_file(entry.path(), to.as_deref())?;
            size += bytes;
            list.push_str(&line(&digest, relative));
        }
    }
    Ok((Digest::of(list.as_bytes()), size))
}

/// A file of a tree in the list that the tree's digest is taken over.
pub(crate) fn line(digest: &Digest, path: &Path) -> String {
    format!("{}  {}\n", digest.hex(), path.display())
}

/// SHA-256 over bytes that come in pieces.
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest::from_bytes(bytes)
    }
}

/// Opens what is a file and nothing else: to open a pipe waits for somebody who writes, and a link leads elsewhere.
pub(crate) fn open_file(path: &Path) -> std::io::Result<File> {
    if !path.symlink_metadata()?.is_file() {
        let text = format!("`{}` is no file", path.display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    File::open(path)
}

/// The digest is over the bytes that are written, whatever happens to the source meanwhile.
fn read_file(source: &Path, target: Option<&Path>) -> std::io::Result<(Digest, u64)> {
    if let Some(parent) = target.and_then(Path::parent) {
        std::fs::create_dir_all(parent)?;
    }
    let mut from = open_file(source)?;
    let mode = from.metadata()?.permissions().mode() & 0o755 | 0o200;
    let mut to = target.map(File::create).transpose()?;
    let mut digest = Hasher::new();
    let mut buffer = vec![0_u8; 128 * 1024];
    let mut size = 0_u64;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        if let Some(to) = &mut to {
            to.write_all(&buffer[..read])?;
        }
        size += read as u64;
    }
    if let Some(to) = to {
        to.set_permissions(std::fs::Permissions::from_mode(mode))?;
        to.sync_all()?;
    }
    Ok((digest.finish(), size))
}

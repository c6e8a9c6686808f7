//! Files and trees by content: copies of them, and their digests.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use pavior_core::digest::Digest;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

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
        } else {
            let (digest, bytes) = read_file(entry.path(), to.as_deref()).map_err(|error| {
                std::io::Error::new(error.kind(), format!("`{}` {error}", relative.display()))
            })?;
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

/// Opens what is a file and nothing else: a link leads elsewhere, and to read a pipe waits for somebody who writes. It is
/// the opened thing that is looked at, so that nobody puts another in its place in between.
pub(crate) fn open_file(path: &Path) -> std::io::Result<File> {
    let no_file = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "is neither a file nor a folder");
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        // A link, and a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Err(no_file()),
        opened => File::from(opened?),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What is no file is refused wherever it stands, and nobody waits for it.
    #[test]
    fn what_is_no_file_is_refused_alone_and_in_a_folder() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("folder");
        std::fs::create_dir_all(folder.join("in")).unwrap();
        std::fs::write(folder.join("in/file"), "x").unwrap();
        let odd = folder.join("in/odd");
        let digest_of_all = digest(&folder).unwrap();
        let make: [fn(&Path); 3] = [
            |path| std::os::unix::fs::symlink("file", path).unwrap(),
            |path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
            |path| drop(UnixListener::bind(path).unwrap()),
        ];
        for make in make {
            make(&odd);
            let alone = open_file(&odd).unwrap_err();
            assert_eq!(alone.kind(), std::io::ErrorKind::InvalidInput);
            assert_eq!(alone.to_string(), "is neither a file nor a folder");
            let within = copy(&folder, &base.path().join("copy")).unwrap_err();
            assert_eq!(within.kind(), std::io::ErrorKind::InvalidInput);
            assert_eq!(within.to_string(), "`in/odd` is neither a file nor a folder");
            std::fs::remove_file(&odd).unwrap();
        }
        assert_eq!(digest(&folder).unwrap(), digest_of_all);
        assert_eq!(open_file(&folder).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
}

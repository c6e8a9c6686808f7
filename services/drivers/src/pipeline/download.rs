//! Artifacts given out: a file as it is, a tree as a tar archive. The digest is taken of the bytes that are given.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use futures::StreamExt as _;
use pavior_core::digest::Digest;
use pavior_driver::{ArtifactContent, ArtifactFormat, Failure, FailureCode, MAX_PIECE};
use tokio::sync::mpsc;

use super::artifacts::ArtifactLocation;
use crate::content::{Hasher, line, open_file};

/// Pieces that may wait for a slow reader; then reading waits.
const WAITING: usize = 2;

/// Begins to read an artifact. Reading ends when the content is dropped.
pub(super) fn open(artifact: ArtifactLocation) -> ArtifactContent {
    let (sender, receiver) = mpsc::channel(WAITING);
    let name = artifact.root.file_name().unwrap_or_default();
    let file_name = name.to_string_lossy().into_owned();
    let format = if artifact.root.is_dir() { ArtifactFormat::Tar } else { ArtifactFormat::File };
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender, buffer: Vec::with_capacity(MAX_PIECE) };
        let read = match format {
            ArtifactFormat::File => file(&artifact, &mut pieces),
            ArtifactFormat::Tar => tree(&artifact, &mut pieces),
        };
        pieces.end(&artifact, read);
    });
    let pieces = futures::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    ArtifactContent { file_name, format, pieces: pieces.boxed() }
}

fn file(artifact: &ArtifactLocation, pieces: &mut Pieces) -> std::io::Result<Digest> {
    let mut reader = HashingReader { file: open_file(&artifact.root)?, hasher: Hasher::new() };
    std::io::copy(&mut reader, pieces)?;
    Ok(reader.hasher.finish())
}

/// An archive that depends on the tree's paths, contents and executable bits only.
fn tree(artifact: &ArtifactLocation, pieces: &mut Pieces) -> std::io::Result<Digest> {
    let mut archive = tar::Builder::new(pieces);
    let mut list = String::new();
    for entry in walkdir::WalkDir::new(&artifact.root).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(std::io::Error::other)?;
        let relative = entry.path().strip_prefix(&artifact.root).map_err(std::io::Error::other)?;
        let mut header = tar::Header::new_gnu();
        if entry.file_type().is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, relative, std::io::empty())?;
        } else {
            let file = open_file(entry.path())?;
            let metadata = file.metadata()?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if metadata.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 });
            header.set_size(metadata.len());
            let mut reader = HashingReader { file, hasher: Hasher::new() };
            archive.append_data(&mut header, relative, &mut reader)?;
            list.push_str(&line(&reader.hasher.finish(), relative));
        }
    }
    archive.finish()?;
    Ok(Digest::of(list.as_bytes()))
}

struct HashingReader {
    file: File,
    hasher: Hasher,
}

impl Read for HashingReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Hands on what is written in pieces. The last one stays in the buffer until the digest is known.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes, Failure>>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn send(&mut self) -> std::io::Result<()> {
        let piece = Bytes::copy_from_slice(&self.buffer);
        self.buffer.clear();
        self.sender.blocking_send(Ok(piece)).map_err(|_| ErrorKind::BrokenPipe.into())
    }

    fn end(mut self, artifact: &ArtifactLocation, read: std::io::Result<Digest>) {
        let failure = match read {
            Ok(found) if found == artifact.digest => {
                if !self.buffer.is_empty() {
                    // An error means that nobody waits for the rest.
                    let _ = self.send();
                }
                return;
            }
            Ok(found) => Failure::changed("the artifact", &artifact.digest, &found),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
            Err(error) => {
                tracing::error!(%error, digest = %artifact.digest, "artifact cannot be read");
                Failure::new(FailureCode::Internal, "the artifact cannot be read")
            }
        };
        let _ = self.sender.blocking_send(Err(failure));
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.buffer.len() == MAX_PIECE {
            self.send()?;
        }
        let taken = bytes.len().min(MAX_PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! Reading what a run left with its driver.

use std::fmt;

use bytes::Bytes;
use futures::stream::BoxStream;
use pavior_core::digest::Digest;

use crate::Failure;

/// Most bytes of a piece.
pub const MAX_PIECE: usize = 64 * 1024;

/// Asks for an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadArtifactRequest {
    /// Organization id. An artifact of another organization is not found.
    pub organization: String,
    /// The digest that the run gave for it.
    pub digest: Digest,
}

/// What the bytes of an artifact are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactFormat {
    /// The file.
    File,
    /// A tar archive of a directory's files. The digest is over the list of their paths and digests.
    Tar,
}

/// An artifact that is being read.
pub struct ArtifactContent {
    /// Name of the file or directory, without a path.
    pub file_name: String,
    /// What the bytes are.
    pub format: ArtifactFormat,
    /// At most [`MAX_PIECE`] bytes each. The digest is taken on the way: where it is not the one that was asked for, a
    /// failure comes in place of the last piece. Only a stream that ends without a failure is the whole artifact.
    pub pieces: BoxStream<'static, Result<Bytes, Failure>>,
}

impl fmt::Debug for ArtifactContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactContent")
            .field("file_name", &self.file_name)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

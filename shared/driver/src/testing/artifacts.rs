//! Artifacts that the fake driver keeps, as if runs had left them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use pavior_core::digest::Digest;

use super::FakeDriver;
use crate::{ArtifactContent, ArtifactFormat, Failure, FailureCode, MAX_PIECE, ReadArtifactRequest};

/// By organization and digest.
#[derive(Default)]
pub(super) struct Artifacts(BTreeMap<(String, Digest), Bytes>);

impl FakeDriver {
    /// Keeps a file, as a run would leave it.
    pub fn keep_artifact(&self, organization: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.world().artifacts.0.insert((organization.to_owned(), digest), bytes);
        digest
    }

    /// Loses a file that was kept.
    pub fn lose_artifact(&self, organization: &str, digest: Digest) {
        self.world().artifacts.0.remove(&(organization.to_owned(), digest));
    }

    /// Damages a file that is kept: it is no longer what its digest says.
    pub fn damage_artifact(&self, organization: &str, digest: Digest) {
        self.world().artifacts.0.insert((organization.to_owned(), digest), Bytes::from_static(b"damaged"));
    }
}

impl Artifacts {
    pub(super) fn read(&self, request: ReadArtifactRequest) -> Result<ArtifactContent, Failure> {
        let ReadArtifactRequest { organization, digest } = request;
        let missing = || Failure::new(FailureCode::NotFound, format!("artifact `{digest}` does not exist"));
        let bytes = self.0.get(&(organization, digest)).ok_or_else(missing)?;
        let mut pieces: Vec<Result<Bytes, Failure>> =
            bytes.chunks(MAX_PIECE).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let found = Digest::of(bytes);
        if found != digest {
            pieces.pop();
            pieces.push(Err(Failure::changed("the artifact", &digest, &found)));
        }
        let (file_name, format) = ("artifact".to_owned(), ArtifactFormat::File);
        Ok(ArtifactContent { file_name, format, pieces: stream::iter(pieces).boxed() })
    }
}

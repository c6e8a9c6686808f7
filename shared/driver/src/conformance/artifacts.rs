//! What a driver gives of the artifacts that it keeps.

use futures::TryStreamExt as _;
use pavior_core::digest::Digest;

use super::{Check, Subject};
use crate::{ArtifactFormat, Driver, FailureCode, MAX_PIECE, ReadArtifactRequest};

impl Subject {
    /// A driver need not keep artifacts; one that does has no more than it was given.
    pub(super) async fn lacks_artifacts(&self) -> Check {
        let digest = Digest::of(b"an artifact that no run left");
        let request = ReadArtifactRequest { organization: self.organization.clone(), digest };
        let answer = self.driver.read_artifact(request).await;
        let code = answer.as_ref().err().map(|failure| failure.code);
        let refused = [Some(FailureCode::NotFound), Some(FailureCode::Unsupported)];
        ensure!(refused.contains(&code), "answered {answer:?}");
        Ok(())
    }
}

/// Holds a driver against the contract with an artifact that it keeps: a file with this digest.
///
/// # Errors
/// What the driver does wrong.
pub async fn reads_artifact(driver: &dyn Driver, organization: &str, digest: Digest) -> Result<(), String> {
    let request = ReadArtifactRequest { organization: organization.to_owned(), digest };
    let foreign = ReadArtifactRequest { organization: format!("{organization}-other"), ..request.clone() };
    let content = driver.read_artifact(request).await.map_err(|failure| failure.to_string())?;
    ensure!(content.format == ArtifactFormat::File, "the file comes as {:?}", content.format);
    let name = &content.file_name;
    ensure!(!name.is_empty() && !name.contains('/'), "`{name}` is no name of a file");
    let pieces: Vec<_> = content.pieces.try_collect().await.map_err(|failure| failure.to_string())?;
    let odd = pieces.iter().map(bytes::Bytes::len).find(|length| !(1..=MAX_PIECE).contains(length));
    ensure!(odd.is_none(), "a piece has {} bytes", odd.unwrap_or_default());
    let found = Digest::of(&pieces.concat());
    ensure!(found == digest, "the bytes have the digest {found} instead of {digest}");
    let code = driver.read_artifact(foreign).await.map(|_| ()).map_err(|failure| failure.code);
    ensure!(code == Err(FailureCode::NotFound), "another organization is answered {code:?}");
    Ok(())
}

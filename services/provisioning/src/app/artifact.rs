//! What runs left, given to callers as its driver keeps it.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use futures::{Stream, TryStreamExt as _};
use pavior_auth::Permit;
use pavior_core::digest::Digest;
use pavior_core::{Fault, nearest};
use pavior_driver::{ArtifactFormat, Failure, FailureCode, ReadArtifactRequest};
use pavior_rpc::{ErrorReason, Problem};
use prost::bytes::Bytes;
use serde_json::Value;

use super::App;
use crate::domain::names;
use crate::domain::plan::{Artifact, Change};
use crate::domain::run::Run;
use crate::error::{Error, Result};

/// Which artifact is wanted, and from where.
#[derive(Debug)]
pub(crate) struct WantedArtifact<'a> {
    /// The run, by resource name.
    pub(crate) run: &'a str,
    /// Its id in the pipeline.
    pub(crate) artifact: &'a str,
    /// How many bytes are left out.
    pub(crate) offset: i64,
}

/// An artifact that is being read.
pub(crate) struct Download<S> {
    /// The name of the file or folder, without a path.
    pub(crate) file_name: String,
    pub(crate) format: ArtifactFormat,
    /// The digest that the run recorded.
    pub(crate) digest: Digest,
    pub(crate) chunks: S,
}

/// Some bytes of an artifact, and where they begin in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
}

impl App {
    /// Opens an artifact of a run. Whoever may read the run's project in this way may have what the run left, and no
    /// other artifact of the organization: the digest comes from the run.
    pub(crate) async fn download_artifact(
        &self,
        permit: &Permit,
        action: &str,
        wanted: WantedArtifact<'_>,
    ) -> Result<Download<impl Stream<Item = Result<Chunk>> + use<>>> {
        let WantedArtifact { run: name, artifact, offset } = wanted;
        let parsed = Self::name(permit, action, "name", name, names::RUN)?;
        let offset = u64::try_from(offset)
            .map_err(|_| Problem::invalid_field("offset", Fault::OutOfRange, "must not be negative"))?;
        let run = self.db.run(permit, name).await?;
        let digest = digest_of(&run, artifact)?;
        let pipeline = parsed.parent().ok_or_else(|| Problem::internal("a run without a pipeline"))?;
        let driver = self.pipeline(permit, &pipeline).await?.driver;
        let Some(driver) = self.engine.drivers().get(&driver) else {
            return Err(Problem::unavailable(format!("driver `{driver}` is not there")).into());
        };
        let organization = permit.organization().to_owned();
        let request = ReadArtifactRequest { organization, digest };
        let content = driver.read_artifact(request).await.map_err(|failure| problem(name, failure))?;
        let name = name.to_owned();
        let pieces = content.pieces.map_err(move |failure| problem(&name, failure).into());
        Ok(Download {
            file_name: content.file_name,
            format: content.format,
            digest,
            chunks: chunks(pieces, offset),
        })
    }
}

impl App {
    /// Refuses a plan that takes an artifact which is kept no more. Whether it is still what it was is looked at when it
    /// is taken, as is what no driver says now.
    pub(super) async fn check_artifacts(
        &self,
        permit: &Permit,
        project: &str,
        changes: &[Change],
    ) -> Result<()> {
        let taken = changes.iter().filter(|change| change.is_step()).filter_map(|change| {
            let Artifact::Known(artifact) = &change.spec.artifact else { return None };
            let digest = artifact.get("sha256").and_then(Value::as_str).unwrap_or_default();
            Some((Digest::from_hex(digest).ok()?, change.resource.as_str()))
        });
        let taken: BTreeMap<Digest, &str> = taken.collect();
        if taken.is_empty() {
            return Ok(());
        }
        let rows = self.db.resources_of_project(permit, project).await?;
        let keepers: BTreeSet<String> = rows
            .into_iter()
            .filter(|row| row.type_id == names::PIPELINE_TYPE)
            .map(|row| row.driver)
            .collect();
        let keepers: Option<Vec<_>> = keepers.iter().map(|id| self.engine.drivers().get(id)).collect();
        let Some(keepers) = keepers else { return Ok(()) };
        for (digest, resource) in taken {
            let organization = permit.organization().to_owned();
            let request = ReadArtifactRequest { organization, digest };
            // What is opened is not read.
            let asked = keepers.iter().map(|driver| driver.read_artifact(request.clone()));
            let answers = join_all(asked).await;
            let gone = |answer: &std::result::Result<_, Failure>| {
                answer.as_ref().is_err_and(|failure| failure.code == FailureCode::NotFound)
            };
            if !answers.is_empty() && answers.iter().all(gone) {
                let message = format!("artifact `{digest}`, which `{resource}` takes, is kept no more");
                let fix = "run the pipeline again, and deploy what it makes";
                return Err(Problem::precondition(ErrorReason::InvalidState, message)
                    .because("STATE", resource, fix)
                    .into());
            }
        }
        Ok(())
    }
}

/// The digest of an artifact of a run.
fn digest_of(run: &Run, artifact: &str) -> Result<Digest> {
    let artifacts = run.artifacts.as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |artifact: &Value| artifact.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(found) = artifacts.iter().find(|one| name(one) == artifact) else {
        let known: Vec<String> = artifacts.iter().map(name).collect();
        let known = match known.as_slice() {
            [] => "none".to_owned(),
            known => nearest::listed(artifact, known.iter().map(String::as_str)),
        };
        let what = format!("`{artifact}` is no artifact of `{}`, which has {known}", run.name);
        return Err(Problem::invalid_field("artifact_id", Fault::NotFound, what).into());
    };
    let digest = found.get("sha256").and_then(Value::as_str).unwrap_or_default();
    Digest::from_hex(digest)
        .map_err(|_| Error::Corrupt(format!("the digest of `{artifact}` of `{}`", run.name)))
}

/// The bytes from `offset` on. Those before are read all the same: the digest is that of the whole.
fn chunks(
    pieces: impl Stream<Item = Result<Bytes>> + Unpin,
    offset: u64,
) -> impl Stream<Item = Result<Chunk>> {
    futures::stream::try_unfold((pieces, 0), move |(mut pieces, mut end)| async move {
        while let Some(mut data) = pieces.try_next().await? {
            let begin: u64 = end;
            end += data.len() as u64;
            // Less than the length of a piece, or all of it.
            let skipped = offset.saturating_sub(begin).min(data.len() as u64);
            let data = data.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
            if !data.is_empty() {
                return Ok(Some((Chunk { offset: begin + skipped, data }, (pieces, end))));
            }
        }
        if offset > end {
            let what = format!("is behind the end of the artifact, which has {end} bytes");
            return Err(Problem::invalid_field("offset", Fault::OutOfRange, what).into());
        }
        Ok(None)
    })
}

/// What a driver's failure says to whoever wanted an artifact of this run.
fn problem(run: &str, failure: Failure) -> Problem {
    let Failure { code, message, details, .. } = failure;
    match code {
        FailureCode::Changed => {
            let message = format!("an artifact of `{run}` is not what the run made: {message}");
            let problem = Problem::precondition(ErrorReason::ArtifactChanged, message);
            details.iter().fold(problem, |problem, (key, value)| problem.with(key, value))
        }
        FailureCode::Unavailable | FailureCode::Internal | FailureCode::Timeout => {
            Problem::unavailable(message)
        }
        _ => Problem::precondition(ErrorReason::InvalidState, message).because(
            "STATE",
            run,
            "run the pipeline again: its driver does not have the artifact any more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(offset: u64) -> Result<Vec<(u64, String)>> {
        let pieces = ["abc", "de", "fgh"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        let chunks = chunks(futures::stream::iter(pieces), offset);
        let chunks: Vec<Chunk> = Box::pin(chunks).try_collect().await?;
        Ok(chunks.into_iter().map(|c| (c.offset, String::from_utf8(c.data.to_vec()).unwrap())).collect())
    }

    #[tokio::test]
    async fn bytes_come_from_any_offset_on() {
        let all = "abcdefgh";
        for offset in 0..=all.len() {
            let chunks = read(offset as u64).await.unwrap();
            let mut at = offset;
            for (begin, data) in &chunks {
                assert_eq!((*begin, data.as_str()), (at as u64, &all[at..at + data.len()]));
                at += data.len();
            }
            assert_eq!(at, all.len());
        }
        let Err(Error::Refused(problem)) = read(9).await else { panic!("there is nothing there") };
        assert_eq!(problem.message, "`offset`: is behind the end of the artifact, which has 8 bytes");
    }
}

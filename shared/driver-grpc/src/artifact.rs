//! An artifact that is read, between Rust and the wire.

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use pavior_driver::{ArtifactContent, ArtifactFormat, Failure, MAX_PIECE};
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::Problem;
use pb::read_artifact_response::description::Format;
use pb::read_artifact_response::{Description, Part};
use tonic::Status;

use crate::WireError;
use crate::convert::{decode_failure, encode_failure};

pub(crate) type Parts = BoxStream<'static, Result<pb::ReadArtifactResponse, Status>>;

/// The messages of an artifact, or the one that says why there is none.
pub(crate) fn encode(opened: Result<ArtifactContent, Failure>) -> Parts {
    let content = match opened {
        Ok(content) => content,
        Err(failure) => return stream::iter([refused(&failure)]).boxed(),
    };
    let ArtifactContent { file_name, format, pieces } = content;
    let format = match format {
        ArtifactFormat::File => Format::File,
        ArtifactFormat::Tar => Format::Tar,
    };
    let description = part(Part::Description(Description { file_name, format: format.into() }));
    let rest = pieces.map(|piece| match piece {
        Ok(data) => Ok(part(Part::Data(data.into()))),
        Err(failure) => refused(&failure),
    });
    stream::iter([Ok(description)]).chain(rest).boxed()
}

fn part(part: Part) -> pb::ReadArtifactResponse {
    pb::ReadArtifactResponse { part: Some(part) }
}

fn refused(failure: &Failure) -> Result<pb::ReadArtifactResponse, Status> {
    let failure = encode_failure(failure).map_err(Problem::internal)?;
    Ok(part(Part::Failure(failure)))
}

/// Why reading ends early.
pub(crate) enum Broken {
    /// The driver says why.
    Failed(Failure),
    /// The stream broke off.
    Status(Status),
    /// The driver breaks its contract.
    Malformed(WireError),
}

/// The artifact that the messages tell of.
pub(crate) async fn decode<S>(
    mut parts: S,
    explain: impl Fn(Broken) -> Failure + Send + 'static,
) -> Result<ArtifactContent, Failure>
where
    S: Stream<Item = Result<pb::ReadArtifactResponse, Status>> + Send + Unpin + 'static,
{
    let first = parts.next().await.map(received).transpose().map_err(&explain)?;
    let Some(Part::Description(Description { file_name, format })) = first else {
        return Err(explain(Broken::Malformed(WireError::Missing("description"))));
    };
    let format = match Format::try_from(format) {
        Ok(Format::File) => ArtifactFormat::File,
        Ok(Format::Tar) => ArtifactFormat::Tar,
        Ok(Format::Unspecified) | Err(_) => {
            return Err(explain(Broken::Malformed(WireError::Meaningless("description.format"))));
        }
    };
    let pieces = parts.map(move |message| piece(message).map_err(&explain)).boxed();
    Ok(ArtifactContent { file_name, format, pieces })
}

fn piece(message: Result<pb::ReadArtifactResponse, Status>) -> Result<Bytes, Broken> {
    match received(message)? {
        Part::Data(data) if data.len() <= MAX_PIECE => Ok(data.into()),
        Part::Data(_) => Err(Broken::Malformed(WireError::TooLong("data"))),
        Part::Description(_) | Part::Failure(_) => Err(Broken::Malformed(WireError::Meaningless("part"))),
    }
}

fn received(message: Result<pb::ReadArtifactResponse, Status>) -> Result<Part, Broken> {
    match message.map_err(Broken::Status)?.part {
        Some(Part::Failure(failure)) => {
            Err(decode_failure(failure).map_or_else(Broken::Malformed, Broken::Failed))
        }
        Some(part) => Ok(part),
        None => Err(Broken::Malformed(WireError::Missing("part"))),
    }
}

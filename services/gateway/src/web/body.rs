//! Bodies: read whole within a limit, unpacked and packed, and made only when they are asked for.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use pavior_rpc::problem::Problem;
use tonic::Status;
use tonic::body::Body;

use super::text;
use crate::message;

/// Shorter answers are not worth packing.
const MIN_PACKED: usize = 1024;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
}

impl Packing {
    /// How the request says that its body is packed; the name of what is not known.
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Self, String> {
        match headers.get(name).map(|value| value.to_str().unwrap_or("unreadable")) {
            None | Some("" | "identity") => Ok(Self::Plain),
            Some("gzip") => Ok(Self::Gzip),
            Some(other) => Err(other.chars().take(40).collect()),
        }
    }

    /// How the caller takes an answer.
    pub(crate) fn wanted(headers: &HeaderMap, name: &HeaderName) -> Self {
        let gzip = text::wanted(headers, name).iter().any(|one| one == "gzip");
        if gzip { Self::Gzip } else { Self::Plain }
    }

    /// Packs what is worth it; says whether it is packed.
    pub(crate) fn pack(self, plain: Bytes) -> (Bytes, bool) {
        if self == Self::Plain || plain.len() < MIN_PACKED {
            return (plain, false);
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        match encoder.write_all(&plain).and_then(|()| encoder.finish()) {
            Ok(packed) => (packed.into(), true),
            Err(_) => (plain, false),
        }
    }

    /// Unpacks what is no longer than the limit then.
    pub(crate) fn unpack(self, bytes: Bytes, limit: usize) -> Result<Bytes, Problem> {
        match self {
            Self::Plain => Ok(bytes),
            Self::Gzip => message::unzip(&bytes, limit),
        }
    }
}

/// Reads a body whole, within the limit, and unpacks it.
pub(crate) async fn whole(mut body: Body, packing: Packing, limit: usize) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(message::broken)?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Err(Problem::too_large(Some(limit)).into());
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(packing.unpack(bytes, limit)?)
}

/// The body of a gRPC request whose message is made when it is read, so that nothing is read of callers who are not let
/// in, and what is wrong with it is told as the mistake of the request.
pub(crate) fn lazy(message: impl Future<Output = Result<Bytes, Status>> + Send + 'static) -> Body {
    let framed = async move { Ok::<_, Status>(Frame::data(message::write(&message.await?))) };
    Body::new(StreamBody::new(futures::stream::once(framed)))
}

/// Whether a request may have something in its body.
pub(crate) fn is_there(body: &Body) -> bool {
    !body.is_end_stream()
}

//! The one request message of a call: read whole, within its limit, before anything is decided.

use pavior_core::Fault;
use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use pavior_rpc::problem::{Problem, from_status};
use tonic::body::Body;
use tonic::{Code, Status};

/// Flag and length before each message (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// Reads the one message of a request and the end of its stream. Gives it uncompressed.
///
/// # Errors
/// RESOURCE_EXHAUSTED above the limit, INVALID_ARGUMENT for anything but exactly one message, UNIMPLEMENTED for an
/// unknown compression.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        // Mostly all of it comes in one piece, which is then not copied.
        if first.is_empty() && rest.is_empty() {
            first = data;
            check(&first, limit)?;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
        check(&rest, limit)?;
    }
    let whole = if rest.is_empty() { first } else { rest.freeze() };
    let Some((compressed, length)) = prefix(&whole) else { return Err(not_one()) };
    if whole.len() != PREFIX + length {
        return Err(not_one());
    }
    let message = whole.slice(PREFIX..);
    match compressed {
        0 => Ok(message),
        1 => inflate(headers, &message, limit),
        _ => Err(not_one()),
    }
}

/// The message with its prefix, as it goes to the service.
pub(crate) fn write(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    // Within the limit, which is far below 4 GiB.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(message);
    framed.freeze()
}

fn prefix(data: &[u8]) -> Option<(u8, usize)> {
    let [flag, a, b, c, d, ..] = data else { return None };
    Some((*flag, u32::from_be_bytes([*a, *b, *c, *d]) as usize))
}

/// Refuses what is too long as soon as that shows, not when all of it is in memory.
fn check(data: &[u8], limit: usize) -> Result<(), Status> {
    match prefix(data) {
        Some((_, length)) if length > limit => Err(Problem::too_large(Some(limit)).into()),
        Some((_, length)) if data.len() > PREFIX + length => Err(not_one()),
        _ => Ok(()),
    }
}

/// What stopped the body: a limit of ours, which says so, or bytes that no body has (bad chunks, bad base64).
pub(crate) fn broken(status: Status) -> Status {
    if !from_status(&status).reason.is_empty() {
        return status;
    }
    tracing::debug!(error = status.message(), "the body of a request cannot be read");
    Problem::invalid_field("", Fault::Syntax, "the body of the request cannot be read").into()
}

fn not_one() -> Status {
    Problem::invalid_field("", Fault::Syntax, "the request must hold exactly one message").into()
}

fn inflate(headers: &HeaderMap, message: &[u8], limit: usize) -> Result<Bytes, Status> {
    match headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
        Some(b"gzip") => {}
        None | Some(b"identity") => {
            return Err(Problem::invalid_field(
                "",
                Fault::Syntax,
                "a compressed message must name its encoding",
            )
            .into());
        }
        Some(_) => {
            let mut status = Status::from(Problem::unimplemented("this message encoding"));
            let accepted = tonic::metadata::MetadataValue::from_static("identity,gzip");
            status.metadata_mut().insert("grpc-accept-encoding", accepted);
            debug_assert_eq!(status.code(), Code::Unimplemented);
            return Err(status);
        }
    }
    Ok(unzip(message, limit)?)
}

/// Unpacks what is no longer than `limit` then.
pub(crate) fn unzip(packed: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let mut plain = Vec::with_capacity(packed.len().saturating_mul(4).min(limit));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::GzDecoder::new(packed)
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|_| Problem::invalid_field("", Fault::Syntax, "the message is not valid gzip"))?;
    if plain.len() > limit {
        return Err(Problem::too_large(Some(limit)));
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn read_pieces(headers: HeaderMap, pieces: Vec<Vec<u8>>) -> Result<Bytes, Code> {
        let pieces =
            pieces.into_iter().map(|piece| Ok::<_, Status>(http_body::Frame::data(Bytes::from(piece))));
        let body = Body::new(http_body_util::StreamBody::new(futures::stream::iter(pieces)));
        read(&headers, body, 100).await.map_err(|status| status.code())
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    fn encoding(name: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-encoding"), name.parse().unwrap())])
    }

    #[tokio::test]
    async fn one_message_is_read_however_it_is_cut() {
        let whole = framed(0, b"hello");
        assert_eq!(write(&Bytes::from_static(b"hello")), whole);
        for cut in 0..whole.len() {
            let (a, b) = whole.split_at(cut);
            let pieces = vec![a.to_vec(), Vec::new(), b.to_vec()];
            assert_eq!(read_pieces(HeaderMap::new(), pieces).await.unwrap(), "hello", "{cut}");
        }
        assert_eq!(read_pieces(HeaderMap::new(), vec![framed(0, b"")]).await.unwrap(), "");
        let packed = framed(1, &gzip(b"hello"));
        assert_eq!(read_pieces(encoding("gzip"), vec![packed]).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_body_that_breaks_is_the_callers_and_a_limit_stays_one() {
        let cases = [
            (Status::internal("tonic-web: Invalid symbol 33, offset 0."), Code::InvalidArgument),
            (Status::unknown("error reading a body from connection"), Code::InvalidArgument),
            (Problem::too_large(Some(1)).into(), Code::ResourceExhausted),
        ];
        for (error, code) in cases {
            let pieces = [Ok(http_body::Frame::data(Bytes::from_static(&[0, 0]))), Err(error)];
            let body = Body::new(http_body_util::StreamBody::new(futures::stream::iter(pieces)));
            let status = read(&HeaderMap::new(), body, 100).await.unwrap_err();
            assert_eq!(status.code(), code);
            assert!(!from_status(&status).reason.is_empty());
        }
    }

    #[tokio::test]
    async fn anything_but_one_message_within_the_limit_is_refused() {
        let none = HeaderMap::new;
        let cases = [
            (none(), vec![], Code::InvalidArgument),
            (none(), vec![vec![0, 0]], Code::InvalidArgument),
            (none(), vec![vec![0, 0, 0, 0, 9, 1]], Code::InvalidArgument),
            (none(), vec![framed(0, b"a"), framed(0, b"b")], Code::InvalidArgument),
            (none(), vec![framed(7, b"a")], Code::InvalidArgument),
            (none(), vec![vec![0, 0, 0, 0, 101]], Code::ResourceExhausted),
            (none(), vec![vec![0, 255, 255, 255, 255]], Code::ResourceExhausted),
            (none(), vec![framed(1, &gzip(b"a"))], Code::InvalidArgument),
            (encoding("gzip"), vec![framed(1, b"not gzip")], Code::InvalidArgument),
            (encoding("gzip"), vec![framed(1, &gzip(&[0; 50_000]))], Code::ResourceExhausted),
            (encoding("zstd"), vec![framed(1, b"a")], Code::Unimplemented),
        ];
        for (headers, pieces, code) in cases {
            assert_eq!(read_pieces(headers.clone(), pieces.clone()).await.unwrap_err(), code, "{pieces:?}");
        }
    }
}

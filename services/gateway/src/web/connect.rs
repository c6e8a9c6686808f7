//! The Connect protocol (connectrpc.com/docs/protocol): unary calls as plain HTTP, streams in envelopes.

use pavior_core::Fault;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use pavior_rpc::problem::Problem;
use prost::Message;
use serde_json::{Map, Value, json};
use tonic::Status;
use tonic::body::Body;

use super::body::Packing;
use super::messages::Messages;
use super::{Rpc, error_response, json as messages_json, text};

pub(crate) const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// How the messages of a stream are packed, and how the caller takes them.
const STREAM_PACKING: HeaderName = HeaderName::from_static("connect-content-encoding");
const STREAM_WANTED: HeaderName = HeaderName::from_static("connect-accept-encoding");

/// Flag and length before each message.
const PREFIX: usize = 5;
const PACKED: u8 = 1;
const LAST: u8 = 2;

/// In the alphabet of URLs, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Json,
    Proto,
}

impl Codec {
    /// The encoded form of a request.
    pub(crate) fn read(self, rpc: &Rpc, bytes: Bytes) -> Result<Bytes, Problem> {
        match self {
            Self::Proto => Ok(bytes),
            Self::Json => Ok(messages_json::read(&rpc.input, "", &bytes)?.encode_to_vec().into()),
        }
    }

    fn write(self, rpc: &Rpc, message: Bytes) -> Result<Bytes, Problem> {
        match self {
            Self::Proto => Ok(message),
            Self::Json => {
                let message = messages_json::decode(&rpc.output, &message)?;
                Ok(messages_json::write(&message)?.into())
            }
        }
    }
}

/// A call in this protocol: how its answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) codec: Codec,
    pub(crate) streams: bool,
    wanted: Packing,
}

impl Form {
    /// That of a method and a media type, if it is one of this protocol for the method.
    pub(crate) fn of(rpc: &Rpc, media_type: &str, headers: &HeaderMap) -> Option<Self> {
        let (codec, streams) = match media_type {
            "application/json" => (Codec::Json, false),
            "application/proto" => (Codec::Proto, false),
            "application/connect+json" => (Codec::Json, true),
            "application/connect+proto" => (Codec::Proto, true),
            _ => return None,
        };
        let wanted = if streams { STREAM_WANTED } else { header::ACCEPT_ENCODING };
        let wanted = Packing::wanted(headers, &wanted);
        (rpc.method.streaming == streams).then_some(Self { codec, streams, wanted })
    }

    /// How the request is packed; the name of what is not known.
    pub(crate) fn packing(self, headers: &HeaderMap) -> Result<Packing, String> {
        let name = if self.streams { STREAM_PACKING } else { header::CONTENT_ENCODING };
        Packing::of(headers, &name)
    }

    fn content_type(self) -> &'static str {
        match (self.codec, self.streams) {
            (Codec::Json, false) => "application/json",
            (Codec::Proto, false) => "application/proto",
            (Codec::Json, true) => "application/connect+json",
            (Codec::Proto, true) => "application/connect+proto",
        }
    }
}

/// What the headers of this protocol say wrong.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(VERSION).is_some_and(|version| version != "1") {
        return Err(Problem::invalid_field(
            "",
            Fault::Pattern,
            format!("the header `{VERSION}` must be `1`"),
        ));
    }
    match headers.get(TIMEOUT).map(|_| timeout(headers)) {
        Some(None) => {
            let what = format!("the header `{TIMEOUT}` must be a whole number of at most ten digits");
            Err(Problem::invalid_field("", Fault::Pattern, what))
        }
        _ => Ok(()),
    }
}

/// How long the caller waits, if it says so.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let legal = !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
    legal.then(|| text.parse().ok().map(Duration::from_millis)).flatten()
}

/// The one message of a stream's request, out of its envelope.
pub(crate) fn open(envelope: &Bytes, packing: Packing, limit: usize) -> Result<Bytes, Problem> {
    let not_one = || {
        Problem::invalid_field("", Fault::Syntax, "the request must hold exactly one message in its envelope")
    };
    let [flags, a, b, c, d, ..] = envelope[..] else { return Err(not_one()) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if envelope.len() != PREFIX + length {
        return Err(not_one());
    }
    let message = envelope.slice(PREFIX..);
    match flags {
        0 => Ok(message),
        PACKED if packing != Packing::Plain => packing.unpack(message, limit),
        PACKED => Err(Problem::invalid_field(
            "",
            Fault::Required,
            format!("a packed message needs the header `{STREAM_PACKING}`"),
        )),
        _ => Err(not_one()),
    }
}

/// A call that reads, by GET: its codec, and its message as it was encoded for the query.
///
/// # Errors
/// INVALID_ARGUMENT, or UNIMPLEMENTED for what is packed in a way that is not known.
pub(crate) fn by_get(query: &str, limit: usize) -> Result<(Codec, Bytes), Problem> {
    let wrong =
        |what: &str| Problem::invalid_field("", Fault::Pattern, format!("the query parameter {what}"));
    // Text that is no UTF-8 may stand in the message of a binary codec, but there it is base64.
    let pairs = text::query(query).map_err(|_| wrong("must be percent-encoded UTF-8"))?;
    let one = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let codec = match one("encoding") {
        Some("json") => Codec::Json,
        Some("proto") => Codec::Proto,
        _ => return Err(wrong("`encoding` must be `json` or `proto`")),
    };
    if one("connect").is_some_and(|version| version != "v1") {
        return Err(wrong("`connect` must be `v1`"));
    }
    let packing = match one("compression") {
        None | Some("" | "identity") => Packing::Plain,
        Some("gzip") => Packing::Gzip,
        Some(_) => return Err(Problem::unimplemented("this compression")),
    };
    let message = one("message").ok_or_else(|| wrong("`message` must be set"))?;
    let bytes = match one("base64") {
        Some("1") => BASE64.decode(message).map_err(|_| wrong("`message` is not base64 for URLs"))?,
        None | Some("0") => message.as_bytes().to_vec(),
        Some(_) => return Err(wrong("`base64` must be `1`")),
    };
    Ok((codec, packing.unpack(bytes.into(), limit)?))
}

/// The form of the answer to a call by GET. Nothing but the codec is read of it before its caller is known.
pub(crate) fn form_of_get(query: &str, headers: &HeaderMap) -> Form {
    let proto = query.split('&').any(|pair| pair == "encoding=proto");
    let codec = if proto { Codec::Proto } else { Codec::Json };
    Form { codec, streams: false, wanted: Packing::wanted(headers, &header::ACCEPT_ENCODING) }
}

/// The answer to a call, made of what gRPC answered.
pub(crate) async fn answer(rpc: Arc<Rpc>, form: Form, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let messages = Messages::of(&parts.headers, body);
    if form.streams {
        let mut response = error_response::answer(
            StatusCode::OK,
            &parts.headers,
            form.content_type(),
            streamed(rpc, form, messages),
        );
        if form.wanted == Packing::Gzip {
            response.headers_mut().insert(STREAM_PACKING, HeaderValue::from_static("gzip"));
        }
        return response;
    }
    match single(&rpc, form, messages).await {
        Ok((message, trailers)) => {
            let (bytes, packed) = form.wanted.pack(message);
            let body = Body::new(Full::new(bytes));
            let mut response =
                error_response::answer(StatusCode::OK, &parts.headers, form.content_type(), body);
            response.headers_mut().extend(error_response::passed(&trailers, "trailer-"));
            if packed {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Err(status) => error_response::failed(
            &status,
            error_response::code(&status),
            &parts.headers,
            &error_response::connect(&status),
        ),
    }
}

async fn single(
    rpc: &Rpc,
    form: Form,
    messages: Result<Messages, Status>,
) -> Result<(Bytes, HeaderMap), Status> {
    let mut messages = messages?;
    let message = messages.only().await?;
    Ok((form.codec.write(rpc, message)?, messages.trailers().clone()))
}

enum Stream {
    Goes(Messages),
    Failed(Status),
    Ended,
}

fn streamed(rpc: Arc<Rpc>, form: Form, messages: Result<Messages, Status>) -> Body {
    let begin = messages.map_or_else(Stream::Failed, Stream::Goes);
    let frames = futures::stream::unfold(begin, move |stream| {
        let rpc = rpc.clone();
        async move {
            let (bytes, next) = match stream {
                Stream::Ended => return None,
                Stream::Failed(status) => (last(Some(&status), &HeaderMap::new()), Stream::Ended),
                Stream::Goes(mut messages) => {
                    let message = messages.next().await;
                    let written = message.and_then(|message| {
                        message
                            .map(|message| form.codec.write(&rpc, message))
                            .transpose()
                            .map_err(Status::from)
                    });
                    match written {
                        Ok(Some(message)) => {
                            let (message, packed) = form.wanted.pack(message);
                            (enveloped(if packed { PACKED } else { 0 }, &message), Stream::Goes(messages))
                        }
                        Ok(None) => (last(None, messages.trailers()), Stream::Ended),
                        Err(status) => (last(Some(&status), messages.trailers()), Stream::Ended),
                    }
                }
            };
            Some((Ok::<_, Status>(Frame::data(bytes)), next))
        }
    });
    Body::new(StreamBody::new(frames))
}

/// The end of a stream: what went wrong, and what gRPC says behind the last message.
fn last(status: Option<&Status>, trailers: &HeaderMap) -> Bytes {
    let mut end = Map::new();
    if let Some(status) = status {
        end.insert("error".to_owned(), error_response::connect(status));
    }
    let mut metadata: Map<String, Value> = Map::new();
    for (name, value) in &error_response::passed(trailers, "") {
        let values = metadata.entry(name.as_str()).or_insert_with(|| json!([]));
        if let (Ok(value), Some(values)) = (value.to_str(), values.as_array_mut()) {
            values.push(json!(value));
        }
    }
    if !metadata.is_empty() {
        end.insert("metadata".to_owned(), Value::Object(metadata));
    }
    enveloped(LAST, Value::Object(end).to_string().as_bytes())
}

fn enveloped(flags: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
    bytes.put_u8(flags);
    // Answers are far below 4 GiB.
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_carries_its_message_in_the_query() {
        let read = |query: &str| by_get(query, 100).map_err(|problem| problem.message.clone());
        assert_eq!(
            read("connect=v1&encoding=json&message=%7B%7D"),
            Ok((Codec::Json, Bytes::from_static(b"{}")))
        );
        for padded in ["AQ", "AQ%3D%3D", "AQ=="] {
            let query = format!("encoding=proto&base64=1&message={padded}");
            assert_eq!(read(&query), Ok((Codec::Proto, Bytes::from_static(&[1]))), "{padded}");
        }
        for (query, what) in [
            ("", "`encoding` must be"),
            ("encoding=xml&message=", "`encoding` must be"),
            ("encoding=json", "`message` must be set"),
            ("encoding=json&message=&connect=v2", "`connect` must be `v1`"),
            ("encoding=json&message=%ff", "percent-encoded UTF-8"),
            ("encoding=proto&base64=1&message=%20", "not base64"),
            ("encoding=proto&base64=2&message=", "`base64` must be"),
            ("encoding=json&compression=gzip&message=x", "not valid gzip"),
            ("encoding=json&compression=br&message=x", "not implemented"),
        ] {
            let problem = read(query).unwrap_err();
            assert!(problem.contains(what), "{query}: {problem}");
        }
    }

    #[test]
    fn an_envelope_holds_one_message() {
        let read =
            |bytes: Bytes| open(&bytes, Packing::Plain, 100).map_err(|problem| problem.message.clone());
        assert_eq!(read(enveloped(0, b"hello")), Ok(Bytes::from_static(b"hello")));
        let two = [enveloped(0, b"a"), enveloped(0, b"b")].concat();
        for bytes in [Bytes::new(), Bytes::from_static(&[0, 0]), two.into(), enveloped(LAST, b"{}")] {
            assert!(read(bytes).unwrap_err().contains("exactly one message"));
        }
        assert!(read(enveloped(PACKED, b"x")).unwrap_err().contains("connect-content-encoding"));
        let long = Packing::Gzip.pack(Bytes::from(vec![0; 5000])).0;
        let problem = open(&enveloped(PACKED, &long), Packing::Gzip, 100).unwrap_err();
        assert_eq!(problem.reason, pavior_rpc::ErrorReason::MessageTooLarge);
    }

    #[test]
    fn headers_of_another_protocol_are_refused() {
        let headers = |name: HeaderName, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        assert_eq!(timeout(&headers(TIMEOUT, "1500")), Some(Duration::from_millis(1500)));
        check(&headers(VERSION, "1")).unwrap();
        for wrong in [
            headers(VERSION, "2"),
            headers(TIMEOUT, ""),
            headers(TIMEOUT, "12345678901"),
            headers(TIMEOUT, "-1"),
        ] {
            let problem = check(&wrong).unwrap_err();
            assert_eq!(problem.code, tonic::Code::InvalidArgument, "{wrong:?}");
        }
    }
}

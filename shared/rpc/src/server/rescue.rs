//! No error leaves without its details, and none with internals.

use pavior_core::Fault;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as _, Frame};
use pavior_proto::google::rpc;
use prost::{Message, Name};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::body::{Framing, Polled, Tap, Tapped, trailers};
use crate::problem::{ErrorReason, Problem, clip, from_status};

/// Repairs the status in headers or trailers. True when there was one, so that no trailers will follow.
pub(super) fn fix_headers(headers: &mut HeaderMap) -> bool {
    let Some(status) = Status::from_header_map(headers) else { return false };
    if status.code() == Code::Ok {
        return true;
    }
    let status = match fix_status(&status) {
        Some(fixed) => {
            for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
                headers.remove(name);
            }
            headers.extend(trailers(&fixed));
            fixed
        }
        None => status,
    };
    if !matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) {
        return true;
    }
    let decoded = from_status(&status);
    let pushback = match decoded.retry_after {
        // gRFC A6: what is no number of milliseconds forbids to try again.
        _ if status.code() == Code::Unavailable && !decoded.is_passing() => {
            Some(HeaderValue::from_static("-1"))
        }
        Some(after) => Some(HeaderValue::from(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))),
        None => None,
    };
    headers.extend(pushback.map(|after| (HeaderName::from_static("grpc-retry-pushback-ms"), after)));
    true
}

/// The status as it may leave the process: with exactly one `ErrorInfo`, and nothing internal. `None` when it is fit
/// to leave as it is.
pub fn fix_status(status: &Status) -> Option<Status> {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    let info_url = rpc::ErrorInfo::type_url();
    let infos = details.iter().filter(|detail| detail.type_url == info_url).count();
    if infos == 1 {
        return None;
    }
    let mut problem = explain(status);
    if infos == 0 {
        // Details other than ErrorInfo come from the service and are kept; hidden errors keep nothing.
        let kept = if problem.code == Code::Internal { Vec::new() } else { details };
        let message = clip(&std::mem::take(&mut problem.message)).into_owned();
        let mut rpc_status = problem.to_rpc_status();
        rpc_status.details.extend(kept);
        rpc_status.message.clone_from(&message);
        return Some(Status::with_details(problem.code, message, rpc_status.encode_to_vec().into()));
    }
    let mut seen = false;
    let details: Vec<_> = details
        .into_iter()
        .filter(|detail| detail.type_url != info_url || !std::mem::replace(&mut seen, true))
        .collect();
    let rpc_status =
        rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details };
    Some(Status::with_details(status.code(), status.message(), rpc_status.encode_to_vec().into()))
}

/// How tonic begins to tell that the bytes of a request are not gRPC. It calls that INTERNAL; it is the caller's mistake.
const BROKEN_REQUESTS: [&str; 6] = [
    "Missing request message.",
    "Unexpected EOF decoding stream.",
    "protocol error: received message with ",
    "Error decompressing: ",
    "tonic-web: ",
    "error reading a body from connection",
];

/// The problem that a status without `ErrorInfo` stands for. They come from tonic itself, or from code that makes a
/// bare `Status`.
fn explain(status: &Status) -> Problem {
    use ErrorReason as R;
    let message = status.message();
    let too_large = message.contains("message length too large") || message.contains("message too large");
    let reason = match status.code() {
        // tonic says OUT_OF_RANGE to large messages, other servers RESOURCE_EXHAUSTED.
        Code::OutOfRange | Code::ResourceExhausted if too_large => {
            let limit = message.split("the limit is: ").nth(1).and_then(|rest| rest.split(' ').next());
            return Problem::too_large(limit.and_then(|limit| limit.parse().ok()));
        }
        // tonic's own timer.
        Code::Cancelled if message == "Timeout expired" => return Problem::deadline_exceeded(),
        Code::DeadlineExceeded if message.is_empty() => return Problem::deadline_exceeded(),
        // The caller's bytes are not the message: the caller's mistake, not ours.
        Code::Internal if message.starts_with("failed to decode Protobuf message") => {
            return Problem::invalid_field(
                "",
                Fault::Syntax,
                "the request does not decode as the message of this method",
            );
        }
        Code::Internal if BROKEN_REQUESTS.iter().any(|start| message.starts_with(start)) => {
            return Problem::invalid_field(
                "",
                Fault::Syntax,
                "the request must hold exactly one message, whole and as framed by gRPC",
            );
        }
        Code::Ok | Code::Internal | Code::Unknown | Code::DataLoss => {
            return Problem::internal(format!("status {:?}: {message}", status.code()));
        }
        Code::Unimplemented if message.is_empty() => return Problem::unimplemented("the method"),
        Code::Unimplemented => R::Unimplemented,
        Code::Cancelled => R::Cancelled,
        Code::InvalidArgument => R::InvalidField,
        Code::DeadlineExceeded => R::DeadlineExceeded,
        Code::NotFound => R::ResourceNotFound,
        Code::AlreadyExists => R::ResourceAlreadyExists,
        Code::PermissionDenied => R::AccessDenied,
        Code::ResourceExhausted => R::Overloaded,
        Code::FailedPrecondition => R::InvalidState,
        Code::Aborted => R::ResourceBusy,
        Code::OutOfRange => R::ResumeTokenExpired,
        Code::Unavailable => R::DependencyUnavailable,
        Code::Unauthenticated => R::Unauthenticated,
    };
    Problem::new(status.code(), reason, message)
}

/// Repairs the status in the trailers of a stream, and turns an error of the body into one. Not behind half of a
/// message, where no client could read it: then the stream is reset.
struct Rescue {
    framing: Framing,
}

pub(super) fn rescued(inner: Body) -> Body {
    Tapped::body(inner, Rescue { framing: Framing::default() })
}

impl Tap for Rescue {
    fn poll(&mut self, inner: &mut Body, cx: &mut Context<'_>) -> Polled {
        match ready!(Pin::new(&mut *inner).poll_frame(cx)) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    fix_headers(trailers);
                }
                if let Some(data) = frame.data_ref() {
                    self.framing.follow(data, usize::MAX)?;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(status)) => {
                *inner = Body::empty();
                let status = fix_status(&status).unwrap_or(status);
                let whole = self.framing.between();
                Poll::Ready(Some(if whole { Ok(Frame::trailers(trailers(&status))) } else { Err(status) }))
            }
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::problem::any;

    fn infos(status: &Status) -> usize {
        let details = rpc::Status::decode(status.details()).unwrap().details;
        details.iter().filter(|detail| detail.type_url == rpc::ErrorInfo::type_url()).count()
    }

    #[test]
    fn every_code_leaves_with_exactly_one_error_info() {
        for code in 1..=16 {
            let fixed = fix_status(&Status::new(Code::from(code), "text of a driver")).unwrap();
            assert_eq!(infos(&fixed), 1);
            let hidden = [Code::Internal, Code::Unknown, Code::DataLoss].contains(&Code::from(code));
            assert_eq!(fixed.message().contains("driver"), !hidden);
            assert_eq!(fixed.code(), if hidden { Code::Internal } else { Code::from(code) });
            assert!(fix_status(&fixed).is_none());
        }
    }

    #[tokio::test]
    async fn an_error_is_told_between_two_messages_and_resets_the_stream_within_one() {
        use http_body_util::BodyExt as _;
        const MESSAGE: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];
        for cut in 0..=MESSAGE.len() {
            let pieces = [Ok(Frame::data(Bytes::from_static(&MESSAGE[..cut]))), Err(Status::aborted("busy"))];
            let inner = Body::new(http_body_util::StreamBody::new(futures::stream::iter(pieces)));
            let mut body = rescued(inner);
            body.frame().await.unwrap().unwrap();
            let told = body.frame().await.unwrap();
            let told = told.map(|frame| Status::from_header_map(frame.trailers_ref().unwrap()).unwrap());
            let whole = [0, MESSAGE.len()].contains(&cut);
            assert_eq!(told.is_ok(), whole, "{cut}");
            let status = told.unwrap_or_else(|status| status);
            assert_eq!((status.code(), infos(&status)), (Code::Aborted, 1), "{cut}");
            assert!(body.frame().await.is_none());
        }
    }

    #[test]
    fn broken_bytes_of_a_request_are_the_callers_mistake() {
        for text in [
            "failed to decode Protobuf message: HealthCheckRequest.service: invalid string value",
            "Missing request message.",
            "Unexpected EOF decoding stream.",
            "protocol error: received message with invalid compression flag: 7 (valid flags are 0 and 1)",
            "Error decompressing: invalid gzip header, while receiving response",
            "tonic-web: Invalid symbol 33, offset 0.",
        ] {
            let fixed = fix_status(&Status::internal(text)).unwrap();
            assert_eq!((fixed.code(), infos(&fixed)), (Code::InvalidArgument, 1), "{text}");
            let decoded = from_status(&fixed);
            assert!(decoded.is(ErrorReason::InvalidField) && decoded.violations.len() == 1, "{text}");
        }
    }

    #[test]
    fn two_error_infos_become_one_and_other_details_stay() {
        let info = any(&rpc::ErrorInfo { reason: "A".into(), ..Default::default() });
        let other = any(&rpc::ErrorInfo { reason: "B".into(), ..Default::default() });
        let retry = any(&rpc::RetryInfo::default());
        let with = |details: Vec<_>| {
            let status = rpc::Status { code: 10, message: "m".into(), details };
            Status::with_details(Code::Aborted, "m", status.encode_to_vec().into())
        };
        let fixed = fix_status(&with(vec![info, retry.clone(), other])).unwrap();
        assert_eq!((infos(&fixed), from_status(&fixed).reason.as_str()), (1, "A"));
        let fixed = fix_status(&with(vec![retry])).unwrap();
        assert_eq!(infos(&fixed), 1);
        assert!(from_status(&fixed).reason == "RESOURCE_BUSY");
        assert_eq!(rpc::Status::decode(fixed.details()).unwrap().details.len(), 2);
    }
}

//! Requests that mean no call, and what would be right.

use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, StatusCode, header};
use pavior_rpc::problem::{ErrorReason, Problem};
use tonic::Code;

use super::text::MediaType;

/// A request that means no call. It goes the way of all requests too, so that it is counted and logged, and is
/// answered by the gateway.
#[derive(Debug, Clone)]
pub(crate) struct Rejected(pub(crate) Problem);

/// Why a request means no call.
pub(crate) struct Rejection {
    pub(crate) code: StatusCode,
    pub(crate) problem: Problem,
    pub(crate) headers: HeaderMap,
}

impl Rejection {
    fn new(code: StatusCode, what: String) -> Self {
        let problem = Problem::new(Code::Unimplemented, ErrorReason::Unimplemented, what);
        Self { code, problem, headers: HeaderMap::new() }
    }

    fn with(mut self, name: HeaderName, values: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(values) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(crate) fn nothing(path: &str) -> Self {
        let shown: String = path.chars().take(200).collect();
        Self::new(StatusCode::NOT_FOUND, format!("no method is served at `{shown}`"))
    }

    pub(crate) fn verb(verb: &Verb, verbs: &[Verb]) -> Self {
        let verbs = verbs.iter().map(Verb::as_str).collect::<Vec<_>>().join(", ");
        let shown: String = verb.as_str().chars().take(20).collect();
        let what = format!("{shown} is not served at this path, {verbs} is");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, what).with(header::ALLOW, &verbs)
    }

    pub(crate) fn media(media: Option<&MediaType>, wanted: &[&str]) -> Self {
        let wanted = wanted.join(", ");
        let what = match media {
            None => format!("the body needs a content type: {wanted}"),
            Some(media) if !media.utf8 => "the body must be UTF-8".to_owned(),
            Some(media) => {
                let shown: String = media.name.chars().take(100).collect();
                format!("the content type `{shown}` is not taken at this path, but: {wanted}")
            }
        };
        let accept_post = HeaderName::from_static("accept-post");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what).with(accept_post, &wanted)
    }

    pub(crate) fn packing(name: String) -> Self {
        let what = format!("the encoding `{name}` of the body is not taken, but: gzip, identity");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what).with(header::ACCEPT_ENCODING, "gzip, identity")
    }
}

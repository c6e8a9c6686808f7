//! HTTP for those who do not speak gRPC: paths with JSON as `google.api.http` says, and the Connect protocol.
//!
//! A request is turned into the gRPC request that it means, and goes the way of all requests: there is no second
//! authentication, admission, limit, record or deadline here. Its message is made when the gateway reads it, so after
//! the caller was let in. All of it comes from the descriptors; no method has code of its own.

mod body;
mod connect;
mod error_response;
mod http_routes;
mod json;
mod messages;
mod openapi;
mod query;
mod rejection;
mod rest;
mod resume;
mod schemas;
mod text;

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use http::request::Parts;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, Version, header,
};
use pavior_rpc::problem::Problem;
use pavior_rpc::{Stack, context, convert, methods};
use prost_reflect::MessageDescriptor;
use tonic::body::Body;
use tonic::{Code, Status};

use body::Packing;
use http_routes::{Found, HttpRoutes};
use openapi::Document;
pub(crate) use rejection::Rejected;
use rejection::Rejection;
use resume::Resume;
use text::MediaType;

use crate::error::Error;
use crate::routes::{Method, RouteTable};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What belongs to the HTTP request, and not into the gRPC request that is made of it.
const NOT_PASSED: [&str; 14] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A method with the descriptors of its messages.
#[derive(Debug)]
pub(crate) struct Rpc {
    pub(crate) method: Arc<Method>,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    pub(crate) reads_only: bool,
    pub(crate) resume: Option<Resume>,
}

/// Translates HTTP with JSON and the Connect protocol to gRPC.
#[derive(Debug)]
pub(crate) struct Web {
    rpcs: HashMap<String, Arc<Rpc>>,
    routes: HttpRoutes<Arc<Rpc>>,
    limit: usize,
    document: Option<Document>,
}

/// How an answer is given.
enum Form {
    Rest(Arc<Rpc>, rest::Form),
    Connect(Arc<Rpc>, connect::Form),
    /// A request that means no call: the code, what else has to be said, and whether in the words of Connect.
    Refused(StatusCode, HeaderMap, bool),
}

/// A request, sorted.
enum Sorted {
    /// gRPC or gRPC-Web.
    Grpc(Request<Body>),
    /// Anything else, as the gRPC request that it means.
    Call(Request<Body>, Form),
    /// The description of the API.
    Document(Response<Body>),
}

impl Web {
    /// The methods of a table, with the descriptors that are embedded. `described` to serve their description too.
    pub(crate) fn new(table: RouteTable, limit: usize, described: bool) -> Result<Self, Error> {
        let mut rpcs = HashMap::new();
        for method in table.methods() {
            let (service, name) = method.path.trim_start_matches('/').split_once('/').unwrap_or_default();
            let service = convert::pool().get_service_by_name(service);
            let found = service.and_then(|service| service.methods().find(|method| method.name() == name));
            let Some(found) = found else {
                return Err(Error::Descriptors(format!("`{}` is not embedded", method.path)));
            };
            let (input, output) = (found.input(), found.output());
            let rpc = Rpc {
                method: method.clone(),
                reads_only: methods::method(&method.path).is_some_and(|method| method.reads_only),
                resume: Resume::of(&input, &output),
                input,
                output,
            };
            rpcs.insert(method.path.clone(), Arc::new(rpc));
        }
        let bindings = rpcs
            .values()
            .flat_map(|rpc| rpc.method.http.iter().map(|binding| (binding.clone(), rpc.clone())))
            .collect();
        let document = described.then(|| Document::new(table, rpcs.clone()));
        Ok(Self { routes: HttpRoutes::new(bindings), rpcs, limit, document })
    }

    /// Wraps a gRPC stack, so that it answers the other protocols too.
    pub(crate) fn around(self, grpc: Stack) -> Stack {
        let browsers = grpc.clone().grpc_web();
        Stack::from_fn(move |request| match self.sort(request) {
            Sorted::Grpc(request) => browsers.handle(request),
            Sorted::Call(request, form) => {
                let response = grpc.handle(request);
                async move { form.answer(response.await).await }.boxed()
            }
            Sorted::Document(response) => std::future::ready(response).boxed(),
        })
    }

    fn sort(&self, request: Request<Body>) -> Sorted {
        let media = MediaType::of(request.headers());
        let name = media.as_ref().map_or("", |media| media.name.as_str());
        let grpc = name == "application/grpc"
            || ["application/grpc+", "application/grpc-web"].iter().any(|start| name.starts_with(start));
        if grpc && request.method() == Verb::POST {
            return Sorted::Grpc(request);
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        if let Some(rpc) = self.rpcs.get(path).cloned() {
            return match self.connect(rpc, &parts, media.as_ref(), body) {
                Ok((call, form)) => Sorted::Call(call, form),
                Err(rejection) => refused(&parts, rejection, true),
            };
        }
        if let Some(document) = self.document.as_ref().filter(|_| path == openapi::PATH) {
            return match parts.method == Verb::GET {
                true => Sorted::Document(document.answer(&parts.headers)),
                false => refused(&parts, Rejection::verb(&parts.method, &[Verb::GET]), false),
            };
        }
        match self.rest(&parts, media.as_ref(), body) {
            Ok((call, form)) => Sorted::Call(call, form),
            Err(rejection) => refused(&parts, rejection, false),
        }
    }

    fn rest(
        &self,
        parts: &Parts,
        media: Option<&MediaType>,
        body: Body,
    ) -> Result<(Request<Body>, Form), Rejection> {
        let (at, rpc, captured) = match self.routes.find(&parts.method, parts.uri.path()) {
            Found::Way(at, rpc, captured) => (at, rpc.clone(), captured),
            Found::Others(verbs) => return Err(Rejection::verb(&parts.method, &verbs)),
            Found::Nothing => return Err(Rejection::nothing(parts.uri.path())),
        };
        let Some(binding) = self.routes.binding(at).cloned() else {
            return Err(Rejection::nothing(parts.uri.path()));
        };
        let json = media.is_some_and(|media| media.name == "application/json" && media.utf8);
        if !json && (media.is_some() || body::is_there(&body)) && parts.method != Verb::GET {
            return Err(Rejection::media(media, &["application/json"]));
        }
        let packing = Packing::of(&parts.headers, &header::CONTENT_ENCODING).map_err(Rejection::packing)?;
        let asked = rest::Asked {
            rpc: rpc.clone(),
            binding,
            captured: captured.into_iter().map(str::to_owned).collect(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            last_event: text_of(&parts.headers, &LAST_EVENT_ID),
        };
        let form = Form::Rest(rpc.clone(), rest::Form::wanted(&rpc, &parts.headers));
        let limit = self.limit;
        let message = async move {
            let body = body::whole(body, packing, limit).await?;
            Ok(asked.message(&body)?)
        };
        Ok((call(parts, &rpc, body::lazy(message)), form))
    }

    fn connect(
        &self,
        rpc: Arc<Rpc>,
        parts: &Parts,
        media: Option<&MediaType>,
        body: Body,
    ) -> Result<(Request<Body>, Form), Rejection> {
        let limit = self.limit;
        let by_get = rpc.reads_only && !rpc.method.streaming;
        if parts.method == Verb::GET && by_get {
            let query = parts.uri.query().unwrap_or_default().to_owned();
            let form = connect::form_of_get(&query, &parts.headers);
            let (headers, asked) = (parts.headers.clone(), rpc.clone());
            let message = async move {
                connect::check(&headers)?;
                let (codec, bytes) = connect::by_get(&query, limit)?;
                Ok(codec.read(&asked, bytes)?)
            };
            return Ok((call(parts, &rpc, body::lazy(message)), Form::Connect(rpc, form)));
        }
        if parts.method != Verb::POST {
            let verbs = if by_get { vec![Verb::GET, Verb::POST] } else { vec![Verb::POST] };
            return Err(Rejection::verb(&parts.method, &verbs));
        }
        let form = media
            .filter(|media| media.utf8)
            .and_then(|media| connect::Form::of(&rpc, &media.name, &parts.headers))
            .ok_or_else(|| Rejection::media(media, media_types(&rpc)))?;
        let packing = form.packing(&parts.headers).map_err(Rejection::packing)?;
        let (headers, asked) = (parts.headers.clone(), rpc.clone());
        let message = async move {
            connect::check(&headers)?;
            let bytes = if form.streams {
                let envelope = body::whole(body, Packing::Plain, limit.saturating_add(16)).await?;
                connect::open(&envelope, packing, limit)?
            } else {
                body::whole(body, packing, limit).await?
            };
            Ok(form.codec.read(&asked, bytes)?)
        };
        Ok((call(parts, &rpc, body::lazy(message)), Form::Connect(rpc, form)))
    }
}

/// The media types that a method is called with at its own path, those of this protocol first.
fn media_types(rpc: &Rpc) -> &'static [&'static str] {
    if rpc.method.streaming {
        &["application/connect+json", "application/connect+proto", "application/grpc", "application/grpc-web"]
    } else {
        &["application/json", "application/proto", "application/grpc", "application/grpc-web"]
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The gRPC request that a request means: the same headers but those of another protocol, and where it came from.
fn call(parts: &Parts, rpc: &Rpc, message: Body) -> Request<Body> {
    let mut request = grpc(parts, message);
    // A path of the table, which the descriptors wrote.
    *request.uri_mut() = rpc.method.path.parse().unwrap_or_default();
    request
}

fn grpc(parts: &Parts, message: Body) -> Request<Body> {
    let mut request = Request::new(message);
    *request.method_mut() = Verb::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.extensions_mut() = parts.extensions.clone();
    let headers = request.headers_mut();
    for (name, value) in &parts.headers {
        let key = name.as_str();
        let other = key.starts_with("grpc-") && *name != context::GRPC_TIMEOUT || key.starts_with("connect-");
        if !other && !NOT_PASSED.contains(&key) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(timeout) = connect::timeout(&parts.headers).and_then(context::format_timeout) {
        headers.insert(context::GRPC_TIMEOUT, timeout);
    }
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

/// As a request that the gateway answers with what is wrong.
fn refused(parts: &Parts, rejection: Rejection, connect: bool) -> Sorted {
    let mut request = grpc(parts, Body::empty());
    request.extensions_mut().insert(Rejected(rejection.problem));
    Sorted::Call(request, Form::Refused(rejection.code, rejection.headers, connect))
}

impl Form {
    async fn answer(self, response: Response<Body>) -> Response<Body> {
        match self {
            Self::Rest(rpc, form) => rest::answer(rpc, form, response).await,
            Self::Connect(rpc, form) => connect::answer(rpc, form, response).await,
            Self::Refused(code, more, connect) => {
                let status = Status::from_header_map(response.headers())
                    .unwrap_or_else(|| Problem::internal("a refusal without a status").into());
                // What the stack itself refuses, because it is busy, is told as that.
                let code =
                    if status.code() == Code::Unimplemented { code } else { error_response::code(&status) };
                let json =
                    if connect { error_response::connect(&status) } else { error_response::google(&status) };
                let mut response = error_response::failed(&status, code, response.headers(), &json);
                response.headers_mut().extend(more);
                response
            }
        }
    }
}

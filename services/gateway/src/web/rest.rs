//! Calls by path, query and JSON, as `google.api.http` says.

use pavior_core::Fault;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use pavior_rpc::problem::{Problem, Violations};
use prost::Message;
use prost_reflect::{DynamicMessage, Value};
use tonic::Status;
use tonic::body::Body;

use super::body::Packing;
use super::messages::Messages;
use super::{Rpc, error_response, json, query, text};
use crate::routes::binding::{Binding, Content};

/// Parameters of one query.
const MAX_PAIRS: usize = 1_000;

/// What an HTTP request says besides its body.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) binding: Binding,
    /// What the variables of the path stand for, as written.
    pub(crate) captured: Vec<String>,
    pub(crate) query: String,
    /// Where a stream of events that broke off had come to.
    pub(crate) last_event: Option<String>,
}

impl Asked {
    /// The request in its encoding.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every field of path and query that is wrong.
    pub(crate) fn message(&self, body: &[u8]) -> Result<Bytes, Problem> {
        let mut message = self.content(body)?;
        let mut wrong = Violations::new();
        let bound = self.bind(&mut message, &mut wrong);
        self.search(&mut message, &bound, &mut wrong)?;
        if !wrong.is_empty() {
            return Err(Problem::invalid(wrong.into_vec()));
        }
        Ok(message.encode_to_vec().into())
    }

    fn content(&self, body: &[u8]) -> Result<DynamicMessage, Problem> {
        let input = &self.rpc.input;
        let field = match &self.binding.content {
            Content::Nothing if body.is_empty() => return Ok(query::empty(input)),
            Content::Nothing => {
                let what = format!("{} takes no body: fields stand in the query", self.binding);
                return Err(Problem::invalid_field("", Fault::Conflict, what));
            }
            Content::Request if body.is_empty() => return Ok(query::empty(input)),
            Content::Request => return json::read(input, "", body),
            Content::Field(name) => input.get_field_by_name(name),
        };
        let mut message = query::empty(input);
        if let Some(field) = field
            && let Some(inner) = field.kind().as_message()
            && !body.is_empty()
        {
            message.set_field(&field, Value::Message(json::read(inner, field.name(), body)?));
        }
        Ok(message)
    }

    /// Sets the fields that stand in the path, and gives their names. What the body says of them must be the same.
    fn bind(&self, message: &mut DynamicMessage, wrong: &mut Violations) -> Vec<String> {
        let template = &self.binding.template;
        for (variable, written) in template.variables.iter().zip(&self.captured) {
            let name = &variable.field;
            let Ok(value) = text::decode(written, variable.segments.len() > 1) else {
                wrong.add(name, Fault::Syntax, "is not percent-encoded UTF-8");
                continue;
            };
            let fields = match query::find(&self.rpc.input, name) {
                Ok(fields) => fields,
                Err(problem) => {
                    wrong.add(name, Fault::Pattern, problem);
                    continue;
                }
            };
            let said = query::given(message, &fields);
            if let Err(problem) = query::set(message, &fields, &value) {
                wrong.add(name, Fault::Pattern, problem);
            } else if said.is_some_and(|said| Some(said) != query::given(message, &fields)) {
                wrong.add(
                    name,
                    Fault::Conflict,
                    format!("is `{value}` in the path, and something else in the body"),
                );
            }
        }
        template.variables.iter().map(|variable| variable.field.clone()).collect()
    }

    fn search(
        &self,
        message: &mut DynamicMessage,
        bound: &[String],
        wrong: &mut Violations,
    ) -> Result<(), Problem> {
        let unread = |_| Problem::invalid_field("", Fault::Syntax, "the query is not percent-encoded UTF-8");
        let mut pairs = text::query(&self.query).map_err(unread)?;
        if let (Some(last), Some(resume)) = (&self.last_event, &self.rpc.resume)
            && !pairs.iter().any(|(key, _)| resume.is_start(key))
        {
            pairs.push((resume.parameter(), last.clone()));
        }
        if pairs.len() > MAX_PAIRS {
            return Err(Problem::invalid_field(
                "",
                Fault::TooMany,
                format!("the query has more than {MAX_PAIRS} parameters"),
            ));
        }
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in pairs {
            let shown: String = key.chars().take(100).collect();
            let fields = match query::find(&self.rpc.input, &key) {
                Ok(fields) => fields,
                Err(problem) => {
                    wrong.add(shown, Fault::Unknown, problem);
                    continue;
                }
            };
            let name = query::name(&fields);
            let repeated = fields.last().is_some_and(|field| field.is_list());
            let elsewhere = match &self.binding.content {
                Content::Nothing => None,
                Content::Request => Some("stands in the body, and not in the query"),
                Content::Field(body) => {
                    let inside = fields.first().is_some_and(|field| field.name() == body);
                    inside.then_some("stands in the body, and not in the query")
                }
            };
            let problem = if bound.contains(&name) {
                Some((Fault::Pattern, "stands in the path, and not in the query".to_owned()))
            } else if let Some(elsewhere) = elsewhere {
                Some((Fault::Pattern, elsewhere.to_owned()))
            } else if !repeated && seen.contains(&name) {
                Some((Fault::Conflict, "is given more than once".to_owned()))
            } else {
                query::set(message, &fields, &value).err().map(|problem| (Fault::Pattern, problem))
            };
            if let Some((fault, problem)) = problem {
                wrong.add(name.clone(), fault, problem);
            }
            seen.push(name);
        }
        Ok(())
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One message.
    Single(Packing),
    /// A stream with a message on each line.
    Lines,
    /// A stream of server-sent events.
    Events,
}

impl Form {
    /// The form that a caller asks for.
    pub(crate) fn wanted(rpc: &Rpc, headers: &HeaderMap) -> Self {
        if !rpc.method.streaming {
            return Self::Single(Packing::wanted(headers, &header::ACCEPT_ENCODING));
        }
        let wanted = text::wanted(headers, &header::ACCEPT);
        let first =
            wanted.iter().find(|one| [EVENTS, LINES, "application/json", "*/*"].contains(&one.as_str()));
        if first.is_some_and(|one| one == EVENTS) { Self::Events } else { Self::Lines }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Single(_) => "application/json",
            Self::Lines => LINES,
            Self::Events => EVENTS,
        }
    }
}

pub(crate) const LINES: &str = "application/x-ndjson";
pub(crate) const EVENTS: &str = "text/event-stream";

/// The answer to a call, made of what gRPC answered.
pub(crate) async fn answer(rpc: Arc<Rpc>, form: Form, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let failed = |status: &Status| {
        error_response::failed(
            status,
            error_response::code(status),
            &parts.headers,
            &error_response::google(status),
        )
    };
    let mut messages = match Messages::of(&parts.headers, body) {
        Ok(messages) => messages,
        Err(status) => return failed(&status),
    };
    let Form::Single(packing) = form else {
        let body = streamed(rpc, form, messages);
        return error_response::answer(StatusCode::OK, &parts.headers, form.content_type(), body);
    };
    let json = match messages.only().await {
        Ok(message) => json::decode(&rpc.output, &message).and_then(|message| json::write(&message)),
        Err(status) => return failed(&status),
    };
    match json {
        Ok(json) => {
            let (json, packed) = packing.pack(json.into());
            let body = Body::new(Full::new(json));
            let mut response =
                error_response::answer(StatusCode::OK, &parts.headers, form.content_type(), body);
            if packed {
                response
                    .headers_mut()
                    .insert(header::CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
            }
            response
        }
        Err(problem) => failed(&problem.into()),
    }
}

/// The messages one after the other, and last what went wrong.
fn streamed(rpc: Arc<Rpc>, form: Form, messages: Messages) -> Body {
    let frames = futures::stream::unfold(Some(messages), move |messages| {
        let rpc = rpc.clone();
        async move {
            let mut messages = messages?;
            let (bytes, goes_on) = match messages.next().await {
                Ok(Some(message)) => match element(&rpc, form, &message) {
                    Ok(element) => (element, true),
                    Err(problem) => (last(form, &problem.into()), false),
                },
                // Without a final event a browser takes the end for a broken connection and reconnects.
                Ok(None) if form == Form::Events => (Bytes::from_static(b"event: end\ndata: {}\n\n"), false),
                Ok(None) => return None,
                Err(status) => (last(form, &status), false),
            };
            Some((Ok::<_, Status>(Frame::data(bytes)), goes_on.then_some(messages)))
        }
    });
    Body::new(StreamBody::new(frames))
}

fn element(rpc: &Rpc, form: Form, message: &[u8]) -> Result<Bytes, Problem> {
    let message = json::decode(&rpc.output, message)?;
    let json = json::write(&message)?;
    let mut bytes = BytesMut::with_capacity(json.len() + 64);
    if form == Form::Events {
        if let Some(token) = rpc.resume.as_ref().and_then(|resume| resume.token(&message)) {
            bytes.extend_from_slice(format!("id: {token}\n").as_bytes());
        }
        bytes.extend_from_slice(b"data: ");
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(b"\n\n");
    } else {
        bytes.extend_from_slice(b"{\"result\":");
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(b"}\n");
    }
    Ok(bytes.freeze())
}

fn last(form: Form, status: &Status) -> Bytes {
    let json = error_response::google(status).to_string();
    let mut bytes = BytesMut::new();
    if form == Form::Events {
        bytes.put_slice(format!("event: error\ndata: {json}\n\n").as_bytes());
    } else {
        bytes.put_slice(format!("{{\"error\":{json}}}\n").as_bytes());
    }
    bytes.freeze()
}

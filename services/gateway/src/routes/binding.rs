//! Where a method is served over HTTP with JSON: what `google.api.http` says, checked against its request.

use std::fmt;

use http::Method;
use pavior_proto::google::api::HttpRule;
use pavior_proto::google::api::http_rule::Pattern;
use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};

use super::template::Template;

/// What the body of an HTTP request holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing: what the path does not give stands in the query.
    Nothing,
    /// Everything that the path does not give.
    Request,
    /// This field of the request; the others stand in the query.
    Field(String),
}

/// One way to call a method over HTTP.
#[derive(Debug, Clone)]
pub struct Binding {
    pub(crate) verb: Method,
    pub(crate) template: Template,
    pub(crate) content: Content,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.template)
    }
}

impl Binding {
    /// Whether some request could mean both.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        self.verb == other.verb && self.template.overlaps(&other.template)
    }

    /// The ways that a rule gives a method, additional ones included.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub(crate) fn all(rule: Option<&HttpRule>, method: &MethodDescriptor) -> Result<Vec<Self>, Vec<String>> {
        let Some(rule) = rule else { return Err(vec!["is served nowhere over HTTP".to_owned()]) };
        let (mut made, mut problems) = (Vec::new(), Vec::new());
        for rule in std::iter::once(rule).chain(&rule.additional_bindings) {
            match Self::of(rule, &method.input()) {
                Ok(binding) => made.push(binding),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(made) } else { Err(problems) }
    }

    fn of(rule: &HttpRule, request: &MessageDescriptor) -> Result<Self, String> {
        let (verb, path) = match &rule.pattern {
            Some(Pattern::Get(path)) => (Method::GET, path),
            Some(Pattern::Put(path)) => (Method::PUT, path),
            Some(Pattern::Post(path)) => (Method::POST, path),
            Some(Pattern::Delete(path)) => (Method::DELETE, path),
            Some(Pattern::Patch(path)) => (Method::PATCH, path),
            Some(Pattern::Custom(_)) | None => return Err("has no verb and path over HTTP".to_owned()),
        };
        let template = Template::parse(path)?;
        for variable in &template.variables {
            scalar(request, &variable.field)
                .ok_or_else(|| format!("names `{}` in `{path}`, which is no single value", variable.field))?;
        }
        if !rule.response_body.is_empty() {
            return Err(format!("answers `{path}` with a part of its response, which is not built"));
        }
        let content = match rule.body.as_str() {
            "" => Content::Nothing,
            _ if verb == Method::GET || verb == Method::DELETE => {
                return Err(format!("wants a body for {verb} `{path}`"));
            }
            "*" => Content::Request,
            name => {
                let field =
                    request.get_field_by_name(name).filter(|field| !field.is_list() && !field.is_map());
                if !field.is_some_and(|field| matches!(field.kind(), Kind::Message(_))) {
                    return Err(format!("has the body `{name}` for `{path}`, which is no message"));
                }
                Content::Field(name.to_owned())
            }
        };
        Ok(Self { verb, template, content })
    }
}

/// Whether a path of fields leads to a single value that can stand in a path.
fn scalar(request: &MessageDescriptor, path: &str) -> Option<()> {
    let mut message = request.clone();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let field = message.get_field_by_name(name)?;
        if field.is_list() || field.is_map() {
            return None;
        }
        match (field.kind(), names.peek()) {
            (Kind::Message(inner), Some(_)) => message = inner,
            (Kind::Message(_), None) | (_, Some(_)) => return None,
            (_, None) => return Some(()),
        }
    }
    None
}

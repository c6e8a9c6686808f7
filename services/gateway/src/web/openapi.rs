//! The description of HTTP with JSON as an OpenAPI 3.1 document, made from the descriptors.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use pavior_proto::google::api::FieldBehavior;
use pavior_proto::google::rpc;
use pavior_rpc::{annotations, convert};
use prost_reflect::{FieldDescriptor, Kind, MethodDescriptor};
use serde_json::{Map, Value, json};
use tonic::body::Body;

use super::body::Packing;
use super::schemas::Schemas;
use super::{Rpc, error_response, query, rest};
use crate::routes::binding::{Binding, Content};
use crate::routes::template::{Segment, Template};
use crate::routes::{ResourceKind, RouteTable};

/// Messages inside of one another whose fields stand in a query.
const MAX_DEPTH: usize = 4;

const ABOUT: &str = "The API of Pavior over HTTP with JSON, made from the same protos as gRPC and governed by the same \
    rules. Fields at their default value are left out of answers. Whole numbers of 64 bits are texts.";

/// Where the document is served.
pub(crate) const PATH: &str = "/openapi.json";

/// The document, made when somebody asks for it.
#[derive(Debug)]
pub(crate) struct Document(LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>);

impl Document {
    pub(crate) fn new(table: RouteTable, rpcs: HashMap<String, Arc<Rpc>>) -> Self {
        Self(LazyLock::new(Box::new(move || document(&table, &rpcs).to_string().into())))
    }

    /// The answer to whoever asks for it.
    pub(crate) fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let (bytes, packed) = Packing::wanted(headers, &header::ACCEPT_ENCODING).pack(self.0.clone());
        let body = Body::new(Full::new(bytes));
        let mut response =
            error_response::answer(StatusCode::OK, &HeaderMap::new(), "application/json", body);
        if packed {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// The same for the same descriptors.
fn document(table: &RouteTable, rpcs: &HashMap<String, Arc<Rpc>>) -> Value {
    let names = Names::of(table.kinds());
    let mut schemas = Schemas::new(convert::pool());
    let error =
        convert::descriptor::<rpc::Status>().map(|status| schemas.message(&status)).unwrap_or_default();
    let mut paths: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    let sorted: BTreeMap<&String, &Arc<Rpc>> = rpcs.iter().collect();
    for rpc in sorted.into_values() {
        let Some(method) = method_of(rpc) else { continue };
        let service = method.parent_service();
        let comment = schemas.comments().above(service).to_owned();
        tags.insert(service.name().to_owned(), comment);
        for (at, binding) in rpc.method.http.iter().enumerate() {
            let (path, variables) = names.expand(&binding.template);
            let mut operation =
                Operation { rpc, binding, schemas: &mut schemas }.describe(&method, &variables);
            let suffix = if at == 0 { String::new() } else { format!("_{}", at + 1) };
            let id = format!("{}_{}{suffix}", service.name(), method.name());
            if let Some(operation) = operation.as_object_mut() {
                operation.insert("operationId".to_owned(), json!(id));
            }
            paths.entry(path).or_default().insert(binding.verb.as_str().to_ascii_lowercase(), operation);
        }
    }
    let tags: Vec<Value> =
        tags.into_iter().map(|(name, comment)| json!({ "name": name, "description": comment })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pavior",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": {
                "Error": {
                    "description": "What went wrong: a status with its details, each by its `@type`.",
                    "content": { "application/json": { "schema": error } },
                },
            },
            "schemas": schemas.into_all(),
        },
    })
}

fn method_of(rpc: &Rpc) -> Option<MethodDescriptor> {
    let (service, name) = rpc.method.path.trim_start_matches('/').split_once('/')?;
    convert::pool().get_service_by_name(service)?.methods().find(|method| method.name() == name)
}

/// How the things of a collection are called: `group` for `groups`.
struct Names(HashMap<String, String>);

impl Names {
    fn of(kinds: &[ResourceKind]) -> Self {
        let mut names = HashMap::new();
        for pattern in kinds.iter().flat_map(|kind| &kind.patterns) {
            let segments: Vec<&str> = pattern.split('/').collect();
            for pair in segments.windows(2) {
                let [collection, variable] = pair else { continue };
                if let Some(name) = variable.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    names.insert((*collection).to_owned(), name.to_owned());
                }
            }
        }
        Self(names)
    }

    /// The path with a variable for each part that varies, and the names of these. OpenAPI has none with slashes.
    fn expand(&self, template: &Template) -> (String, Vec<String>) {
        let (mut path, mut names) = (String::new(), Vec::new());
        let mut collection = "";
        for segment in &template.segments {
            path.push('/');
            if let Segment::Literal(text) = segment {
                path.push_str(text);
                collection = text;
                continue;
            }
            let singular = collection.strip_suffix('s').unwrap_or(collection);
            let mut name = self.0.get(collection).cloned().unwrap_or_else(|| singular.to_owned());
            if name.is_empty() || names.contains(&name) {
                name = format!("{name}_{}", names.len() + 1);
            }
            path.push_str(&format!("{{{name}}}"));
            names.push(name);
        }
        if let Some(verb) = &template.verb {
            path.push_str(&format!(":{verb}"));
        }
        (path, names)
    }
}

/// One way to call a method.
struct Operation<'a> {
    rpc: &'a Rpc,
    binding: &'a Binding,
    schemas: &'a mut Schemas,
}

impl Operation<'_> {
    fn describe(mut self, method: &MethodDescriptor, variables: &[String]) -> Value {
        let comment = self.schemas.comments().above(method).to_owned();
        let summary = comment.split(". ").next().unwrap_or_default().replace('\n', " ");
        let mut parameters: Vec<Value> = variables
            .iter()
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        parameters.extend(self.query());
        let mut operation = Map::new();
        operation.insert("tags".to_owned(), json!([method.parent_service().name()]));
        operation.insert("summary".to_owned(), json!(summary.trim_end_matches('.')));
        operation.insert("description".to_owned(), json!(comment));
        operation.insert("parameters".to_owned(), Value::Array(parameters));
        if let Some(body) = self.body() {
            operation.insert("requestBody".to_owned(), body);
        }
        let answer = self.answer();
        let error = json!({ "$ref": "#/components/responses/Error" });
        operation.insert("responses".to_owned(), json!({ "200": answer, "default": error }));
        Value::Object(operation)
    }

    /// The fields that stand in the path.
    fn bound(&self) -> Vec<String> {
        self.binding.template.variables.iter().map(|variable| variable.field.clone()).collect()
    }

    fn query(&mut self) -> Vec<Value> {
        let body = match &self.binding.content {
            Content::Request => return Vec::new(),
            Content::Field(name) => Some(name.clone()),
            Content::Nothing => None,
        };
        let bound = self.bound();
        let mut found = Vec::new();
        for field in self.rpc.input.fields().filter(|field| Some(field.name()) != body.as_deref()) {
            self.leaves(&mut vec![field], &bound, &mut found);
        }
        found
    }

    /// A field as a parameter, or those inside of it.
    fn leaves(&mut self, fields: &mut Vec<FieldDescriptor>, bound: &[String], found: &mut Vec<Value>) {
        let Some(field) = fields.last().cloned() else { return };
        let name = query::name(fields);
        if bound.contains(&name) || annotations::behaves(&field, FieldBehavior::OutputOnly) || field.is_map()
        {
            return;
        }
        if query::find(&self.rpc.input, &name).is_ok() {
            let shown: Vec<&str> = fields.iter().map(FieldDescriptor::json_name).collect();
            let required = annotations::behaves(&field, FieldBehavior::Required) && fields.len() == 1;
            found.push(json!({
                "name": shown.join("."),
                "in": "query",
                "description": self.schemas.comment_of(&field),
                "required": required,
                "schema": self.schemas.field(&field),
            }));
        } else if let Kind::Message(inner) = field.kind()
            && !field.is_list()
            && fields.len() < MAX_DEPTH
        {
            for inner in inner.fields() {
                fields.push(inner);
                self.leaves(fields, bound, found);
                fields.pop();
            }
        }
    }

    fn body(&mut self) -> Option<Value> {
        let bound = self.bound();
        let (schema, required) = match &self.binding.content {
            Content::Nothing => return None,
            Content::Request => {
                let schema = self.schemas.object(&self.rpc.input, &bound, true);
                let required = schema.get("required").is_some();
                (schema, required)
            }
            Content::Field(name) => {
                let field = self.rpc.input.get_field_by_name(name)?;
                let inner = field.kind().as_message()?.clone();
                // What is not changed need not be said.
                let schema = match self.binding.verb == http::Method::PATCH {
                    true => self.schemas.object(&inner, &[], false),
                    false => self.schemas.message(&inner),
                };
                (schema, annotations::behaves(&field, FieldBehavior::Required))
            }
        };
        Some(json!({ "required": required, "content": { "application/json": { "schema": schema } } }))
    }

    fn answer(&mut self) -> Value {
        let message = self.schemas.message(&self.rpc.output);
        let content = if self.rpc.method.streaming {
            let status = json!({ "$ref": "#/components/schemas/google.rpc.Status" });
            let line = json!({ "type": "object", "properties": { "result": message, "error": status } });
            json!({ rest::LINES: { "schema": line }, rest::EVENTS: { "schema": { "type": "string" } } })
        } else {
            json!({ "application/json": { "schema": message } })
        };
        json!({ "description": "The answer.", "content": content })
    }
}

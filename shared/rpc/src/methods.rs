//! What the descriptors say about each method: whether it streams, whether it only reads.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use prost_reflect::{DynamicMessage, Value};

use crate::convert;

/// A method of a service of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodInfo {
    /// `pavior.catalog.v1.CatalogService/GetComponent`.
    pub full: String,
    /// Full service name, for example `pavior.catalog.v1.CatalogService`.
    pub service: String,
    /// Method name, for example `GetComponent`.
    pub method: String,
    /// Full name of the request's message.
    pub input: String,
    /// The answer is a stream.
    pub server_streaming: bool,
    /// The request is a stream.
    pub client_streaming: bool,
    /// `idempotency_level = NO_SIDE_EFFECTS`.
    pub reads_only: bool,
    /// The rule says so: the answer waits for something to happen.
    pub waits: bool,
}

impl MethodInfo {
    /// True when neither side streams.
    pub fn unary(&self) -> bool {
        !self.server_streaming && !self.client_streaming
    }
}

/// Immutable once made: read from the embedded descriptors.
static METHODS: LazyLock<HashMap<String, MethodInfo>> = LazyLock::new(|| {
    let waiting = waiting();
    let mut methods = HashMap::new();
    for service in convert::pool().services() {
        for method in service.methods() {
            let options = method.method_descriptor_proto().options.as_ref();
            let level = options.and_then(|options| options.idempotency_level);
            let full = format!("{}/{}", service.full_name(), method.name());
            let info = MethodInfo {
                waits: waiting.contains(&full),
                full,
                service: service.full_name().to_owned(),
                method: method.name().to_owned(),
                input: method.input().full_name().to_owned(),
                server_streaming: method.is_server_streaming(),
                client_streaming: method.is_client_streaming(),
                // google.protobuf.MethodOptions.IdempotencyLevel: 1 is NO_SIDE_EFFECTS.
                reads_only: level == Some(1),
            };
            methods.insert(format!("/{}", info.full), info);
        }
    }
    methods
});

/// The methods whose rules say that they wait: their own rules, and those of services that take them over.
fn waiting() -> HashSet<String> {
    let pool = convert::pool();
    let extension = |name: &str| pool.get_extension_by_name(&format!("pavior.governance.v1.{name}"));
    let (Some(rule), Some(mixin)) = (extension("rule"), extension("mixin")) else { return HashSet::new() };
    let waits = |rule: &DynamicMessage| field(rule, "waits").and_then(|waits| waits.as_bool()) == Some(true);
    let mut found = HashSet::new();
    for service in pool.services() {
        for method in service.methods() {
            if method.options().get_extension(&rule).as_message().is_some_and(waits) {
                found.insert(format!("{}/{}", service.full_name(), method.name()));
            }
        }
        for mixin in service.options().get_extension(&mixin).as_list().unwrap_or_default() {
            let Some(mixin) = mixin.as_message() else { continue };
            let (rule, method) = (field(mixin, "rule"), field(mixin, "method"));
            if rule.as_ref().and_then(Value::as_message).is_some_and(waits)
                && let Some(method) = method.as_ref().and_then(Value::as_str)
            {
                found.insert(method.to_owned());
            }
        }
    }
    found
}

fn field(message: &DynamicMessage, name: &str) -> Option<Value> {
    Some(message.get_field_by_name(name)?.into_owned())
}

/// The method of an HTTP path such as `/pavior.catalog.v1.CatalogService/GetComponent`.
pub fn method(path: &str) -> Option<&'static MethodInfo> {
    METHODS.get(path)
}

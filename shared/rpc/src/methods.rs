//! What the descriptors say about each method: whether it streams, whether it only reads.

use std::collections::HashMap;
use std::sync::LazyLock;

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
    /// The answer is a stream.
    pub server_streaming: bool,
    /// The request is a stream.
    pub client_streaming: bool,
    /// `idempotency_level = NO_SIDE_EFFECTS`.
    pub reads_only: bool,
}

impl MethodInfo {
    /// True when neither side streams.
    pub fn unary(&self) -> bool {
        !self.server_streaming && !self.client_streaming
    }
}

/// Immutable once made: read from the embedded descriptors.
static METHODS: LazyLock<HashMap<String, MethodInfo>> = LazyLock::new(|| {
    let mut methods = HashMap::new();
    for service in convert::pool().services() {
        for method in service.methods() {
            let options = method.method_descriptor_proto().options.as_ref();
            let level = options.and_then(|options| options.idempotency_level);
            let info = MethodInfo {
                full: format!("{}/{}", service.full_name(), method.name()),
                service: service.full_name().to_owned(),
                method: method.name().to_owned(),
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

/// The method of an HTTP path such as `/pavior.catalog.v1.CatalogService/GetComponent`.
pub fn method(path: &str) -> Option<&'static MethodInfo> {
    METHODS.get(path)
}

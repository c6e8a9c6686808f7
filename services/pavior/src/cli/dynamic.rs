//! Calls whose message types are found in the API's descriptors at run time, so that `pavior apply` knows every
//! resource type without a line of code for any of them.

use std::collections::HashMap;

use anyhow::Context as _;
use bytes::Buf as _;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::client::Authorized;

/// One resource type of the API, with its standard methods.
#[derive(Debug, Clone)]
pub(crate) struct ResourceKind {
    /// The resource's message.
    pub message: MessageDescriptor,
    /// `Get…`.
    pub get: MethodDescriptor,
    /// `Create…`.
    pub create: MethodDescriptor,
    /// `Update…`, where there is one.
    pub update: Option<MethodDescriptor>,
    /// The name of the field that holds the resource in requests.
    pub field: String,
}

/// Finds the resource types that can be applied, by type name (`identity.pavior.dev/Group`).
pub(crate) fn kinds() -> anyhow::Result<HashMap<String, ResourceKind>> {
    let pool = DescriptorPool::decode(pavior_proto::DESCRIPTORS)?;
    let option =
        pool.get_extension_by_name("google.api.resource").context("google.api.resource is not known")?;
    let methods: HashMap<(String, String), MethodDescriptor> = pool
        .services()
        .flat_map(|service| {
            let package = service.package_name().to_owned();
            service.methods().map(move |m| ((package.clone(), m.name().to_owned()), m)).collect::<Vec<_>>()
        })
        .collect();
    let mut kinds = HashMap::new();
    for message in pool.all_messages() {
        let options = message.options();
        if !options.has_extension(&option) {
            continue;
        }
        let resource = options.get_extension(&option);
        let Some(kind) = resource.as_message().and_then(|m| {
            let text = |field: &str| m.get_field_by_name(field)?.as_str().map(str::to_owned);
            Some((text("type")?, text("singular")?))
        }) else {
            continue;
        };
        let method = |verb: &str| {
            methods.get(&(message.package_name().to_owned(), format!("{verb}{}", message.name()))).cloned()
        };
        let (Some(get), Some(create)) = (method("Get"), method("Create")) else { continue };
        let field = snake_case(&kind.1);
        if create.input().get_field_by_name(&field).is_none() || create.output() != message {
            continue;
        }
        let update = method("Update");
        kinds.insert(kind.0, ResourceKind { message, get, create, update, field });
    }
    Ok(kinds)
}

fn snake_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Builds a message of a method's input type from fields by name; fields that the type has not are left out.
pub(crate) fn request(method: &MethodDescriptor, fields: Vec<(&str, Value)>) -> DynamicMessage {
    let mut message = DynamicMessage::new(method.input());
    for (name, value) in fields {
        if method.input().get_field_by_name(name).is_some() {
            message.set_field_by_name(name, value);
        }
    }
    message
}

/// Calls a unary method.
pub(crate) async fn call(
    channel: Authorized,
    method: &MethodDescriptor,
    request: DynamicMessage,
) -> anyhow::Result<Result<DynamicMessage, Status>> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name()).parse()?;
    let answer = grpc.unary(tonic::Request::new(request), path, DynamicCodec(method.output())).await;
    Ok(answer.map(tonic::Response::into_inner))
}

struct DynamicCodec(MessageDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.0.clone())
    }
}

struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(target).map_err(|e| Status::internal(e.to_string()))
    }
}

struct DynamicDecoder(MessageDescriptor);

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        DynamicMessage::decode(self.0.clone(), bytes).map(Some).map_err(|e| Status::internal(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declarative_resource_type_can_be_applied() {
        let kinds = kinds().unwrap();
        for kind in [
            "identity.pavior.dev/Organization",
            "identity.pavior.dev/Group",
            "identity.pavior.dev/User",
            "identity.pavior.dev/Membership",
            "catalog.pavior.dev/Kind",
            "catalog.pavior.dev/Entity",
            "catalog.pavior.dev/ResourceType",
            "catalog.pavior.dev/ResourceDefinition",
            "policy.pavior.dev/Role",
            "policy.pavior.dev/RoleBinding",
            "policy.pavior.dev/Policy",
            "policy.pavior.dev/PolicyBinding",
        ] {
            assert!(kinds.contains_key(kind), "{kind} is missing");
        }
        // Made from a plan by an operation, never declared.
        assert!(!kinds.contains_key("provisioning.pavior.dev/Project"));
    }

    #[test]
    fn field_names_are_snake_case() {
        assert_eq!(snake_case("roleBinding"), "role_binding");
    }
}

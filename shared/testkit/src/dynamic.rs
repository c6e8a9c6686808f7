//! Calls of any method of the API, with messages as JSON.

use bytes::Buf as _;
use pavior_rpc::{BoxError, convert, governance};
use prost::Message as _;
pub use prost_reflect::MethodDescriptor;
use prost_reflect::{DynamicMessage, ReflectMessage as _, SerializeOptions, Value};
use serde_json::Value as Json;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

/// A request with this key is sent with a field that none of its messages has, in each of them that is ours.
pub const UNKNOWN_FIELDS: &str = "@unknownFields";
/// The largest number that a field can have.
const UNKNOWN_NUMBER: u32 = (1 << 29) - 1;

/// The methods of the services that only one role answers, such as `catalog`; without those that it takes over.
pub fn methods(role: &str) -> Vec<MethodDescriptor> {
    let only = |name: &&str| {
        let service = convert::pool().get_service_by_name(name).unwrap();
        governance::roles(&service).unwrap() == [role]
    };
    let services = governance::services(role).into_iter().filter(only);
    services.flat_map(of_service).collect()
}

/// A method of a role by its name, `GetEntity`.
pub fn method_of(role: &str, name: &str) -> MethodDescriptor {
    let found = methods(role).into_iter().find(|method| method.name() == name);
    found.unwrap_or_else(|| panic!("{role} has no {name}"))
}

/// A method by its full name, `package.Service/Method`.
pub fn method(name: &str) -> MethodDescriptor {
    let (service, name) = name.split_once('/').unwrap();
    of_service(service).into_iter().find(|method| method.name() == name).unwrap()
}

fn of_service(name: &str) -> Vec<MethodDescriptor> {
    convert::pool().get_service_by_name(name).unwrap().methods().collect()
}

/// The path of a method.
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The action that policy decides on.
pub fn action(method: &MethodDescriptor) -> String {
    let rule = convert::pool().get_extension_by_name("pavior.governance.v1.rule").unwrap();
    let rule = method.options().get_extension(&rule).into_owned();
    let action = rule.as_message().unwrap().get_field_by_name("action").unwrap();
    action.as_str().unwrap().to_owned()
}

/// Calls a unary method. The message is JSON as protobuf has it; metadata and extensions go along.
pub async fn call<S>(service: S, method: &MethodDescriptor, request: Request<Json>) -> Result<Json, Status>
where
    S: GrpcService<Body, Error: Into<BoxError>>,
    S::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes, Error: Into<BoxError> + Send> + Send + 'static,
{
    let request = request.map(|mut json| {
        let unknown = json.as_object_mut().and_then(|fields| fields.remove(UNKNOWN_FIELDS));
        let message = DynamicMessage::deserialize(method.input(), json).unwrap();
        if unknown.is_some() { with_unknown_fields(message) } else { message }.encode_to_vec()
    });
    let mut client = tonic::client::Grpc::new(service);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let answer = client.unary(request, path(method).parse().unwrap(), Bytes).await?.into_inner();
    let answer = DynamicMessage::decode(method.output(), answer.as_slice()).unwrap();
    let options = SerializeOptions::new();
    Ok(answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
}

fn with_unknown_fields(mut message: DynamicMessage) -> DynamicMessage {
    for (_, value) in message.fields_mut() {
        if let Value::Message(inner) = value
            && inner.descriptor().full_name().starts_with("pavior.")
        {
            *inner = with_unknown_fields(inner.clone());
        }
    }
    let mut bytes = message.encode_to_vec();
    prost::encoding::string::encode(UNKNOWN_NUMBER, &"of a newer client".to_owned(), &mut bytes);
    DynamicMessage::decode(message.descriptor(), bytes.as_slice()).unwrap()
}

/// Messages as they are on the wire.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

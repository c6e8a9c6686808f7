//! Calls whose request and answer are JSON, of any method that the descriptors know.

use anyhow::{Context as _, Result};
use pavior::cli::client::Client;
use prost_reflect::prost::Message as _;
use prost_reflect::prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use serde_json::Value;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Calls `package.Service/Method`. Fields of `request` that the method does not have are left out; the call is known
/// as `request_id` in logs and records.
pub(crate) async fn call(
    client: &Client,
    method: &str,
    mut request: Value,
    request_id: &str,
) -> Result<Result<Value, Status>> {
    let pool = DescriptorPool::decode(pavior_proto::DESCRIPTORS)?;
    let (service, name) = method.split_once('/').context("a method is `package.Service/Method`")?;
    let service = pool.get_service_by_name(service).with_context(|| format!("no service `{service}`"))?;
    let found = service.methods().find(|method| method.name() == name);
    let found = found.with_context(|| format!("no method `{method}`"))?;
    let fields = request.as_object_mut().context("a request is an object")?;
    fields.retain(|name, _| found.input().get_field_by_json_name(name).is_some());
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(found.input(), request, &options)
        .with_context(|| format!("a request of {method}"))?;

    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await?;
    let mut request = tonic::Request::new(message.encode_to_vec());
    request.metadata_mut().insert("x-request-id", request_id.parse()?);
    let trace = format!("00-{}-00f067aa0ba902b7-00", trace_id(request_id));
    request.metadata_mut().insert("traceparent", trace.parse()?);
    let answer = match grpc.unary(request, format!("/{method}").parse()?, Bytes).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    Ok(Ok(serde_json::to_value(DynamicMessage::decode(found.output(), &answer[..])?)?))
}

/// The id of the trace in which [`call`] makes the call of this request id, a UUID.
pub(crate) fn trace_id(request_id: &str) -> String {
    request_id.replace('-', "")
}

/// Messages as they are.
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

    fn encode(&mut self, item: Vec<u8>, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining()).to_vec()))
    }
}

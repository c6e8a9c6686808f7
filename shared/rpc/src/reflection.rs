//! Server reflection, v1 and v1alpha, that names only what is served.

use pavior_proto::PUBLISHED;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// The services that stand beside the stack.
const INFRASTRUCTURE: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

fn builder(served: &[&str]) -> Builder<'static> {
    let builder = Builder::configure()
        // Encoded bytes keep custom options and comments; they contain google/rpc/error_details.proto, which grpcurl
        // needs to print details.
        .register_encoded_file_descriptor_set(PUBLISHED)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
    served.iter().chain(&INFRASTRUCTURE).fold(builder, |builder, name| builder.with_service_name(*name))
}

/// Adds both versions to routes. `served` are the full names of the services that are served.
pub fn reflection(routes: Routes, served: &[&str]) -> Result<Routes, Error> {
    let v1 = builder(served).build_v1()?.accept_compressed(Gzip);
    let v1alpha = builder(served).build_v1alpha()?.accept_compressed(Gzip);
    Ok(routes.add_service(v1).add_service(v1alpha))
}

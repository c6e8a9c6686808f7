//! The wire of Pavior as Rust types: generated modules and the descriptor set.
//!
//! Owns nothing but what is generated from `proto/`; must never hold hand-written logic.
//! Entry points: one module for each proto package (`pavior::catalog::v1`, …), [`shape`] and [`DESCRIPTORS`].

#[allow(clippy::all, clippy::unwrap_used, unreachable_pub, missing_docs, rustdoc::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/pavior_api.rs"));
}

pub mod shape;

pub use generated::{buf, google, pavior};

/// The encoded `google.protobuf.FileDescriptorSet` of what clients see: every package but those in which the services
/// of the platform speak to each other.
pub const PUBLISHED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/published.binpb"));

/// The encoded `google.protobuf.FileDescriptorSet` of every package, with custom options and source comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

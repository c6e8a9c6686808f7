//! The gateway in front of small real servers, over TCP.

#![allow(clippy::unwrap_used, clippy::panic)]

mod access;
mod composite;
mod connect;
mod edge;
mod governance;
mod harness;
mod http_json;
mod imports;
mod labels;
mod openapi;
mod streams;
mod table;
mod transcoding;
mod upsert;

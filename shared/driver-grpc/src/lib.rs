//! The driver contract over gRPC (`pavior.driver.v1`): drivers in other processes and other languages.
//!
//! Owns both ends: [`RemoteDriver`], which is a [`pavior_driver::Driver`] that calls a server, and [`serve`], which
//! puts any driver behind gRPC. Between them a call behaves as in the process, with what a network adds: a stream
//! that breaks off is an unknown outcome, and a call ends with its lease.
//!
//! It must never: hold a rule of one driver, repeat a call that touches the world, or let a secret out of the fields
//! that are made for them. Generated messages can hold secrets in the clear, so none is ever printed here.
//!
//! Entry points: [`RemoteDriver::connect`], [`serve`].

mod artifact;
mod client;
mod convert;
mod error;
mod handshake;
mod schema;
mod server;
mod told;
mod value;

pub use client::{RemoteDriver, RemoteOptions};
pub use error::{ConnectError, WireError};
pub use handshake::REVISIONS;
pub use server::serve;

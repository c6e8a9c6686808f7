//! pavior-rpc: everything between a handler and the wire.
//!
//! Owns the client transport (local and remote), the server stack and its order, errors with their details, and the
//! helpers of the API's conventions: validation, paging, field masks, conversions. Must never hold a rule of one
//! service, trust anything but what a layer has verified, or keep process-global state (immutable tables read from
//! the embedded descriptors excepted).
//!
//! Entry points: [`transport`] ([`Transport`], [`remote`], [`local`]), [`server`] (the stack and `serve`),
//! [`problem::Problem`], [`validate::request`], [`values`], [`paging`], [`stream`], [`mask`], [`convert`], [`digest`], [`context`],
//! [`audit::AuditSink`].

pub mod annotations;
pub mod audit;
mod body;
pub mod comments;
pub mod context;
pub mod convert;
pub mod digest;
pub mod facts;
pub mod governance;
pub mod health;
pub mod mask;
pub mod methods;
pub mod paging;
pub mod problem;
pub mod reflection;
pub mod rules;
mod schema;
pub mod server;
pub mod stream;
pub mod transport;
mod until;
pub mod validate;
pub mod values;

pub use context::RequestContext;
pub use health::Health;
pub use problem::{ErrorReason, FieldViolation, Problem, Violations};
pub use server::{Stack, StackOptions, serve, stack};
pub use transport::{BoxError, ClientTls, RetrySafe, Transport, local, remote};
pub use until::until;

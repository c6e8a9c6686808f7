//! Why a gateway cannot be built.

/// What keeps the gateway from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Descriptors that cannot be read.
    #[error("descriptors cannot be read: {0}")]
    Descriptors(String),
    /// Descriptors without the governance options.
    #[error("descriptors cannot be read: {0}")]
    NoGovernance(#[from] pavior_rpc::governance::NoGovernance),
    /// Methods without proper governance or without a place of their own over HTTP, all of them.
    #[error("{} of the API cannot be served:\n  {}", count(.0), .0.join("\n  "))]
    Ungoverned(Vec<String>),
    /// A role that methods are routed to, without a way to reach it.
    #[error("no upstream is configured for {}", .0.join(", "))]
    NoUpstream(Vec<String>),
    /// A configuration that cannot work.
    #[error("gateway configuration: {0}")]
    Config(String),
    /// Keys that cannot be used.
    #[error(transparent)]
    Auth(#[from] pavior_auth::AuthError),
}

fn count(offenders: &[String]) -> String {
    match offenders.len() {
        1 => "1 method".to_owned(),
        n => format!("{n} methods"),
    }
}

use pavior_rpc::transport::EndpointError;

/// A message that breaks the contract. Never shows a value, which could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// An enum number that has no meaning here.
    #[error("`{0}` has no meaning")]
    Meaningless(&'static str),
    /// More bytes than the contract allows.
    #[error("`{0}` is longer than the contract allows")]
    TooLong(&'static str),
    /// More levels than the wire carries.
    #[error("a value is nested deeper than {0} levels")]
    TooDeep(usize),
    /// NaN or an infinity, which JSON lacks.
    #[error("a number is not finite")]
    NotFinite,
    /// A key that stands twice in one object.
    #[error("a key stands twice in one object")]
    DuplicateKey,
    /// A secret in the clear where none may stand.
    #[error("a secret stands where only plain values may")]
    Secret,
    /// A schema that is not JSON.
    #[error("the {what} schema of `{owner}` is not JSON")]
    Schema {
        /// The type or the action.
        owner: String,
        /// `input`, `output` or `argument`.
        what: &'static str,
    },
    /// A number below zero where there is none.
    #[error("`{0}` must not be negative")]
    Negative(&'static str),
    /// A time that cannot be.
    #[error("`{0}` is not a time")]
    Time(&'static str),
}

/// Why there is no remote driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The driver does not answer; it may later.
    #[error("the driver does not answer: {0}")]
    Unreachable(String),
    /// The driver refused the handshake.
    #[error("the driver refuses: {0}")]
    Refused(String),
    /// The driver chose a revision that was not offered.
    #[error("the driver speaks revision {driver} of the contract, and this is {ours:?}")]
    Revision {
        /// What the driver chose.
        driver: i32,
        /// What was offered.
        ours: Vec<i32>,
    },
    /// The driver needs what this side cannot do.
    #[error("the driver needs capabilities that are not there: {0}")]
    Capabilities(String),
    /// What the driver says about itself cannot be read.
    #[error("the driver's description is malformed: {0}")]
    Malformed(#[from] WireError),
    /// It was replaced between handshake and schema.
    #[error("the driver changed while it was asked for its schema")]
    Changed,
}

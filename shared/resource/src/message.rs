//! What a type of resource is as a message.

use pavior_core::Fault;
use pavior_core::resource::{Stored, Violation, Violations};
use pavior_proto::shape;
use pavior_rpc::problem::{FieldViolation, Problem};
use pavior_rpc::{convert, validate};
use prost::{Message, Name};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::crud::Rules;
use crate::error::Error;

/// Where a resource is.
#[derive(Debug)]
pub struct Scope<'a, S> {
    /// The service that keeps it.
    pub service: &'a S,
    /// The id of its organization.
    pub organization: &'a str,
    /// The id of the resource above it, other than the organization: the kind of an entity; empty otherwise.
    pub parent: &'a str,
}

/// The message of a type of resource.
pub trait Wire: Rules {
    /// The message.
    type Message: shape::Resource;

    /// As it is shown.
    fn encode(stored: &Stored<Self>) -> Self::Message;

    /// The fields of a message. What the server alone sets comes from `before`. What cannot be understood is added to
    /// `violations`, with paths relative to the resource; what can be is given all the same, so that everything that
    /// is wrong is said at once.
    fn decode(
        message: &Self::Message,
        scope: &Scope<'_, Self::Service>,
        before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self>;
}

/// The rules of the protos that a message breaks, with paths relative to it.
///
/// # Errors
/// INTERNAL for a message without a descriptor.
pub(crate) fn broken_rules<M: shape::Resource>(message: &M) -> Result<Violations, Error> {
    let violation = |FieldViolation { field, description, reason }| {
        let fault =
            Fault::ALL.iter().find(|fault| fault.as_str() == reason).copied().unwrap_or(Fault::Pattern);
        Violation { path: field, fault, message: description }
    };
    Ok(validate::violations(message)?.into_vec().into_iter().map(violation).collect())
}

/// Everything that is wrong with fields that were not read from a message: the rules of the message hold for them too.
///
/// # Errors
/// As `broken_rules`.
pub fn unfit<T: Wire>(organization: &str, id: &str, fields: &T) -> Result<Violations, Error> {
    // What only the server sets is not looked at.
    let stored = Stored::new(organization, id, Uuid::nil(), OffsetDateTime::UNIX_EPOCH, fields.clone());
    let broken = broken_rules(&T::encode(&stored))?;
    Ok(broken.into_iter().chain(fields.check(organization, id)).collect())
}

/// The fields of a message, or everything that is wrong with it.
///
/// # Errors
/// Fields that cannot be understood.
pub fn decode<T: Wire>(
    message: &T::Message,
    scope: &Scope<'_, T::Service>,
    before: Option<&T>,
) -> Result<T, Error> {
    let mut violations = Violations::new();
    match T::decode(message, scope, before, &mut violations) {
        Some(fields) if violations.is_empty() => Ok(fields),
        _ => Err(Error::invalid::<T>(violations)),
    }
}

/// What has no JSON form, such as a number that is not a number, could not be kept.
pub(crate) fn representable<R: Message + Name>(request: &R) -> Result<(), Problem> {
    let refuse =
        |error| Problem::invalid_field(R::NAME, Fault::Syntax, format!("cannot be written as JSON: {error}"));
    convert::to_json(request).map(drop).map_err(refuse)
}

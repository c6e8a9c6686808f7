//! What an update request makes of a resource: of one that is there, or of none.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::id::validate_new_id;
use pavior_core::resource::Stored;
use pavior_proto::shape::{self, UpdateRequest};
use pavior_rpc::{mask, validate};
use prost_types::FieldMask;

use crate::Work;
use crate::crud::{ErrorOf, Update};
use crate::error::Error;
use crate::message::{Scope, Wire, broken_rules, decode, representable};
use crate::names::{Named, collection_of, name};

/// What an update request makes of a resource.
#[derive(Debug, Clone)]
pub struct Patch<T: Wire> {
    /// Which resource.
    pub update: Update,
    /// It is made when it is not there.
    pub allow_missing: bool,
    message: T::Message,
    mask: Option<FieldMask>,
}

impl<T: Wire> Patch<T> {
    /// What is wrong with the request whatever is stored is said at once.
    pub(crate) fn read<R>(permit: &Permit, request: &R) -> Result<Self, Error>
    where
        R: UpdateRequest<Resource = T::Message>,
    {
        validate::request(request)?;
        let message = request.resource().cloned().unwrap_or_default();
        let (own_name, etag) = (shape::Resource::name(&message), shape::Resource::etag(&message).to_owned());
        let field = format!("{}.name", R::FIELD);
        let Named { name, parent, id } = name::<T>(permit, &field, own_name, R::ACTION)?;
        let mask = request.update_mask().cloned();
        // An unknown path is an error whether the resource exists or not.
        mask::Mask::resolve(mask.as_ref(), &message)?;
        representable(&request.without_mask())?;
        let allow_missing = request.allow_missing();
        Ok(Self { update: Update { parent, id, name, etag }, allow_missing, message, mask })
    }

    /// The fields of `before` with those that the mask names taken from the request; all of the request's where there
    /// was no resource before.
    ///
    /// # Errors
    /// An immutable field that would change, fields that cannot be understood, and an id that nothing new can have.
    pub fn merged(&self, work: &Work<'_, T::Service>, before: Option<&Stored<T>>) -> Result<T, ErrorOf<T>> {
        let Update { parent, id, .. } = &self.update;
        let scope = Scope { service: work.service, organization: work.permit.organization(), parent };
        let Some(before) = before else { return Ok(self.made(&scope, id)?) };
        let merged =
            mask::merge(&T::encode(before), &self.message, self.mask.as_ref()).map_err(Error::from)?;
        // What the mask names can be within the rules, and yet too much together with what is kept.
        broken_rules(&merged)?.into_result().map_err(Error::invalid::<T>)?;
        Ok(decode(&merged, &scope, Some(&before.fields))?)
    }

    /// The fields of a new one. The mask does not matter (AIP-134), and what is required is.
    fn made(&self, scope: &Scope<'_, T::Service>, id: &str) -> Result<T, Error> {
        let mut wrong = broken_rules(&self.message)?;
        if let Err(message) = validate_new_id(collection_of::<T>(), id) {
            wrong.add("name", Fault::Pattern, message);
        }
        wrong.into_result().map_err(Error::invalid::<T>)?;
        decode(&self.message, scope, None)
    }
}

//! What can be done with the catalog: one file for each resource. What changes have in common is `pavior_resource`'s.

mod directory;
mod entity;
mod facts;
mod group;
mod import;
mod import_document;
mod import_member;
mod kind;
mod membership;
mod organization;
mod registration;
mod resource_definition;
mod resource_type;
mod template;
mod template_version;
mod user;

use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_resource::facts::facts_of_target;
use pavior_resource::{Kernel, Service, Work};
use pavior_store::Tx;

use crate::domain::{Fields as _, OrganizationFields};
use crate::error::Error;
use crate::store::{Db, Reader};

pub(crate) use directory::Directory;
pub(crate) use entity::{EntityView, create_entity, delete_entity, update_entity};
pub(crate) use group::delete_group;
pub(crate) use import_document::{ImportCounts, ImportDocument};
pub(crate) use membership::create_membership;
pub(crate) use registration::{Register, Registered, Unregister};
pub(crate) use resource_definition::Match;
pub(crate) use template::{MoveChannel, RemoveChannel};
pub(crate) use template_version::CreateVersion;
pub(crate) use user::delete_user;
// For the wire side, which must not know the store.
pub(crate) use crate::store::DirectoryRows;

/// The catalog's use cases. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    kernel: Arc<Kernel>,
    /// The code of the currency of amounts of money.
    currency: Arc<str>,
}

impl App {
    pub(crate) fn new(kernel: Kernel, currency: &str) -> Self {
        Self { kernel: Arc::new(kernel), currency: currency.into() }
    }

    /// The code of the currency that amounts of money are in.
    pub(crate) fn currency(&self) -> &str {
        &self.currency
    }

    /// Queries outside of a transaction.
    fn read(&self) -> Reader<'_> {
        Db::new(self.kernel.store.read())
    }
}

impl Service for App {
    type Error = Error;

    fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The installation itself has no row to lock; changes there conflict by name only.
    async fn lock(tx: &Tx, permit: &Permit) -> Result<(), Error> {
        if permit.organization() == INSTALLATION || Db::new(tx).lock_organization(permit).await? {
            return Ok(());
        }
        let name = format!("organizations/{}", permit.organization());
        Err(pavior_resource::Error::NotFound { kind: OrganizationFields::TYPE, name }.into())
    }

    async fn facts(&self, tx: &Tx, permit: &Permit) -> Result<Option<ResourceFacts>, Error> {
        Ok(facts_of_target::<Self>(tx, permit).await?)
    }
}

/// The catalog's queries in the transaction of a change.
fn db<'c>(work: &Work<'c, App>) -> Db<'c, Tx> {
    Db::new(work.tx)
}

//! What can be done with the catalog: one file for each resource. What changes have in common is `pavior_resource`'s.

mod definitions;
mod directory;
mod entities;
mod facts;
mod groups;
mod import;
mod import_members;
mod kinds;
mod memberships;
mod organizations;
mod registration;
mod resource_types;
mod templates;
mod versions;

use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use pavior_resource::{Kernel, Service, Work};
use pavior_store::Tx;

use crate::domain::{Fields as _, OrganizationFields};
use crate::error::Error;
use crate::store::{Db, Reader};

pub(crate) use definitions::Match;
pub(crate) use directory::Directory;
pub(crate) use entities::{EntityView, create_entity, delete_entity, update_entity};
pub(crate) use import::{ImportDocument, Imported};
pub(crate) use memberships::{create_membership, delete_group, delete_user};
pub(crate) use registration::{Register, Unregister};
pub(crate) use versions::{CreateVersion, MoveChannel, RemoveChannel};
// For the wire side, which must not know the store.
pub(crate) use crate::store::DirectoryRows;

/// The catalog's use cases. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    kernel: Arc<Kernel>,
    /// What amounts of money are in.
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

    /// The installation itself is no organization, and what is changed there conflicts by name only.
    async fn lock(tx: &Tx, permit: &Permit) -> Result<(), Error> {
        if permit.organization() == INSTALLATION || Db::new(tx).lock_organization(permit).await? {
            return Ok(());
        }
        let name = format!("organizations/{}", permit.organization());
        Err(pavior_resource::Error::NotFound { kind: OrganizationFields::TYPE, name }.into())
    }

    async fn facts(&self, tx: &Tx, permit: &Permit) -> Result<Option<ResourceFacts>, Error> {
        facts::facts_of_target(&Db::new(tx), permit).await
    }
}

/// The catalog's queries in the transaction of a change.
fn db<'c>(work: &Work<'c, App>) -> Db<'c, Tx> {
    Db::new(work.tx)
}

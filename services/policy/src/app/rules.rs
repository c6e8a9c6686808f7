//! What holds for each kind of resource, besides its shape: limits, and what refers to what.

use pavior_auth::Permit;
use pavior_store::{StoreError, Tx};

use super::codec::name_of;
use crate::config::Config;
use crate::domain::record::{PolicyBindingSpec, PolicySpec, RoleBindingSpec, RoleSpec};
use crate::domain::source::SetKind;
use crate::error::Error;
use crate::store::{self, Table};

/// The rules of a kind of resource.
pub(crate) trait Rules: Table {
    /// How many an organization may have.
    fn limit(config: &Config) -> u64;
    /// The policy text that has to be checked before it is written.
    fn text(&self) -> Option<(SetKind, &str)> {
        None
    }
    /// Fails when something that it refers to does not exist.
    fn check_references(&self, tx: &Tx, permit: &Permit) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = (tx, permit);
        std::future::ready(Ok(()))
    }
    /// The resource names of some that refer to it.
    fn dependents(
        tx: &Tx,
        permit: &Permit,
        id: &str,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send {
        let _ = (tx, permit, id);
        std::future::ready(Ok(Vec::new()))
    }
}

async fn must_exist<T: Table>(tx: &Tx, permit: &Permit, field: &'static str, id: &str) -> Result<(), Error> {
    match store::by_id::<T>(tx, permit, id).await? {
        Some(_) => Ok(()),
        None => Err(Error::ReferenceNotFound { field, name: name_of::<T>(permit.organization(), id) }),
    }
}

impl Rules for RoleSpec {
    fn limit(config: &Config) -> u64 {
        config.max_roles
    }

    async fn dependents(tx: &Tx, permit: &Permit, id: &str) -> Result<Vec<String>, StoreError> {
        let ids = store::role_bindings_of(tx, permit, id).await?;
        Ok(ids.iter().map(|id| name_of::<RoleBindingSpec>(permit.organization(), id)).collect())
    }
}

impl Rules for RoleBindingSpec {
    fn limit(config: &Config) -> u64 {
        config.max_role_bindings
    }

    async fn check_references(&self, tx: &Tx, permit: &Permit) -> Result<(), Error> {
        must_exist::<RoleSpec>(tx, permit, "role_binding.role", &self.role).await
    }
}

impl Rules for PolicySpec {
    fn limit(config: &Config) -> u64 {
        config.max_policies
    }

    fn text(&self) -> Option<(SetKind, &str)> {
        Some((self.kind, &self.source))
    }

    async fn dependents(tx: &Tx, permit: &Permit, id: &str) -> Result<Vec<String>, StoreError> {
        let ids = store::policy_bindings_of(tx, permit, id).await?;
        Ok(ids.iter().map(|id| name_of::<PolicyBindingSpec>(permit.organization(), id)).collect())
    }
}

impl Rules for PolicyBindingSpec {
    fn limit(config: &Config) -> u64 {
        config.max_policy_bindings
    }

    async fn check_references(&self, tx: &Tx, permit: &Permit) -> Result<(), Error> {
        must_exist::<PolicySpec>(tx, permit, "policy_binding.policy", &self.policy).await
    }
}

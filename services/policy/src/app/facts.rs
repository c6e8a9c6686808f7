//! What policy needs to know about policy's own resources: that they exist.

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_proto::pavior::governance::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_rpc::Problem;
use pavior_rpc::facts::{no_owners_within, recall};
use pavior_store::idempotency;

use super::App;
use super::approvals::{APPROVAL_TYPE, APPROVALS};
use super::resources::plain_facts;
use crate::domain::record::{PolicyBindingSpec, PolicySpec, RoleBindingSpec, RoleSpec};
use crate::error::Error;
use crate::store::{self, ConnectionTrait, Table};

const ORGANIZATION_TYPE: &str = "catalog.pavior.dev/Organization";

impl App {
    /// The facts of a resource of this service, or those that were kept with the answer to an earlier call.
    pub(crate) async fn facts(&self, asked: &GetResourceFactsRequest) -> Result<ResourceFacts, Error> {
        let GetResourceFactsRequest { name, request_id, method, principal, message } = asked;
        no_owners_within(message)?;
        if !request_id.is_empty()
            && let Ok(parsed) = ResourceName::parse(name)
        {
            let key = idempotency::Key::new(parsed.organization(), principal, method, request_id);
            let kept = idempotency::facts(self.store.read(), &key, self.clock.now()).await?;
            if let Some(first) = recall(kept, name)? {
                return Ok(first);
            }
        }
        self.facts_in(self.store.read(), name).await
    }

    /// The facts of a resource of this service; of the organization when it does not exist.
    pub(super) async fn facts_in<C: ConnectionTrait>(
        &self,
        db: &C,
        name: &str,
    ) -> Result<ResourceFacts, Error> {
        let refuse = |text: String| Error::from(Problem::invalid_field("name", text));
        let parsed = ResourceName::parse(name).map_err(|error| refuse(error.to_string()))?;
        let organization = format!("organizations/{}", parsed.organization());
        if parsed.as_str() == organization {
            return Ok(plain_facts(organization, false, ORGANIZATION_TYPE));
        }
        let (permit, id) = (self.system_permit(parsed.organization()), parsed.id());
        let kind = match parsed.collection() {
            _ if parsed.pairs().count() != 2 => None,
            c if c == RoleSpec::COLLECTION => kind_if_known::<RoleSpec, C>(db, &permit, id).await?,
            c if c == RoleBindingSpec::COLLECTION => {
                kind_if_known::<RoleBindingSpec, C>(db, &permit, id).await?
            }
            c if c == PolicySpec::COLLECTION => kind_if_known::<PolicySpec, C>(db, &permit, id).await?,
            c if c == PolicyBindingSpec::COLLECTION => {
                kind_if_known::<PolicyBindingSpec, C>(db, &permit, id).await?
            }
            c if c == APPROVALS => {
                let found = store::approval_by_id(db, &permit, id).await?;
                Some(found.map(|_| APPROVAL_TYPE))
            }
            _ => None,
        };
        match kind {
            Some(Some(kind)) => Ok(plain_facts(name.to_owned(), true, kind)),
            Some(None) => Ok(plain_facts(organization, false, ORGANIZATION_TYPE)),
            None => Err(refuse(format!("`{name}` is not a resource of the policy service"))),
        }
    }
}

async fn kind_if_known<T: Table, C: ConnectionTrait>(
    db: &C,
    permit: &Permit,
    id: &str,
) -> Result<Option<Option<&'static str>>, Error> {
    Ok(Some(store::by_id::<T>(db, permit, id).await?.map(|_| T::TYPE)))
}

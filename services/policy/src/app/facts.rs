//! The facts of this service's own resources, for decisions about them: type and existence.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::ResourceName;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_resource::{Rows, Table};
use pavior_rpc::Problem;
use pavior_rpc::facts::{no_owners_within, recall};
use pavior_store::idempotency;

use super::App;
use crate::domain::approval::ApprovalFields;
use crate::domain::decision::DecisionFields;
use crate::domain::policy::PolicyFields;
use crate::domain::policy_binding::PolicyBindingFields;
use crate::domain::policy_revision::PolicyRevisionFields;
use crate::domain::role::RoleFields;
use crate::domain::role_binding::RoleBindingFields;
use crate::error::Error;
use crate::store::ConnectionTrait;

const ORGANIZATION_TYPE: &str = "identity.pavior.dev/Organization";

impl App {
    /// The facts of a resource; for a repeated request id, those stored with the first answer.
    pub(crate) async fn facts(&self, asked: &GetResourceFactsRequest) -> Result<ResourceFacts, Error> {
        let GetResourceFactsRequest { name, request_id, method, principal, message } = asked;
        no_owners_within(message)?;
        if !request_id.is_empty()
            && let Ok(parsed) = ResourceName::parse(name)
        {
            let key = idempotency::Key::new(parsed.organization(), principal, method, request_id);
            let stored = idempotency::facts(self.kernel.store.read(), &key, self.kernel.clock.now()).await?;
            if let Some(first) = recall(stored, name)? {
                return Ok(first);
            }
        }
        self.facts_in(self.kernel.store.read(), name).await
    }

    /// The facts of a resource; those of the organization if it does not exist.
    pub(super) async fn facts_in<C: ConnectionTrait>(
        &self,
        db: &C,
        name: &str,
    ) -> Result<ResourceFacts, Error> {
        let refuse = |text: String| Error::from(Problem::invalid_field("name", Fault::Pattern, text));
        let parsed = ResourceName::parse(name).map_err(|error| refuse(error.to_string()))?;
        let organization = format!("organizations/{}", parsed.organization());
        if parsed.as_str() == organization {
            return Ok(plain_facts(organization, false, ORGANIZATION_TYPE));
        }
        let rows = Rows::new(db);
        let (permit, id) = (self.system_permit(parsed.organization()), parsed.id());
        let collections: Vec<&str> = parsed.pairs().skip(1).map(|(collection, _)| collection).collect();
        let above = parsed.get("policies").unwrap_or_default();
        let kind = match collections.as_slice() {
            ["roles"] => Some(kind_of::<RoleFields, C>(&rows, &permit, "", id).await?),
            ["roleBindings"] => Some(kind_of::<RoleBindingFields, C>(&rows, &permit, "", id).await?),
            ["policies"] => Some(kind_of::<PolicyFields, C>(&rows, &permit, "", id).await?),
            ["policies", "revisions"] => {
                Some(kind_of::<PolicyRevisionFields, C>(&rows, &permit, above, id).await?)
            }
            ["policyBindings"] => Some(kind_of::<PolicyBindingFields, C>(&rows, &permit, "", id).await?),
            ["approvals"] => Some(kind_of::<ApprovalFields, C>(&rows, &permit, "", id).await?),
            ["decisions"] => Some(kind_of::<DecisionFields, C>(&rows, &permit, "", id).await?),
            _ => None,
        };
        match kind {
            Some(Some(kind)) => Ok(plain_facts(name.to_owned(), true, kind)),
            Some(None) => Ok(plain_facts(organization, false, ORGANIZATION_TYPE)),
            None => Err(refuse(format!("`{name}` is not a resource of the policy service"))),
        }
    }
}

/// The type of a resource; `None` if it does not exist.
async fn kind_of<T: Table, C: ConnectionTrait>(
    rows: &Rows<'_, C>,
    permit: &Permit,
    parent: &str,
    id: &str,
) -> Result<Option<&'static str>, Error> {
    Ok(rows.find::<T>(permit, parent, id).await?.map(|_| T::TYPE))
}

/// Facts without owner, project and labels.
fn plain_facts(name: String, exists: bool, kind: &str) -> ResourceFacts {
    ResourceFacts { name, exists, r#type: kind.to_owned(), ..ResourceFacts::default() }
}

//! Organizations.

use pavior_auth::Permit;
use pavior_core::principal::{INSTALLATION, PrincipalKind, installation_name};
use pavior_resource::crud::unique;
use pavior_resource::{
    AuditEntry, ChangeContext, Create, Done, Error as ResourceError, ListQuery, Listing, Rules, Work, run,
};
use prost::Message;

use super::{App, db};
use crate::domain::{OrganizationFields, Stored, builtin};
use crate::error::Error;

impl Rules for OrganizationFields {
    type Service = App;
}

impl App {
    /// Creates an organization with the kinds that every organization has.
    pub(crate) async fn create_organization<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<OrganizationFields>) -> M,
        command: Create<OrganizationFields>,
    ) -> Result<M, Error> {
        for_platform(&context.permit, context.action)?;
        run(self, context, encode, command, |work, command| Box::pin(create(work, command))).await
    }

    /// Lists the organization of the caller, or all of them for operators of the installation and services.
    pub(crate) async fn list_organizations(
        &self,
        permit: &Permit,
        query: &ListQuery,
    ) -> Result<Listing<OrganizationFields>, Error> {
        let own = permit.principal().organization.as_str();
        let only = (!looks_after_all(permit)).then_some(own);
        Ok(self.read().organizations_page(permit, only, query).await.map_err(ResourceError::from)?)
    }
}

/// Whether the caller is an operator of the installation, or a service that acts for nobody else.
fn looks_after_all(permit: &Permit) -> bool {
    let principal = permit.principal();
    let own = principal.installation_operator || principal.kind == PrincipalKind::Service;
    permit.organization() == INSTALLATION && own
}

/// Refuses callers other than operators and services, independently of policy.
fn for_platform(permit: &Permit, action: &str) -> Result<(), ResourceError> {
    if looks_after_all(permit) {
        return Ok(());
    }
    Err(ResourceError::Denied { action: action.to_owned(), resource: installation_name() })
}

async fn create(
    work: &Work<'_, App>,
    command: &Create<OrganizationFields>,
) -> Result<Done<Stored<OrganizationFields>>, Error> {
    let Create { id, fields } = command;
    let stored = Stored::new(id, id, work.uuid(), work.now, fields.clone());
    let kinds: Vec<_> = builtin::kinds()
        .into_iter()
        .map(|(kind, fields)| Stored::new(id, kind, work.uuid(), work.now, fields))
        .collect();
    let inserted = db(work).insert_organization(work.permit, &stored, &kinds).await;
    inserted.map_err(|error| unique::<OrganizationFields>(error, &stored.name()))?;
    let entry = AuditEntry::of(None, Some(&stored));
    Ok(Done::new(stored, entry))
}

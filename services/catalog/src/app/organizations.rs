//! Organizations.

use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_core::principal::PrincipalKind;

use super::crud::event;
use super::{Answer, App, Call, Create, Done, Encode, View, Work};
use crate::domain::{OrganizationFields, Resource as _, Stored, builtin};
use crate::error::Error;
use crate::store::{ListQuery, Listing};

impl App {
    /// Creates an organization with the kinds that every organization has.
    pub(crate) async fn create_organization(
        &self,
        call: Call,
        encode: Encode<View<OrganizationFields>>,
        command: Create<OrganizationFields>,
    ) -> Result<Answer<View<OrganizationFields>>, Error> {
        for_platform(&call.permit)?;
        self.change(call, encode, command, |work, command| {
            Box::pin(async move {
                let done = create(&work, &command).await?;
                Ok((work, done))
            })
        })
        .await
    }

    /// Lists the organizations of the installation.
    pub(crate) async fn list_organizations(
        &self,
        permit: &Permit,
        limit: u64,
        after: Option<crate::json::Json>,
    ) -> Result<Listing<OrganizationFields>, Error> {
        for_platform(permit)?;
        let query =
            ListQuery { parent: None, filter: Filter::And(Vec::new()), order: Vec::new(), limit, after };
        Ok(self.store.read().organizations_page(permit, &query).await?)
    }
}

/// Policy has let the call in; that nobody but an operator or a service is meant is looked at once more.
fn for_platform(permit: &Permit) -> Result<(), Error> {
    let principal = permit.principal();
    if permit.organization() == "-" && (principal.platform_admin || principal.kind == PrincipalKind::Service)
    {
        return Ok(());
    }
    Err(Error::Denied { resource: "organizations/-".to_owned() })
}

async fn create(
    work: &Work<'_>,
    command: &Create<OrganizationFields>,
) -> Result<Done<View<OrganizationFields>>, Error> {
    let Create { id, fields } = command;
    fields.check(id, id).into_result().map_err(|v| Error::under("organization", v))?;
    let stored = Stored::new(id, id, work.ids.uuid(), work.now, fields.clone());
    let kinds: Vec<_> = builtin::kinds()
        .into_iter()
        .map(|(kind, fields)| Stored::new(id, kind, work.ids.uuid(), work.now, fields))
        .collect();
    work.tx.insert_organization(&work.permit, &stored, &kinds).await.map_err(|error| {
        if error.is_unique() {
            return Error::AlreadyExists { kind: OrganizationFields::SINGULAR, name: stored.name() };
        }
        error.into()
    })?;
    let events = vec![event(None, Some(&stored))];
    Ok(Done { value: View::plain(stored), events })
}

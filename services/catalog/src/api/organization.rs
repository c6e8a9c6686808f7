//! Organizations on the wire.

use pavior_core::Fault;
use pavior_core::id::{reserved_in, validate_new_id};
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, ChangeContext, Create, Scope, Service as _, Wire, close, decode, list_query, read_request,
    respond, times,
};
use pavior_rpc::paging::Page;
use pavior_rpc::problem::Problem;
use tonic::Request;

use super::Api;
use crate::app::App;
use crate::domain::{OrganizationFields, Stored, Violations};
use crate::error::Error;

impl Wire for OrganizationFields {
    type Message = identity_pb::Organization;

    fn encode(stored: &Stored<Self>) -> identity_pb::Organization {
        let (create_time, update_time) = times(stored);
        let Self { display_name } = stored.fields.clone();
        identity_pb::Organization {
            name: stored.name(),
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            create_time,
            update_time,
        }
    }

    fn decode(
        message: &identity_pb::Organization,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        _violations: &mut Violations,
    ) -> Option<Self> {
        let identity_pb::Organization {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            update_time: _,
        } = message;
        Some(Self { display_name: display_name.clone() })
    }
}

impl Api {
    pub(super) async fn make_organization(
        &self,
        request: Request<identity_pb::CreateOrganizationRequest>,
    ) -> Answer<identity_pb::Organization> {
        let (permit, request) = read_request(request)?;
        let context = ChangeContext::of(&permit, &request);
        let identity_pb::CreateOrganizationRequest { organization_id: id, organization, .. } = request;
        validate_new_id("organizations", &id).map_err(|message| {
            let reserved = reserved_in("organizations", &id).is_some();
            let fault = if reserved { Fault::Reserved } else { Fault::Pattern };
            Problem::invalid_field("organization_id", fault, message)
        })?;
        let scope = Scope { service: &self.app, organization: &id, parent: "" };
        let fields = decode::<OrganizationFields>(&organization.unwrap_or_default(), &scope, None);
        let fields = fields.map_err(Problem::from)?;
        let command = Create { id, fields };
        respond(self.app.create_organization(&context, OrganizationFields::encode, command).await)
    }

    pub(super) async fn page_of_organizations(
        &self,
        request: Request<identity_pb::ListOrganizationsRequest>,
    ) -> Answer<identity_pb::ListOrganizationsResponse> {
        type Asked = identity_pb::ListOrganizationsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let page = Page::open(&kernel.tokens, request.page_size, &request.page_token, &[Asked::PATH])?;
        let listed = async {
            let query = list_query(&request, None, &page)?;
            let listing = self.app.list_organizations(&permit, &query).await?;
            let rows = listing.rows.iter().map(OrganizationFields::encode).zip(listing.positions);
            Ok::<_, Error>(close::<Asked>(kernel, &page, rows.collect(), listing.total)?)
        };
        respond(listed.await)
    }
}

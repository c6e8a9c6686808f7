//! `google.longrunning.Operations` and the facts of what this service owns.

use pavior_auth::permit;
use pavior_core::Fault;
use pavior_proto::google::longrunning as lro;
use pavior_proto::google::longrunning::operations_server::Operations;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsService;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_rpc::paging::Page;
use pavior_rpc::{Problem, convert, validate};
use tonic::Request;

use super::{Answered, Api, operation, respond};
use crate::app::App;
use crate::app::rows::{Listing, OperationView};
use crate::domain::names;
use crate::error::{Error, Result};

const GET: &str = "provisioning.operations.get";

#[tonic::async_trait]
impl Operations for Api {
    async fn list_operations(
        &self,
        request: Request<lro::ListOperationsRequest>,
    ) -> Answered<lro::ListOperationsResponse> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.operations_page(&permit, request).await)
    }

    async fn get_operation(&self, request: Request<lro::GetOperationRequest>) -> Answered<lro::Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            async {
                let view = self.app.get_operation(&permit, GET, &request.name).await?;
                operation::encode(&self.app, &permit, view).await
            }
            .await,
        )
    }

    async fn wait_operation(&self, request: Request<lro::WaitOperationRequest>) -> Answered<lro::Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(
            async {
                let timeout = match &request.timeout {
                    Some(timeout) => Some(convert::from_duration(timeout).map_err(|error| {
                        Problem::invalid_field("timeout", Fault::OutOfRange, error.to_string())
                    })?),
                    None => None,
                };
                let view = self.app.wait_operation(&permit, GET, &request.name, timeout).await?;
                operation::encode(&self.app, &permit, view).await
            }
            .await,
        )
    }

    async fn cancel_operation(&self, request: Request<lro::CancelOperationRequest>) -> Answered<()> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.cancel_operation(&permit, "provisioning.operations.cancel", &request.name).await)
    }

    async fn delete_operation(&self, request: Request<lro::DeleteOperationRequest>) -> Answered<()> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        respond(self.app.delete_operation(&permit, "provisioning.operations.delete", &request.name).await)
    }
}

impl Api {
    async fn operations_page(
        &self,
        permit: &pavior_auth::Permit,
        request: lro::ListOperationsRequest,
    ) -> Result<lro::ListOperationsResponse> {
        // The collection may be named, or only where it is.
        let parent = request.name.strip_suffix("/operations").unwrap_or(&request.name);
        App::name(permit, "provisioning.operations.list", "name", parent, names::ORGANIZATION)?;
        let args = ["ListOperations", parent, &request.filter];
        let page = Page::open(&self.app.tokens, request.page_size, &request.page_token, &args)?;
        let listing = Listing {
            parent: parent.to_owned(),
            filter: request.filter.clone(),
            limit: page.limit(),
            after: page.after.clone(),
            ..Listing::default()
        };
        let mut rows = self.app.db.operations_page(permit, &listing).await?.rows;
        let next_page_token = page.close(&self.app.tokens, &mut rows, |(_, position)| position.clone());
        let ids = rows.iter().map(|(op, _)| op.id).collect();
        let mut steps = self.app.db.steps_of_unscoped(ids).await?;
        let views = rows.into_iter().map(|(op, _)| {
            let steps = steps.remove(&op.id).unwrap_or_default();
            OperationView { op, steps }
        });
        let operations = operation::encode_all(&self.app, permit, views.collect()).await?;
        Ok(lro::ListOperationsResponse { operations, next_page_token, unreachable: Vec::new() })
    }
}

#[tonic::async_trait]
impl ResourceFactsService for Api {
    async fn get_resource_facts(&self, request: Request<GetResourceFactsRequest>) -> Answered<ResourceFacts> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let checked: std::result::Result<(), Error> = validate::request(&request).map_err(Error::from);
        respond(match checked {
            Ok(()) => self.app.facts_at_first(&permit, &request).await,
            Err(error) => Err(error),
        })
    }
}

//! `google.longrunning.Operations` and the facts of what this service owns.

use pavior_auth::permit;
use pavior_core::Fault;
use pavior_proto::google::longrunning as lro;
use pavior_proto::google::longrunning::operations_server::Operations;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsService;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_rpc::{Problem, convert, validate};
use tonic::Request;

use super::{Answered, Api, operation, respond};
use crate::app::ListQuery;
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
                let answer = self.app.get_operation(&permit, GET, &request.name).await?;
                Ok(operation::encode(answer))
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
                let answer = self.app.wait_operation(&permit, GET, &request.name, timeout).await?;
                Ok(operation::encode(answer))
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
        let lro::ListOperationsRequest { name, filter, page_size, page_token, .. } = request;
        // The collection may be named, or only where it is.
        let parent = name.strip_suffix("/operations").unwrap_or(&name).to_owned();
        let query = ListQuery { parent, page_size, page_token, filter, order_by: String::new() };
        let page = self.app.list_operations(permit, query).await?;
        Ok(lro::ListOperationsResponse {
            operations: page.items.into_iter().map(operation::encode).collect(),
            next_page_token: page.next_page_token,
            unreachable: Vec::new(),
        })
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

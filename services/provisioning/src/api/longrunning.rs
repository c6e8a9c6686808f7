//! `google.longrunning.Operations` and the facts of what this service owns.

use pavior_auth::permit;
use pavior_core::Fault;
use pavior_proto::google::longrunning as lro;
use pavior_proto::google::longrunning::operations_server::Operations;
use pavior_proto::pavior::governance::internal::v1::resource_facts_service_server::ResourceFactsService;
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_resource::ListQuery;
use pavior_rpc::paging::Page;
use pavior_rpc::{Problem, convert, validate};
use prost::Message as _;
use serde_json::Value;
use tonic::Request;

use super::{Answered, Api, operation, respond};
use crate::app::App;
use crate::domain::names;
use crate::error::{Error, Result};

const GET: &str = "provisioning.operations.get";
const LIST: &str = "provisioning.operations.list";

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
        respond(self.app.get_operation(&permit, GET, &request.name).await.map(operation::encode))
    }

    async fn wait_operation(&self, request: Request<lro::WaitOperationRequest>) -> Answered<lro::Operation> {
        let (permit, request) = (permit(&request)?, request.into_inner());
        let waited = async {
            let timeout = request.timeout.as_ref().map(convert::from_duration).transpose();
            let timeout = timeout
                .map_err(|error| Problem::invalid_field("timeout", Fault::OutOfRange, error.to_string()))?;
            self.app.wait_operation(&permit, GET, &request.name, timeout).await
        };
        respond(waited.await.map(operation::encode))
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
    /// Beside the kernel's lists: `google.longrunning` names its parent `name`, and its methods have no rule of their own.
    async fn operations_page(
        &self,
        permit: &pavior_auth::Permit,
        request: lro::ListOperationsRequest,
    ) -> Result<lro::ListOperationsResponse> {
        let lro::ListOperationsRequest { name, filter, page_size, page_token, .. } = request;
        // The collection may be named, or only where it is.
        let parent = name.strip_suffix("/operations").unwrap_or(&name);
        App::name(permit, LIST, "name", parent, names::ORGANIZATION)?;
        let kernel = &self.app.kernel;
        let page = Page::open(&kernel.tokens, page_size, &page_token, &[LIST, parent, &filter])?;
        let query = ListQuery::new(None, &filter, "", page.limit(), page.after.clone())?;
        let rows = self.app.list_operations(permit, &query).await?.rows.into_iter();
        let mut rows: Vec<_> = rows.map(|(answer, at)| (operation::encode(answer), at)).collect();
        let bytes = |(operation, _): &(lro::Operation, Value)| operation.encoded_len();
        let next_page_token =
            page.close_within(&kernel.tokens, &mut rows, kernel.max_page_bytes, bytes, |(_, at)| at.clone());
        Ok(lro::ListOperationsResponse {
            operations: rows.into_iter().map(|(operation, _)| operation).collect(),
            next_page_token,
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

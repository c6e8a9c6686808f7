//! Imports on the wire.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{Answer, ChangeContext, parse, read_request, respond};
use pavior_rpc::problem::Problem;
use tonic::Request;

use super::Api;
use super::convert::ORGANIZATION;
use crate::app::{ImportCounts, ImportDocument};

impl Api {
    pub(super) async fn import(
        &self,
        request: Request<pb::ImportEntitiesRequest>,
    ) -> Answer<pb::ImportEntitiesResponse> {
        let (permit, request) = read_request(request)?;
        let action = pb::ImportEntitiesRequest::ACTION;
        parse(&permit, "parent", &request.parent, ORGANIZATION, action).map_err(Problem::from)?;
        let context = ChangeContext::of(&permit, &request);
        respond(self.app.import(&context, encode_import, documents(request)).await)
    }
}

/// The documents of an import.
pub(super) fn documents(request: pb::ImportEntitiesRequest) -> Vec<ImportDocument> {
    let document = |document| {
        let pb::import_entities_request::Document { origin, content } = document;
        ImportDocument { origin, content }
    };
    request.documents.into_iter().map(document).collect()
}

fn encode_import(imported: &ImportCounts) -> pb::ImportEntitiesResponse {
    let ImportCounts { created, updated, unchanged } = *imported;
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    pb::ImportEntitiesResponse {
        created_count: count(created),
        updated_count: count(updated),
        unchanged_count: count(unchanged),
    }
}

//! Relations of entities on the wire.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{
    Answer, Error as ResourceError, Service as _, close, list_query, name, open_page, read_request, respond,
};
use tonic::Request;

use super::Api;
use crate::domain::EntityFields;
use crate::domain::entity::SeenRelation;
use crate::error::Error;

pub(super) fn encode_relation(seen: &SeenRelation, organization: &str) -> pb::entity::Relation {
    let SeenRelation { relation, target, resolved } = seen;
    pb::entity::Relation { r#type: relation.clone(), target: target.name(organization), resolved: *resolved }
}

impl Api {
    pub(super) async fn page_of_relations(
        &self,
        request: Request<pb::ListEntityRelationsRequest>,
    ) -> Answer<pb::ListEntityRelationsResponse> {
        type Asked = pb::ListEntityRelationsRequest;
        let (permit, request) = read_request(request)?;
        let kernel = self.app.kernel();
        let listed = async {
            let entity = name::<EntityFields>(&permit, "parent", &request.parent, Asked::ACTION)?;
            let page = open_page(&kernel.tokens, &request).map_err(ResourceError::from)?;
            let query = list_query(&request, None, &page)?;
            let (found, total) = self.app.list_relations(&permit, &entity, &query).await?;
            let encoded =
                found.into_iter().map(|(seen, at)| (encode_relation(&seen, permit.organization()), at));
            Ok::<_, Error>(close::<Asked>(kernel, &page, encoded.collect(), total)?)
        };
        respond(listed.await)
    }
}

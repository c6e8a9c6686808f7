//! `pavior.policy.internal.v1.DecisionService`.

use pavior_auth::permit;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::internal::v1::decision_service_server::DecisionService;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::{Answer, Wire as _, respond};
use pavior_rpc::{Problem, validate};
use tonic::{Request, Response};

use super::{Api, decide};
use crate::app::decision::ActionSelection;
use crate::domain::decision::DecisionFields;

#[tonic::async_trait]
impl DecisionService for Api {
    async fn decide(&self, request: Request<decision_pb::DecideRequest>) -> Answer<pb::Decision> {
        permit(&request)?;
        let request = decide::decision_request(request.into_inner(), "")?;
        respond(self.app.decide(request).await.map(|decision| DecisionFields::encode(&decision)))
    }

    async fn batch_decide(
        &self,
        request: Request<decision_pb::BatchDecideRequest>,
    ) -> Answer<decision_pb::BatchDecideResponse> {
        permit(&request)?;
        let request = request.into_inner();
        validate::request(&request)?;
        let requests = request.requests;
        let mut decoded = Vec::with_capacity(requests.len());
        for (at, request) in requests.into_iter().enumerate() {
            decoded.push(decide::decision_request(request, &format!("requests[{at}]"))?);
        }
        let mut decisions = Vec::with_capacity(decoded.len());
        for request in decoded {
            let decision = self.app.decide(request).await.map_err(Problem::from)?;
            decisions.push(DecisionFields::encode(&decision));
        }
        Ok(Response::new(decision_pb::BatchDecideResponse { decisions }))
    }

    async fn list_allowed_actions(
        &self,
        request: Request<decision_pb::ListAllowedActionsRequest>,
    ) -> Answer<decision_pb::ListAllowedActionsResponse> {
        permit(&request)?;
        let (input, actions) = decide::allowed_actions(request.into_inner())?;
        let allowed = self.app.allowed_actions(input, actions).await;
        respond(allowed.map(|(ActionSelection { actions, planned }, refused)| {
            decision_pb::ListAllowedActionsResponse {
                actions,
                planned_actions: planned,
                changes_refused: refused
                    .map(|error| Problem::from(error).message.clone())
                    .unwrap_or_default(),
            }
        }))
    }
}

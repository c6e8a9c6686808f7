//! The wire side: each method decodes, calls the use case and encodes.

mod access_service;
mod approval;
mod approval_service;
mod decision;
mod decision_service;
mod facts;
mod kept_decision;
mod operation_approval_service;
mod policy;
mod policy_binding;
mod policy_service;
mod role;
mod role_binding;
mod status;

use pavior_auth::permit;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_resource::Answer;
use pavior_rpc::validate;
use prost::{Message, Name};
use tonic::Request;

use crate::app::App;

/// Most questions in one batch.
const MAX_BATCH: usize = 100;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// Answers a change of what decisions are made from: the next one is made from what is there now.
    async fn changed<M>(&self, work: impl Future<Output = Answer<M>>) -> Answer<M> {
        let answer = work.await;
        self.app.compilations.touch();
        answer
    }

    /// Checks the text of a policy that is about to be written.
    async fn check_ahead<R: Message + Name>(&self, request: &Request<R>, policy: Option<&pb::Policy>) {
        if let (Ok(permit), Some(policy)) = (permit(request), policy)
            && !policy.source.is_empty()
            // What is refused for its shape is not read.
            && validate::request(request.get_ref()).is_ok()
        {
            let id = policy.name.rsplit('/').next().unwrap_or_default();
            self.app.check_ahead(&permit, policy::type_of(policy), id, &policy.source).await;
        }
    }
}

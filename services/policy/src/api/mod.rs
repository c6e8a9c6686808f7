//! The wire side: each method decodes, calls the use case and encodes.

mod access_service;
mod approval;
mod approval_service;
mod decide;
mod decision;
mod decision_service;
mod operation_approval_service;
mod policy;
mod policy_binding;
mod policy_revision;
mod policy_service;
mod resource_facts_service;
mod role;
mod role_binding;
mod status;

use pavior_resource::Answer;

use crate::app::App;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    /// Runs a change of roles, policies or bindings, after which the next decision uses the new state.
    async fn changed<M>(&self, work: impl Future<Output = Answer<M>>) -> Answer<M> {
        let answer = work.await;
        self.app.compilations.touch();
        answer
    }
}

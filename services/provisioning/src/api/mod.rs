//! The wire side: each method decodes, calls the use case and encodes.

mod change;
mod convert;
mod deployment_service;
mod diagnosis;
mod input;
mod longrunning;
mod operation;
mod operation_service;
mod pipeline_service;
mod plan_service;
mod project;
mod project_service;
mod read;
mod secret;
mod status;

use pavior_proto::google::longrunning::Operation;
use pavior_resource::{Answer as Answered, respond};

use crate::app::{Answer, App, ChangeContext};
use crate::error::Result as AppResult;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    async fn begun(&self, context: &ChangeContext, answer: AppResult<Answer>) -> Answered<Operation> {
        let answer = match answer {
            Ok(answer) => Ok(answer),
            Err(refusal) => self.app.first_answer(context, refusal).await,
        };
        respond(match answer {
            Ok(answer) => operation::answer(&self.app, context, answer),
            Err(error) => Err(error),
        })
    }
}

//! The wire side: each method decodes, calls the use case and encodes.

mod apart;
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
mod project_service;
mod reads;
mod status;

use pavior_proto::google::longrunning::Operation;
use tonic::{Response, Status};

use crate::app::{Answer, App, Ask};
use crate::error::Result as AppResult;
use status::respond;

pub(crate) type Answered<T> = Result<Response<T>, Status>;

/// The services of this crate.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    app: App,
}

impl Api {
    pub(crate) fn new(app: App) -> Self {
        Self { app }
    }

    async fn begun(&self, ask: &Ask, answer: AppResult<Answer>) -> Answered<Operation> {
        let answer = match answer {
            Ok(answer) => Ok(answer),
            Err(refusal) => self.app.first_answer(ask, refusal).await,
        };
        respond(match answer {
            Ok(answer) => operation::answer(&self.app, ask, answer).await,
            Err(error) => Err(error),
        })
    }
}

//! The wire side: each method decodes, calls the use case and encodes.

/// Answers a list: checks the request, asks the use case, and encodes each item.
macro_rules! list {
    ($app:expr, $list:ident, $permit:expr, $request:ident: $message:ident, $encode:path => $response:ident.$field:ident) => {
        async {
            pavior_rpc::validate::request(&$request)?;
            let pb::$message { parent, page_size, page_token, filter, order_by } = $request;
            let query = $crate::app::ListQuery { parent, page_size, page_token, filter, order_by };
            let page = $app.$list($permit, query).await?;
            let $field = page.items.into_iter().map($encode).collect();
            Ok(pb::$response { $field, next_page_token: page.next_page_token })
        }
        .await
    };
}

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
mod secret;
mod status;

use pavior_proto::google::longrunning::Operation;
use tonic::{Response, Status};

use crate::app::{Answer, App, ChangeContext};
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

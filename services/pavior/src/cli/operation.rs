//! Commands that begin, follow and end long-running operations.

use std::time::Duration;

use pavior_proto::google::longrunning::operation::Result as Outcome;
use pavior_proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
};
use pavior_proto::pavior::provisioning::v1 as pb;
use tonic::{Response, Status};

use super::args::{Executed, ListArgs, OpCommand, OperationArg, WaitArgs};
use super::client::Client;
use super::exit::Exit;
use super::failure::{self, Ended};
use super::output::{self, Printer};
use super::page::pages;
use super::progress::{self, Until};
use super::requests::{Intent, Purpose, send};
use super::retry::Patience;

/// `pavior op`.
pub(super) async fn operation(client: &Client, printer: Printer, command: OpCommand) -> anyhow::Result<()> {
    let full = |arg: &OperationArg| client.full_name(&arg.operation, &["operations"]);
    match command {
        OpCommand::List(list) => operations(client, printer, &list).await,
        OpCommand::Show(arg) => {
            let request = GetOperationRequest { name: full(&arg)? };
            let operation = client.operations().get_operation(request).await?.into_inner();
            show_operation(printer, &operation)
        }
        OpCommand::Watch(arg) => {
            let quiet = printer.is_json();
            let name = full(&arg)?;
            end(printer, &progress::follow_interruptibly(client, &name, Until::End, quiet).await?)
        }
        OpCommand::Wait { operation, timeout } => wait(client, printer, &full(&operation)?, timeout).await,
        OpCommand::Cancel(arg) => cancel(client, printer, full(&arg)?).await,
        OpCommand::Retry { operation, request } => {
            let request = pb::RetryOperationRequest { name: full(&operation)?, request_id: request.id() };
            let operation = client.operation_service().retry_operation(request).await?.into_inner();
            // It may end at once, or wait for people: that it was taken up says nothing of either.
            end(printer, &follow_accepted(client, printer, &operation).await?)
        }
        OpCommand::Delete(arg) => {
            let name = full(&arg)?;
            client.operations().delete_operation(DeleteOperationRequest { name: name.clone() }).await?;
            eprintln!("the record of operation {} is deleted", output::id(&name));
            Ok(())
        }
    }
}

/// Prints an operation that came to rest, and ends as it did.
fn end(printer: Printer, operation: &Operation) -> anyhow::Result<()> {
    show_operation(printer, operation)?;
    progress::conclude(operation)
}

/// Waits without telling of the progress.
async fn wait(client: &Client, printer: Printer, name: &str, timeout: Option<u32>) -> anyhow::Result<()> {
    let followed = progress::follow_interruptibly(client, name, Until::End, true);
    let operation = match timeout {
        None => followed.await?,
        Some(seconds) => {
            let limit = Duration::from_secs(seconds.into());
            let followed = tokio::time::timeout(limit, followed).await;
            followed.map_err(|_| Ended {
                message: format!(
                    "the operation is not done after {seconds} s and goes on; wait again with: pavior op wait {}",
                    output::id(name)
                ),
                exit: Exit::TimedOut,
            })??
        }
    };
    show_result(printer, &operation)?;
    progress::conclude(&operation)
}

/// Sends a request, and shows the operation that it began: its name at once, or how it ends.
pub(super) async fn execute<S: Intent + clap::Args>(
    client: &Client,
    printer: Printer,
    asked: Executed<S>,
) -> anyhow::Result<()> {
    let Executed { spec, wait } = asked;
    let request = spec.request(client, &Purpose::Execute(wait.request.id())).await?;
    settle(client, printer, &wait, || send(client, request.clone())).await
}

async fn cancel(client: &Client, printer: Printer, name: String) -> anyhow::Result<()> {
    let mut operations = client.operations();
    operations.cancel_operation(CancelOperationRequest { name: name.clone() }).await?;
    let request = GetOperationRequest { name: name.clone() };
    let seen = operations.get_operation(request).await;
    let seen = seen.map_err(|status| progress::unless_unseen(status.into(), "asked to stop", &name));
    let operation = seen?.into_inner();
    let state = output::state(progress::metadata(&operation)?.state().as_str_name(), "STATE_");
    printer.one(&operation, &[("operation", operation.name.clone()), ("state", state)])?;
    if operation.done {
        eprintln!("it is done, as its state says");
    } else {
        eprintln!("asked to stop; follow it with: pavior op watch {}", output::id(&operation.name));
    }
    Ok(())
}

async fn operations(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let mut service = client.operations();
    let name = client.organization()?;
    let all = pages!(
        list.limit,
        |page_size, page_token| service.list_operations(ListOperationsRequest {
            name: name.clone(),
            filter: list.filter.clone(),
            page_size,
            page_token,
            ..Default::default()
        }),
        operations
    );
    if printer.is_json() {
        // `Any` fields are shown through the descriptors, which know every metadata type.
        return printer.list(&all, &[], |_| Vec::new());
    }
    let rows = all.iter().map(|operation| {
        let metadata = progress::metadata(operation).unwrap_or_default();
        vec![
            output::id(&operation.name),
            output::state(metadata.state().as_str_name(), "STATE_"),
            output::time(metadata.create_time.as_ref()),
            metadata.action.clone(),
            output::short(&metadata.target),
            progress::outcome(operation),
        ]
    });
    printer.rows(&["operation", "state", "created", "action", "target", "outcome"], rows)
}

fn show_operation(printer: Printer, operation: &Operation) -> anyhow::Result<()> {
    let metadata = progress::metadata(operation)?;
    printer.one(
        operation,
        &[
            ("operation", operation.name.clone()),
            ("action", metadata.action.clone()),
            ("target", metadata.target.clone()),
            ("state", output::state(metadata.state().as_str_name(), "STATE_")),
            ("outcome", progress::outcome(operation)),
            ("error", progress::trouble(operation).map(|error| error.message).unwrap_or_default()),
            ("approval", metadata.approval.clone()),
            ("created", output::time(metadata.create_time.as_ref())),
            ("ended", output::time(metadata.end_time.as_ref())),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    let rows = metadata.steps.iter().map(|step| {
        vec![
            step.step_id.clone(),
            output::state(step.action().as_str_name(), "ACTION_"),
            step.driver_id.clone(),
            output::state(step.state().as_str_name(), "STATE_"),
            step.attempt_count.to_string(),
            step.error.as_ref().map(|e| e.message.clone()).unwrap_or_default(),
        ]
    });
    output::say("")?;
    printer.rows(&["step", "action", "driver", "state", "attempt", "error"], rows)
}

/// Shows the operation that a call began: its name at once, or how it ends.
pub(super) async fn settle<F>(
    client: &Client,
    printer: Printer,
    wait: &WaitArgs,
    call: impl Fn() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<Response<Operation>, Status>>,
{
    // The request has an id: made again, it has the first answer.
    let operation = Patience::new().call(call).await?.into_inner();
    if wait.no_wait {
        return printer.one(&operation, &[("operation", operation.name.clone())]);
    }
    if !printer.is_json() {
        eprintln!("operation {}", operation.name);
    }
    let operation = follow_accepted(client, printer, &operation).await?;
    show_result(printer, &operation)?;
    progress::conclude(&operation)
}

/// Follows what the caller has just had accepted. Where that is all that the caller may know of it, that is what is shown.
async fn follow_accepted(
    client: &Client,
    printer: Printer,
    accepted: &Operation,
) -> anyhow::Result<Operation> {
    use pb::operation_metadata::State;
    let name = &accepted.name;
    // Of one that is taken up, what is watched begins with the past: people were asked, and have answered since.
    let until = match progress::metadata(accepted)?.state() {
        State::Queued | State::Running | State::Compensating => Until::End,
        _ => Until::Approval,
    };
    let followed = progress::follow_interruptibly(client, name, until, printer.is_json()).await;
    let Err(error) = followed else { return followed };
    let error = progress::unless_unseen(error, "accepted, and goes on", name);
    if failure::exit_of(&error) == Exit::Accepted {
        printer.one(accepted, &[("operation", name.clone())])?;
    }
    Err(error)
}

fn show_result(printer: Printer, operation: &Operation) -> anyhow::Result<()> {
    let metadata = progress::metadata(operation)?;
    if printer.is_json() {
        return printer.one(operation, &[]);
    }
    let mut pairs = vec![
        ("target", metadata.target.clone()),
        ("state", output::state(metadata.state().as_str_name(), "STATE_")),
    ];
    // An operation without steps found everything as it was asked for.
    if operation.done && matches!(operation.result, Some(Outcome::Response(_))) && metadata.steps.is_empty() {
        pairs.push(("changed", "no resource: all are as was asked for already".to_owned()));
    }
    if let Some(Outcome::Response(any)) = &operation.result {
        if let Ok(environment) = any.to_msg::<pb::Environment>() {
            // A deleted environment is answered as it was, with the addresses that it had.
            if environment.state() != pb::environment::State::Deleting {
                pairs.push(("url", output::urls(&environment)));
            }
        } else if let Ok(deployment) = any.to_msg::<pb::Deployment>() {
            pairs.push(("commit", deployment.artifact.unwrap_or_default().commit));
            pairs.push(("url", deployment.url));
        } else if let Ok(run) = any.to_msg::<pb::Run>() {
            pairs.push(("commit", run.commit));
        }
    }
    printer.one(operation, &pairs)
}

//! Operations that go on only when somebody takes them up.

use pavior_proto::google::longrunning::{ListOperationsRequest, Operation};
use pavior_proto::pavior::identity::v1::{ListOrganizationsRequest, Organization};

use super::super::args::ConnectionArgs;
use super::super::client::Client;
use super::super::{output, progress, settings};
use super::{Report, unasked};

/// Most organizations that are asked about, and most operations that are named of each.
const MAX_ASKED: i32 = 1_000;
const MAX_NAMED: i32 = 100;

/// The action whose operation can be given up whenever it is stuck.
const DELETE_ORPHAN: &str = "provisioning.resources.deleteOrphan";

/// Names every operation that is stuck, with what to do.
pub(super) async fn stuck(report: &mut Report, args: &ConnectionArgs) {
    match found(args).await {
        Ok(operations) => {
            for operation in &operations {
                let (what, advice) = describe(operation);
                report.problem("operations", what, advice);
            }
        }
        Err(error) => {
            let (why, advice) = unasked(&error);
            report.unchecked("operations", format!("stuck operations are not looked for: {why}"), advice);
        }
    }
}

/// Of every organization that the caller belongs to or looks after.
async fn found(args: &ConnectionArgs) -> anyhow::Result<Vec<Operation>> {
    let client = Client::new(&settings::connection(args)?)?;
    let request = ListOrganizationsRequest { page_size: MAX_ASKED, ..Default::default() };
    let answer = client.identity().list_organizations(request).await?.into_inner();
    let mut operations = Vec::new();
    for Organization { name, .. } in answer.organizations {
        let request = ListOperationsRequest {
            name,
            filter: "state = STUCK".to_owned(),
            page_size: MAX_NAMED,
            ..Default::default()
        };
        operations.extend(client.operations().list_operations(request).await?.into_inner().operations);
    }
    Ok(operations)
}

fn describe(operation: &Operation) -> (String, String) {
    let metadata = progress::metadata(operation).unwrap_or_default();
    let mut why = metadata.error.map_or_else(|| "the operation is stuck".to_owned(), |error| error.message);
    // What a step said last is often all that tells why.
    for step in metadata.steps {
        if let Some(error) = step.error.filter(|error| !why.contains(&error.message)) {
            why.push_str(&format!("; step `{}`: {}", step.step_id, error.message));
        }
    }
    let (asked, name) = (output::time(metadata.create_time.as_ref()), &operation.name);
    let what = format!("`{name}` on `{}`, asked for at {asked}: {why}", metadata.target);
    let mut advice = format!(
        "look with `pavior op show {name}`, mend what its step says, then take it up again with `pavior op retry {name}`"
    );
    if metadata.action == DELETE_ORPHAN {
        advice.push_str(&format!(
            "; or give it up with `pavior op cancel {name}`: what it was to remove is an orphan again"
        ));
    } else {
        advice.push_str(&format!(
            "; if a restore has held it up, `pavior op cancel {name}` gives it up and leaves everything as it is"
        ));
    }
    (what, advice)
}

#[cfg(test)]
mod tests {
    use pavior_proto::google::rpc::Status;
    use pavior_proto::pavior::provisioning::v1::{OperationMetadata, OperationStep};

    use super::*;

    #[test]
    fn a_stuck_operation_is_named_with_its_target_and_what_to_do() {
        let error = pavior_proto::google::rpc::Status {
            code: 9,
            message: "the operation is stuck and needs an operator: step `entry`: no".to_owned(),
            details: Vec::new(),
        };
        let metadata = OperationMetadata {
            target: "organizations/acme/projects/shop".to_owned(),
            create_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            error: Some(error),
            ..Default::default()
        };
        let operation = Operation {
            name: "organizations/acme/operations/1".to_owned(),
            metadata: prost_types::Any::from_msg(&metadata).ok(),
            ..Default::default()
        };
        let (what, advice) = describe(&operation);
        for part in ["operations/1`", "projects/shop`", "asked for at 2027-01-15", "step `entry`: no"] {
            assert!(what.contains(part), "{part} is missing in {what}");
        }
        assert!(advice.contains("pavior op retry organizations/acme/operations/1"), "{advice}");
        assert!(advice.contains("if a restore has held it up, `pavior op cancel"), "{advice}");

        let refused = |text: &str| Status { message: text.to_owned(), ..metadata.error.clone().unwrap() };
        let step = |step_id: &str, text: &str| OperationStep {
            step_id: step_id.to_owned(),
            error: Some(refused(text)),
            ..Default::default()
        };
        let metadata = OperationMetadata {
            action: DELETE_ORPHAN.to_owned(),
            error: Some(refused("the operation is stuck: step `entry`: no")),
            steps: vec![step("entry", "no"), step("orphan", "the driver does not answer")],
            ..metadata.clone()
        };
        let operation = Operation { metadata: prost_types::Any::from_msg(&metadata).ok(), ..operation };
        let (what, advice) = describe(&operation);
        assert!(what.ends_with("step `entry`: no; step `orphan`: the driver does not answer"), "{what}");
        assert!(advice.contains("pavior op retry") && advice.contains("pavior op cancel"), "{advice}");
    }
}

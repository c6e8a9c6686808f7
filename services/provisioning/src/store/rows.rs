//! The rows of a new operation, made from its plan.

use sea_orm::ActiveValue::Set;
use serde_json::{Value, json};

use super::Db;
use super::create::{Admission, NewOperation};
use super::entity::{deployment, operation, resource, step};
use crate::domain::names;
use crate::domain::plan::{Action, Artifact, Change};

impl Db {
    pub(super) fn operation_row(&self, new: &NewOperation, clock: i64) -> operation::Model {
        let now = self.now();
        let plan = &new.plan;
        let (state, deadline) = match new.admission {
            Admission::Run => ("QUEUED", clock.saturating_add(new.deadline_micros)),
            Admission::AskPeople => ("CHECKING", 0),
        };
        operation::Model {
            id: new.id,
            organization: plan.organization.clone(),
            name: names::operation(&plan.organization, &new.id),
            kind: plan.kind.as_str().to_owned(),
            action: plan.action.clone(),
            target: plan.target.clone(),
            project: names::project_of(&plan.target),
            state: state.to_owned(),
            cancel_requested: false,
            plan: plan.id,
            plan_digest: plan.digest.clone(),
            requester: plan.requester.clone(),
            principal: serde_json::to_value(&new.principal).unwrap_or_default(),
            request_id: new.key.as_ref().map(|(key, _)| key.request_id().to_owned()).unwrap_or_default(),
            approval: String::new(),
            approvals: json!([]),
            error: None,
            gone: None,
            settings: plan.settings.clone(),
            event_seq: 0,
            log_seq: 0,
            generation: 1,
            engine_version: new.engine_version.to_owned(),
            deadline,
            undo_timeout: new.undo_micros,
            owner: new.ownership.owner.clone(),
            environment_class: new.ownership.environment_class.clone(),
            labels: match &new.ownership.labels {
                Value::Null => json!({}),
                labels => labels.clone(),
            },
            canceller: String::new(),
            deleter: String::new(),
            delete_time: None,
            create_time: now,
            update_time: now,
            start_time: None,
            end_time: None,
        }
    }

    pub(super) fn resource_row(&self, new: &NewOperation, change: &Change) -> resource::ActiveModel {
        let by_step = |step: &String| new.plan.changes.iter().find(|other| &other.step == step);
        let mut depends_on: Vec<String> =
            change.depends_on.iter().filter_map(by_step).map(|other| other.resource.clone()).collect();
        depends_on.sort();
        depends_on.dedup();
        resource::ActiveModel {
            uid: Set(self.ids.uuid()),
            organization: Set(new.plan.organization.clone()),
            project: Set(names::project_of(&change.resource)),
            environment: Set(change.spec.environment.clone()),
            name: Set(change.resource.clone()),
            resource_type: Set(change.resource_type.clone()),
            type_id: Set(change.spec.type_id.clone()),
            resource_definition: Set(change.resource_definition.clone()),
            driver: Set(change.driver.clone()),
            driver_version: Set(change.driver_version.clone()),
            identity: Set(String::new()),
            inputs: Set(json!({})),
            outputs: Set(json!({})),
            driver_state: Set(Value::Null),
            spec: Set(change.spec.to_json()),
            sealed_inputs: Set(String::new()),
            url: Set(String::new()),
            state: Set("CREATING".into()),
            generation: Set(0),
            fence: Set(0),
            depends_on: Set(json!(depends_on)),
            monthly_cost: Set(change.monthly_cost.clone()),
            undoable: Set(change.undoable),
            create_time: Set(self.now()),
            update_time: Set(self.now()),
            revision: Set(1),
        }
    }

    pub(super) fn step_rows(
        &self,
        new: &NewOperation,
        op: &operation::Model,
        former: &[(String, Option<resource::Model>)],
        clock: i64,
    ) -> Vec<step::Model> {
        new.plan
            .steps()
            .zip(former)
            .enumerate()
            .map(|(ordinal, (change, (_, former)))| {
                let prior = former.as_ref().filter(|_| change.action != Action::Create).map(prior);
                step::Model {
                    id: self.ids.uuid(),
                    operation: op.id,
                    organization: op.organization.clone(),
                    ordinal: i32::try_from(ordinal).unwrap_or(i32::MAX),
                    name: change.step.clone(),
                    resource: change.resource.clone(),
                    driver: change.driver.clone(),
                    driver_version: change.driver_version.clone(),
                    action: change.action.as_str().to_owned(),
                    depends_on: json!(change.depends_on),
                    undoable: change.undoable,
                    spec: change.spec.to_json(),
                    prior,
                    subject: String::new(),
                    state: "BLOCKED".to_owned(),
                    remains: false,
                    former_gone: false,
                    attempt: 0,
                    undo_attempt: 0,
                    waits: 0,
                    // Above every fence that was ever used for the resource, even by one that is gone.
                    fence: std::cmp::max(former.as_ref().map_or(0, |row| row.fence), clock),
                    worker: String::new(),
                    lease_until: 0,
                    not_before: 0,
                    idempotency_key: String::new(),
                    checkpoint: None,
                    outputs: None,
                    error: None,
                    start_time: None,
                    end_time: None,
                }
            })
            .collect()
    }
}

pub(super) fn deployment_row(
    this: &Db,
    op: &operation::Model,
    change: &Change,
    name: &str,
) -> deployment::Model {
    let artifact = match &change.spec.artifact {
        Artifact::Known(artifact) => artifact.clone(),
        _ => json!({}),
    };
    let text = |key: &str| artifact.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    deployment::Model {
        uid: this.ids.uuid(),
        organization: op.organization.clone(),
        project: op.project.clone(),
        environment: change.spec.environment.clone(),
        resource: change.resource.clone(),
        name: name.to_owned(),
        state: "PENDING".to_owned(),
        run: text("run"),
        commit_id: text("commit"),
        artifact,
        url: String::new(),
        source_deployment: change.spec.source_deployment.clone(),
        operation: op.name.clone(),
        creator: op.requester.clone(),
        create_time: this.now(),
        update_time: this.now(),
    }
}

/// What an undo puts back.
fn prior(row: &resource::Model) -> Value {
    json!({
        "identity": row.identity,
        "inputs": row.inputs,
        "outputs": row.outputs,
        "state": row.driver_state,
        "spec": row.spec,
        "sealed_inputs": row.sealed_inputs,
        "generation": row.generation,
    })
}

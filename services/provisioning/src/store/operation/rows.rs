//! The rows of a new operation, made from its plan.

use pavior_store::StoreError;
use serde_json::{Value, json};

use crate::domain::deployment::DeploymentState;
use crate::domain::names;
use crate::domain::operation::{OperationState, Prior, StepState};
use crate::domain::plan::{Action, Artifact, Change, Kind};
use crate::domain::resource::{ResourceEvent, ResourceState};
use crate::domain::run::{RunCause, RunState};
use crate::store::entity::{deployment, operation, resource, run, step};
use crate::store::operation::accept::{Admission, NewOperation};
use crate::store::operation::hold::{Numbers, unique};
use crate::store::operation::read::removal_of;
use crate::store::prelude::*;
use crate::store::resource::{move_resource, recorded_as};

impl Db {
    pub(crate) fn operation_row(&self, new: &NewOperation, clock: i64) -> operation::Model {
        let now = self.now();
        let plan = &new.plan;
        let (state, deadline) = match new.admission {
            Admission::Run => (OperationState::Queued, clock.saturating_add(new.deadline_micros)),
            Admission::AskPeople => (OperationState::Checking, 0),
        };
        operation::Model {
            id: new.id,
            organization: plan.organization.clone(),
            name: names::operation(&plan.organization, &new.id),
            kind: plan.kind,
            action: plan.action.clone(),
            target: plan.target.clone(),
            project: plan.project(),
            state,
            cancel_requested: false,
            parked: None,
            plan: plan.id,
            plan_digest: plan.digest.clone(),
            requester: plan.requester.clone(),
            principal: Typed(new.principal.clone()),
            request_id: new.key.as_ref().map(|(key, _)| key.request_id().to_owned()).unwrap_or_default(),
            approval: String::new(),
            approvals: Typed::default(),
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
            labels: Typed(new.ownership.labels.clone()),
            canceller: String::new(),
            deleter: String::new(),
            delete_time: None,
            create_time: now,
            update_time: now,
            start_time: None,
            end_time: None,
        }
    }

    /// Rows of the resources that change. Returns the lowest fence and the former row of each.
    pub(crate) async fn resources(
        &self,
        tx: &Tx,
        new: &NewOperation,
    ) -> Result<Vec<(String, Option<resource::Model>)>> {
        let names: Vec<String> = new.plan.steps().map(|change| change.resource.clone()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let found = resource::Entity::find().filter(resource::Column::Name.is_in(names)).all(tx).await?;
        let mut former = Vec::new();
        let mut made = Vec::new();
        for change in new.plan.steps() {
            let row = found.iter().find(|row| row.name == change.resource).cloned();
            match change.action {
                Action::Create if row.as_ref().is_some_and(|row| row.project.is_empty()) => {
                    // What was left behind under that name is being removed.
                    return Err(Self::held_name(tx, &change.resource).await?);
                }
                Action::Create if row.is_some() => {
                    return Err(Error::AlreadyExists { kind: "Resource", name: change.resource.clone() });
                }
                Action::Create => made.push(self.resource_row(new, change)),
                action => {
                    if let Some(event) = ResourceEvent::of(action).filter(|_| new.holds()) {
                        move_resource(tx, &change.resource, event).await?;
                    }
                }
            }
            former.push((change.step.clone(), row));
        }
        record(tx, made).await?;
        Ok(former)
    }

    /// Records something that only its driver knows, so that its removal goes the way of everything that is recorded.
    /// Whoever records the name of a resource first has it, and every operation that makes one records it when it is
    /// accepted. It is in no project, so that the end of one does not give the name free while this is under way.
    pub(crate) async fn adopt(&self, tx: &Tx, new: &NewOperation, identity: &str) -> Result<()> {
        let mut rows = Vec::new();
        for change in new.plan.steps() {
            let organization = &new.plan.organization;
            if let Some(known) = recorded_as(tx, organization, &change.driver, identity).await? {
                return Err(match known.project.as_str() {
                    "" => Self::held_name(tx, &known.name).await?,
                    _ => Error::Declared { identity: identity.to_owned(), resource: known.name },
                });
            }
            let namesake = resource::Entity::find().filter(resource::Column::Name.eq(&change.resource));
            if let Some(taken) = namesake.one(tx).await? {
                // What is declared now was not when this was planned.
                return Err(match taken.project.as_str() {
                    "" => Self::held_name(tx, &taken.name).await?,
                    _ => Error::Stale { name: taken.name },
                });
            }
            rows.push(resource::ActiveModel {
                project: Set(String::new()),
                identity: Set(identity.to_owned()),
                state: Set(ResourceState::Active),
                ..self.resource_row(new, change)
            });
        }
        record(tx, rows).await
    }

    /// That the name of a resource is taken as long as what was left behind under it is being removed.
    async fn held_name(tx: &Tx, name: &str) -> Result<Error> {
        Ok(match removal_of(tx, name).await? {
            Some(operation) => Error::Busy { name: name.to_owned(), operation },
            // It ended since the name was looked up.
            None => StoreError::Concurrent.into(),
        })
    }

    pub(crate) fn resource_row(&self, new: &NewOperation, change: &Change) -> resource::ActiveModel {
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
            spec: Set(Typed(change.spec.clone())),
            sealed_inputs: Set(String::new()),
            url: Set(String::new()),
            state: Set(ResourceState::Creating),
            generation: Set(0),
            fence: Set(0),
            depends_on: Set(Typed(depends_on)),
            monthly_cost: Set(change.monthly_cost.clone()),
            undoable: Set(change.undoable),
            create_time: Set(self.now()),
            update_time: Set(self.now()),
            revision: Set(1),
        }
    }

    pub(crate) fn step_rows(
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
                    action: change.action,
                    depends_on: Typed(change.depends_on.clone()),
                    undoable: change.undoable,
                    spec: Typed(change.spec.clone()),
                    prior,
                    subject: String::new(),
                    state: StepState::Blocked,
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

    pub(crate) async fn runs_and_deployments(
        &self,
        tx: &Tx,
        new: &NewOperation,
        op: &operation::Model,
        steps: &mut [step::Model],
        numbers: &mut Numbers,
    ) -> Result<()> {
        let mut chosen = new.makes.deployment_id.as_str();
        for (step, change) in steps.iter_mut().zip(new.plan.steps()) {
            if change.action == Action::Run {
                let pipeline = format!("{}/pipelines/{}", op.project, names::last(&change.resource));
                step.subject = format!("{pipeline}/runs/run-{}", numbers.run);
                let row = run::Model {
                    uid: self.ids.uuid(),
                    organization: op.organization.clone(),
                    project: op.project.clone(),
                    pipeline,
                    name: step.subject.clone(),
                    state: RunState::Queued,
                    revision: op
                        .settings
                        .get("revision")
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                    commit_id: String::new(),
                    cause: if new.plan.kind == Kind::Run { RunCause::Call } else { RunCause::Creation },
                    steps: json!([]),
                    artifacts: json!([]),
                    error: None,
                    operation: op.name.clone(),
                    creator: op.requester.clone(),
                    create_time: self.now(),
                    end_time: None,
                };
                row.into_active_model().insert(tx).await?;
            }
            let environment = &change.spec.environment;
            if let (true, Some(number)) =
                (change.spec.takes_artifact(), numbers.deployments.get_mut(environment))
            {
                // A chosen id is that of the first; further workloads of the environment get the next numbers.
                let id = match std::mem::take(&mut chosen) {
                    "" => format!("deployment-{number}"),
                    id => id.to_owned(),
                };
                *number += 1;
                step.subject = format!("{environment}/deployments/{id}");
                let row = deployment_row(self, op, change, &step.subject);
                let done =
                    deployment::Entity::insert(row.into_active_model()).exec_without_returning(tx).await;
                unique(done, "Deployment", &step.subject)?;
            }
        }
        Ok(())
    }
}

/// Records resources. Where another transaction has recorded one of the same name since that was looked for, all of this
/// runs again, and finds whose it is.
async fn record(tx: &Tx, rows: Vec<resource::ActiveModel>) -> Result<()> {
    for chunk in rows.chunks(crate::store::ROWS_AT_ONCE) {
        let done = resource::Entity::insert_many(chunk.to_vec()).exec_without_returning(tx).await;
        done.map_err(|error| match StoreError::from(error) {
            error if error.is_unique() => StoreError::Concurrent,
            error => error,
        })?;
    }
    Ok(())
}

pub(crate) fn deployment_row(
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
        state: DeploymentState::Pending,
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
fn prior(row: &resource::Model) -> Typed<Prior> {
    let resource::Model { identity, inputs, outputs, driver_state, spec, sealed_inputs, generation, .. } =
        row.clone();
    Typed(Prior { identity, inputs, outputs, state: driver_state, spec: spec.0, sealed_inputs, generation })
}

//! Plans that are kept before anybody carries them out.

use std::sync::Arc;

use pavior_auth::Permit;
use pavior_store::{Recorded, Tx, TxFuture, idempotency};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::entity::plan;
use super::read::found;
use super::{Db, audit, db};
use crate::domain::names;
use crate::domain::plan::Plan;
use crate::error::{Error, Result};

/// Most kept plans of one requester that can still be carried out.
const MAX_KEPT: u64 = 200;
/// How many are forgotten at once.
const BATCH: u64 = 500;

/// A plan to be kept.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// The plan.
    pub plan: Plan,
    /// What it is about, encoded.
    pub intent: Vec<u8>,
    /// The caller's request.
    pub key: Option<(idempotency::Key, Vec<u8>)>,
    /// Its id; empty when it has none.
    pub request_id: String,
}

/// A plan that was kept.
#[derive(Debug, Clone)]
pub struct KeptPlan {
    /// The plan.
    pub plan: Plan,
    /// What it is about, encoded; empty where it was made for a request at once.
    pub intent: Vec<u8>,
    /// The operation that carries it out, if any does.
    pub operation: Option<String>,
}

impl KeptPlan {
    /// Reads a row.
    pub fn of(row: plan::Model) -> Result<Self> {
        let (intent, operation) = (row.intent.unwrap_or_default(), row.operation);
        Ok(Self { plan: Plan::from_json(&row.document)?, intent, operation })
    }
}

impl Db {
    /// Keeps a plan. Returns the id of that which the request was answered with.
    pub async fn keep_plan(&self, permit: &Permit, new: NewPlan) -> Result<Uuid> {
        let (this, shared) = (self.clone(), Arc::new((permit.clone(), new)));
        self.store
            .change(&self.outbox, move |tx| {
                let (this, shared) = (this.clone(), shared.clone());
                Box::pin(async move { this.keep_plan_in(tx, &shared.0, &shared.1).await })
                    as TxFuture<'_, _, Error>
            })
            .await
    }

    async fn keep_plan_in(&self, tx: &Tx, permit: &Permit, new: &NewPlan) -> Result<Recorded<Uuid>> {
        if let Some((key, hash)) = &new.key
            && let Some(first) = idempotency::check(tx, key, hash).await?
        {
            let id = Uuid::from_slice(&first).map_err(|_| Error::Corrupt("the kept answer".to_owned()))?;
            return Ok(Recorded::unchanged(id));
        }
        let kept = plan::Entity::find()
            .filter(waiting())
            .filter(plan::Column::Organization.eq(permit.organization()))
            .filter(plan::Column::Requester.eq(new.plan.requester.as_str()))
            .filter(plan::Column::ExpireTime.gt(self.now()));
        if kept.count(tx).await.map_err(db)? >= MAX_KEPT {
            return Err(Error::TooManyPlans { limit: MAX_KEPT });
        }
        self.plan_row(tx, &new.plan, Some(new.intent.clone()), None).await?;
        let event = audit::plan_event(self, permit, &new.request_id, &new.plan, "a plan was kept");
        let answer = self.kept(new.key.as_ref(), new.plan.id, &[]);
        Ok(Recorded::new(new.plan.id, event).answering(answer))
    }

    /// The plan that a request was answered with before.
    pub async fn replayed_plan(&self, key: &idempotency::Key, hash: &[u8]) -> Result<Option<Uuid>> {
        let first = idempotency::check(self.store.read(), key, hash).await?;
        let id = first.map(|first| Uuid::from_slice(&first));
        id.transpose().map_err(|_| Error::Corrupt("the kept answer".to_owned()))
    }

    /// A plan with what it is about.
    pub async fn kept_plan(&self, permit: &Permit, name: &str) -> Result<KeptPlan> {
        let row = plan::Entity::find()
            .filter(plan::Column::Organization.eq(permit.organization()))
            .filter(plan::Column::Name.eq(name));
        KeptPlan::of(found(row.one(self.store.read()).await.map_err(db)?, "plan", name)?)
    }

    /// Writes a plan, with the operation that carries it out. One that was kept before says from then on what was decided
    /// last; it is carried out once.
    pub(super) async fn plan_row(
        &self,
        tx: &Tx,
        plan: &Plan,
        intent: Option<Vec<u8>>,
        operation: Option<String>,
    ) -> Result<()> {
        let row = plan::ActiveModel {
            id: Set(plan.id),
            organization: Set(plan.organization.clone()),
            name: Set(names::plan(&plan.organization, &plan.id)),
            action: Set(plan.action.clone()),
            target: Set(plan.target.clone()),
            requester: Set(plan.requester.clone()),
            digest: Set(plan.digest.clone()),
            document: Set(plan.to_json()),
            expire_time: Set(intent.is_some().then_some(plan.expire_time)),
            intent: Set(intent),
            operation: Set(operation),
            create_time: Set(plan.create_time),
        };
        let carried_out = [plan::Column::Document, plan::Column::Operation, plan::Column::Requester];
        let update = OnConflict::column(plan::Column::Id)
            .update_columns(carried_out)
            .action_and_where(Expr::col((plan::Entity, plan::Column::Operation)).is_null())
            .to_owned();
        let written = plan::Entity::insert(row).on_conflict(update).exec_without_returning(tx);
        if written.await.map_err(db)? > 0 {
            return Ok(());
        }
        let before = plan::Entity::find_by_id(plan.id).one(tx).await.map_err(db)?;
        let operation = before.and_then(|row| row.operation).unwrap_or_default();
        Err(Error::CarriedOut { operation })
    }

    /// Forgets kept plans that have expired without anybody carrying them out.
    pub(super) async fn sweep_plans(&self, before: OffsetDateTime) -> Result<u64> {
        let old = plan::Entity::find().filter(waiting()).filter(plan::Column::ExpireTime.lt(before));
        let old = old.order_by_asc(plan::Column::ExpireTime);
        let ids: Vec<Uuid> = self.keys(old, plan::Column::Id, BATCH).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let forgotten = plan::Entity::delete_many().filter(plan::Column::Id.is_in(ids));
        let forgotten = forgotten.filter(plan::Column::Operation.is_null());
        self.store.upkeep("plans that expired unused", super::retention::removing(forgotten)).await
    }
}

/// Kept plans that no operation carries out.
fn waiting() -> Condition {
    Condition::all().add(plan::Column::Intent.is_not_null()).add(plan::Column::Operation.is_null())
}

//! Plans, and those that are kept before anybody carries them out.

use pavior_auth::Permit;
use pavior_resource::ListQuery;
use pavior_store::idempotency;
use sea_orm::sea_query::OnConflict;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::names;
use crate::domain::plan::Plan;
use crate::store::entity::plan;
use crate::store::page::Page;
use crate::store::prelude::*;
use crate::store::{audit, found, one_at_a_time};

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
pub struct StoredPlan {
    /// The plan.
    pub plan: Plan,
    /// What it is about, encoded; empty where it was made for a request at once.
    pub intent: Vec<u8>,
    /// The operation that carries it out, if any does.
    pub operation: Option<String>,
}

impl From<plan::Model> for StoredPlan {
    fn from(row: plan::Model) -> Self {
        Self { plan: row.document.0, intent: row.intent.unwrap_or_default(), operation: row.operation }
    }
}

impl Db {
    /// Keeps a plan. Returns the id of that which the request was answered with.
    pub async fn keep_plan(&self, permit: &Permit, new: NewPlan) -> Result<Uuid> {
        let input = (permit.clone(), new);
        self.change(input, |this, tx, (permit, new)| Box::pin(this.keep_plan_in(tx, permit, new))).await
    }

    async fn keep_plan_in(&self, tx: &Tx, permit: &Permit, new: &NewPlan) -> Result<Recorded<Uuid>> {
        if let Some((key, hash)) = &new.key
            && let Some(first) = idempotency::check(tx, key, hash).await?
        {
            let id = Uuid::from_slice(&first).map_err(|_| Error::Corrupt("the kept answer".to_owned()))?;
            return Ok(Recorded::unchanged(id));
        }
        // Whoever counts beside us would find the same place free.
        let requester = format!("{}/{}", permit.organization(), new.plan.requester);
        one_at_a_time(tx, "provisioning.plans", &requester).await?;
        let kept = plan::Entity::find()
            .filter(waiting())
            .filter(plan::Column::Organization.eq(permit.organization()))
            .filter(plan::Column::Requester.eq(new.plan.requester.as_str()))
            .filter(plan::Column::ExpireTime.gt(self.now()));
        if kept.count(tx).await? >= MAX_KEPT {
            return Err(Error::TooManyPlans { limit: MAX_KEPT });
        }
        self.plan_row(tx, &new.plan, Some(new.intent.clone()), None).await?;
        let event = audit::plan_event(self, permit, &new.request_id, &new.plan, "a plan was kept");
        let answer = self.kept(new.key.as_ref(), new.plan.id, &[]);
        Ok(Recorded::new(new.plan.id, event).answering(answer))
    }

    /// The plan that a request was answered with before.
    pub async fn replayed_plan_unscoped(&self, key: &idempotency::Key, hash: &[u8]) -> Result<Option<Uuid>> {
        let first = idempotency::check(self.store.read(), key, hash).await?;
        let id = first.map(|first| Uuid::from_slice(&first));
        id.transpose().map_err(|_| Error::Corrupt("the kept answer".to_owned()))
    }

    /// A plan with what it is about, if it exists.
    pub async fn find_plan(&self, permit: &Permit, name: &str) -> Result<Option<StoredPlan>> {
        let row = plan::Entity::find()
            .filter(plan::Column::Organization.eq(permit.organization()))
            .filter(plan::Column::Name.eq(name));
        Ok(row.one(self.store.read()).await?.map(StoredPlan::from))
    }

    /// A plan with what it is about.
    pub async fn kept_plan(&self, permit: &Permit, name: &str) -> Result<StoredPlan> {
        found(self.find_plan(permit, name).await?, "Plan", name)
    }

    /// A plan by its id.
    pub async fn plan_by_id_unscoped(&self, id: Uuid) -> Result<Plan> {
        let row = plan::Entity::find_by_id(id).one(self.store.read()).await?;
        Ok(found(row, "Plan", &id.to_string())?.document.0)
    }

    /// Plans of the permit's organization, newest first.
    pub async fn plans_page(&self, permit: &Permit, query: &ListQuery) -> Result<Page<StoredPlan>> {
        use plan::Column as C;
        let fields = self
            .fields::<plan::Entity>()
            .text("action", C::Action)
            .text("target", C::Target)
            .text("requester", C::Requester);
        let select = plan::Entity::find().filter(C::Organization.eq(permit.organization()));
        self.page(select, &fields, query).await
    }

    /// Writes a plan, with the operation that carries it out. One that was kept before says from then on what was decided
    /// last; it is carried out once.
    pub(crate) async fn plan_row(
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
            document: Set(Typed(plan.clone())),
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
        if written.await? > 0 {
            return Ok(());
        }
        let before = plan::Entity::find_by_id(plan.id).one(tx).await?;
        let operation = before.and_then(|row| row.operation).unwrap_or_default();
        Err(Error::CarriedOut { operation })
    }

    /// Forgets kept plans that have expired without anybody carrying them out.
    pub(crate) async fn sweep_plans_unscoped(&self, before: OffsetDateTime) -> Result<u64> {
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

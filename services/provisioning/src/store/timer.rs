//! What is due at a time, durably.

use std::time::Duration;

use uuid::Uuid;

use crate::domain::timer::TimerKind;
use crate::store::entity::{environment, operation, timer};
use crate::store::prelude::*;

/// The longest pause before it is tried again to take down an environment that could not be.
pub(crate) const LONGEST: Duration = Duration::from_secs(6 * 3_600);
/// Longer than a call that asks people may last.
const ASKING_MICROS: i64 = 60_000_000;

impl Db {
    /// Environments whose time is over.
    pub async fn expired_unscoped(&self, limit: u64) -> Result<Vec<timer::Model>> {
        self.due(TimerKind::Expire, limit).await
    }

    /// Operations that ended without having begun, about which people may still be asked.
    pub async fn withdrawn_unscoped(&self, limit: u64) -> Result<Vec<timer::Model>> {
        self.due(TimerKind::Withdraw, limit).await
    }

    /// The same of one operation.
    pub async fn withdrawn_of_unscoped(&self, operation: &str) -> Result<Option<timer::Model>> {
        Ok(timer::Entity::find()
            .filter(timer::Column::Subject.eq(operation))
            .filter(timer::Column::Kind.eq(TimerKind::Withdraw))
            .filter(timer::Column::Due.lte(self.wall_time(self.store.read()).await?))
            .one(self.store.read())
            .await?)
    }

    /// Environments, by name, that were due to be taken down before and still stand, at most 1,000.
    pub async fn overdue_unscoped(&self, organization: Option<&str>) -> Result<Vec<environment::Model>> {
        let pause = i64::try_from(LONGEST.as_micros()).unwrap_or(i64::MAX);
        let soon = self.wall_time(self.store.read()).await?.saturating_add(pause);
        let mut tried = timer::Entity::find()
            .filter(timer::Column::Kind.eq(TimerKind::Expire))
            .filter(timer::Column::Due.lte(soon))
            .order_by_asc(timer::Column::Due)
            .limit(1_000);
        if let Some(organization) = organization {
            tried = tried.filter(timer::Column::Organization.eq(organization));
        }
        let mut tried = tried.all(self.store.read()).await?;
        tried.retain(|timer| timer.attempt > 0);
        let names: Vec<String> = tried.into_iter().map(|timer| timer.subject).collect();
        Ok(environment::Entity::find()
            .filter(environment::Column::Name.is_in(names))
            .filter(environment::Column::Operation.eq(""))
            .filter(environment::Column::ExpireTime.lt(self.now()))
            .all(self.store.read())
            .await?)
    }

    async fn due(&self, kind: TimerKind, limit: u64) -> Result<Vec<timer::Model>> {
        Ok(timer::Entity::find()
            .filter(timer::Column::Kind.eq(kind))
            .filter(timer::Column::Due.lte(self.wall_time(self.store.read()).await?))
            .order_by_asc(timer::Column::Due)
            .limit(limit)
            .all(self.store.read())
            .await?)
    }

    /// Whether a timer is there and due. It stays as it is until the commit.
    pub(crate) async fn is_due(&self, tx: &Tx, timer: Uuid) -> Result<bool> {
        let found = timer::Entity::find_by_id(timer).lock_exclusive().one(tx).await?;
        let now = self.wall_time(tx).await?;
        Ok(found.is_some_and(|timer| timer.due <= now))
    }

    /// Looks at a timer again after so many microseconds, or never. One that somebody else looked at since is left
    /// alone.
    pub async fn postpone_timer_unscoped(&self, timer: &timer::Model, pause: Option<i64>) -> Result<()> {
        let (id, attempt) = (timer.id, timer.attempt);
        self.upkeep("when a timer is looked at again", (), move |this, tx, ()| {
            Box::pin(async move {
                let Some(pause) = pause else {
                    let seen = timer::Column::Attempt.eq(attempt);
                    timer::Entity::delete_by_id(id).filter(seen).exec(tx).await?;
                    return Ok(());
                };
                let due = this.wall_time(tx).await?.saturating_add(pause);
                timer::Entity::update_many()
                    .col_expr(timer::Column::Due, due.into())
                    .col_expr(timer::Column::Attempt, (attempt + 1).into())
                    .filter(timer::Column::Id.eq(id))
                    .filter(timer::Column::Attempt.eq(attempt))
                    .exec(tx)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}

/// Sets the one timer of this kind of a subject; `None` removes it.
pub(crate) async fn replace(
    this: &Db,
    tx: &Tx,
    organization: &str,
    kind: TimerKind,
    subject: &str,
    due: Option<i64>,
) -> Result<()> {
    timer::Entity::delete_many()
        .filter(timer::Column::Subject.eq(subject))
        .filter(timer::Column::Kind.eq(kind))
        .exec(tx)
        .await?;
    if let Some(due) = due {
        let row = timer::ActiveModel {
            id: Set(this.ids.uuid()),
            organization: Set(organization.to_owned()),
            due: Set(due),
            kind: Set(kind),
            subject: Set(subject.to_owned()),
            attempt: Set(0),
        };
        timer::Entity::insert(row).exec_without_returning(tx).await?;
    }
    Ok(())
}

/// People are told that an ended operation needs no answer any more: at once, and when it is not known whether they are
/// being asked, after as long as a call that asks them may take.
pub(crate) async fn withdraw(this: &Db, tx: &Tx, op: &operation::Model) -> Result<()> {
    let wait = if op.approval.is_empty() { ASKING_MICROS } else { 0 };
    let due = this.wall_time(tx).await?.saturating_add(wait);
    replace(this, tx, &op.organization, TimerKind::Withdraw, &op.name, Some(due)).await
}

/// Removes every timer of a subject.
pub(crate) async fn remove(tx: &Tx, subject: &str) -> Result<()> {
    timer::Entity::delete_many().filter(timer::Column::Subject.eq(subject)).exec(tx).await?;
    Ok(())
}

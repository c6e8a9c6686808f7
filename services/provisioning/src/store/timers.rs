//! What is due at a time, durably.

use pavior_store::Tx;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::{operation, timer};
use super::{Db, db};
use crate::error::{Error, Result};

/// An environment's time is over.
pub(crate) const EXPIRE: &str = "EXPIRE";
/// An operation ended without having begun, and people may still be asked about it.
pub(crate) const WITHDRAW: &str = "WITHDRAW";

/// Longer than a call that asks people may last.
const ASKING_MICROS: i64 = 60_000_000;

/// Sets the one timer of this kind of a subject; `None` removes it.
pub(crate) async fn replace(
    this: &Db,
    tx: &Tx,
    organization: &str,
    kind: &str,
    subject: &str,
    due: Option<i64>,
) -> Result<()> {
    timer::Entity::delete_many()
        .filter(timer::Column::Subject.eq(subject))
        .filter(timer::Column::Kind.eq(kind))
        .exec(tx)
        .await
        .map_err(db)?;
    if let Some(due) = due {
        let row = timer::ActiveModel {
            id: Set(this.ids.uuid()),
            organization: Set(organization.to_owned()),
            due: Set(due),
            kind: Set(kind.to_owned()),
            subject: Set(subject.to_owned()),
            attempt: Set(0),
        };
        timer::Entity::insert(row).exec_without_returning(tx).await.map_err(db)?;
    }
    Ok(())
}

/// People are told that an ended operation needs no answer any more: at once, and when it is not known whether they are
/// being asked, after as long as a call that asks them may take.
pub(crate) async fn withdraw(this: &Db, tx: &Tx, op: &operation::Model) -> Result<()> {
    let wait = if op.approval.is_empty() { ASKING_MICROS } else { 0 };
    let due = this.wall_time(tx).await?.saturating_add(wait);
    replace(this, tx, &op.organization, WITHDRAW, &op.name, Some(due)).await
}

/// Removes every timer of a subject.
pub(crate) async fn remove(tx: &Tx, subject: &str) -> Result<()> {
    timer::Entity::delete_many().filter(timer::Column::Subject.eq(subject)).exec(tx).await.map_err(db)?;
    Ok(())
}

impl Db {
    /// Environments whose time is over.
    pub async fn expired_unscoped(&self, limit: u64) -> Result<Vec<timer::Model>> {
        self.due(EXPIRE, limit).await
    }

    /// Operations that ended without having begun, about which people may still be asked.
    pub async fn withdrawn_unscoped(&self, limit: u64) -> Result<Vec<timer::Model>> {
        self.due(WITHDRAW, limit).await
    }

    async fn due(&self, kind: &str, limit: u64) -> Result<Vec<timer::Model>> {
        timer::Entity::find()
            .filter(timer::Column::Kind.eq(kind))
            .filter(timer::Column::Due.lte(self.wall_time(self.store.read()).await?))
            .order_by_asc(timer::Column::Due)
            .limit(limit)
            .all(self.store.read())
            .await
            .map_err(db)
    }

    /// Whether a timer is there and due. It stays as it is until the commit.
    pub(crate) async fn is_due(&self, tx: &Tx, timer: Uuid) -> Result<bool> {
        let found = timer::Entity::find_by_id(timer).lock_exclusive().one(tx).await.map_err(db)?;
        let now = self.wall_time(tx).await?;
        Ok(found.is_some_and(|timer| timer.due <= now))
    }

    /// Looks at a timer again after so many microseconds, or never. One that somebody else looked at since is left
    /// alone.
    pub async fn postpone_timer_unscoped(&self, timer: &timer::Model, pause: Option<i64>) -> Result<()> {
        let (id, attempt, this) = (timer.id, timer.attempt, self.clone());
        self.store
            .upkeep("when a timer is looked at again", move |tx| {
                let this = this.clone();
                Box::pin(async move {
                    match pause {
                        Some(pause) => {
                            let due = this.wall_time(tx).await?.saturating_add(pause);
                            timer::Entity::update_many()
                                .col_expr(timer::Column::Due, due.into())
                                .col_expr(timer::Column::Attempt, (attempt + 1).into())
                                .filter(timer::Column::Id.eq(id))
                                .filter(timer::Column::Attempt.eq(attempt))
                                .exec(tx)
                                .await
                                .map_err(db)?;
                        }
                        None => {
                            timer::Entity::delete_by_id(id)
                                .filter(timer::Column::Attempt.eq(attempt))
                                .exec(tx)
                                .await
                                .map_err(db)?;
                        }
                    }
                    Ok(())
                }) as pavior_store::TxFuture<'_, _, Error>
            })
            .await
    }
}

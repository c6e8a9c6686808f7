//! The revision of an organization's policies, counted up by every change and polled by every replica. Changes of an
//! organization are serialized on its row.

use pavior_auth::Permit;
use pavior_store::StoreError;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait as _};

use super::entity::organization_revision as row;

/// Locks the organization until the transaction ends, so that what was checked in it still holds at the commit.
pub(crate) async fn lock_organization<C: ConnectionTrait>(tx: &C, permit: &Permit) -> Result<(), StoreError> {
    add(tx, permit, 0).await
}

/// Counts a change.
pub(crate) async fn bump_revision<C: ConnectionTrait>(tx: &C, permit: &Permit) -> Result<(), StoreError> {
    add(tx, permit, 1).await
}

/// Writes the row even if nothing is added: the write is the lock.
async fn add<C: ConnectionTrait>(tx: &C, permit: &Permit, count: i64) -> Result<(), StoreError> {
    let organization = Set(permit.organization().to_owned());
    let first = row::ActiveModel { organization, revision: Set(count) };
    let next = Expr::col((row::Entity, row::Column::Revision)).add(count);
    let conflict =
        OnConflict::column(row::Column::Organization).value(row::Column::Revision, next).to_owned();
    row::Entity::insert(first).on_conflict(conflict).exec_without_returning(tx).await?;
    Ok(())
}

/// The current revision; 0 before the first change.
pub(crate) async fn read_revision<C: ConnectionTrait>(db: &C, permit: &Permit) -> Result<i64, StoreError> {
    let found = row::Entity::find_by_id(permit.organization()).one(db).await?;
    Ok(found.map_or(0, |found| found.revision))
}

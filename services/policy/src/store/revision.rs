//! The revision of an organization's policies: bumped by every change, read by every replica.

use pavior_auth::Permit;
use pavior_store::StoreError;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait as _};

use super::entity::organization_revision as row;

/// Counts a change. Call it first: it makes the changes of one organization wait for one another, so that what was
/// checked in the transaction still holds at its end.
pub(crate) async fn bump_revision<C: ConnectionTrait>(tx: &C, permit: &Permit) -> Result<(), StoreError> {
    let first = row::ActiveModel { organization: Set(permit.organization().to_owned()), revision: Set(1) };
    let next = Expr::col((row::Entity, row::Column::Revision)).add(1);
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

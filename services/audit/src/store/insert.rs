//! Inserts of many rows.

use pavior_store::{StoreError, Tx};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};

use crate::error::Error;

/// Rows in one statement. Few different sizes, so that prepared statements are used again; a statement of the largest
/// stays below the 32,766 values that SQLite takes.
pub(super) const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// Inserts rows of which every column is given.
pub(super) async fn insert<E, M>(tx: &Tx, rows: Vec<M>, on_conflict: Option<OnConflict>) -> Result<(), Error>
where
    E: EntityTrait<Model = M>,
    M: IntoActiveModel<E::ActiveModel> + sea_orm::ModelTrait<Entity = E>,
    E::ActiveModel: ActiveModelTrait<Entity = E> + Send,
{
    let rows = rows.into_iter().map(|row| row.into_active_model().reset_all()).collect();
    insert_active(tx, rows, on_conflict).await
}

/// The same for rows of which the database gives a value.
pub(super) async fn insert_active<A>(
    tx: &Tx,
    rows: Vec<A>,
    on_conflict: Option<OnConflict>,
) -> Result<(), Error>
where
    A: ActiveModelTrait + Send,
{
    let mut left = rows.len();
    let mut rows = rows.into_iter();
    while left > 0 {
        let size = CHUNKS.into_iter().find(|size| *size <= left).unwrap_or(1);
        let mut insert = A::Entity::insert_many(rows.by_ref().take(size));
        if let Some(on_conflict) = &on_conflict {
            insert = insert.on_conflict(on_conflict.clone());
        }
        insert.exec_without_returning(tx).await?;
        left -= size;
    }
    Ok(())
}

/// A number as columns have it.
pub(super) fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number)
        .map_err(|_| StoreError::Corrupt(format!("{number} is beyond the range of a log")).into())
}

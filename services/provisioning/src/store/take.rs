//! Taking what an operation works on, so that no other operation does: checked and written under the same lock.

use std::collections::BTreeSet;

use pavior_store::Tx;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use time::OffsetDateTime;

use super::create::{Admission, NewOperation, Seen};
use super::entity::{environment, operation, project};
use super::{Db, db, finish};
use crate::domain::state::OperationState;
use crate::error::{Error, Result};

impl Db {
    /// Every environment of a project belongs to the operation that removes it.
    pub(super) async fn take_environments(
        &self,
        tx: &Tx,
        project: &str,
        new: &NewOperation,
        op: &str,
    ) -> Result<()> {
        let goes_on = OperationState::ALL.iter().filter(|state| !state.rests()).map(|state| state.as_str());
        let busy = operation::Entity::find()
            .filter(operation::Column::Project.eq(project))
            .filter(operation::Column::State.is_in(goes_on))
            .one(tx)
            .await
            .map_err(db)?;
        if let Some(other) = busy {
            return Err(Error::Busy { name: project.to_owned(), operation: other.name });
        }
        // Exactly those that policy was asked about: none came, went, changed or is worked on since. Those that end
        // now are waited for.
        let found = environment::Entity::find()
            .filter(environment::Column::Project.eq(project))
            .order_by_asc(environment::Column::Name)
            .lock_exclusive()
            .all(tx)
            .await
            .map_err(db)?;
        if let Some(held) = found.iter().find(|row| !row.operation.is_empty()) {
            return Err(Error::Busy { name: held.name.clone(), operation: held.operation.clone() });
        }
        let names: BTreeSet<&str> = found.iter().map(|row| row.name.as_str()).collect();
        let as_seen = |row: &environment::Model| new.seen.get(&row.name) == Some(&(row.uid, row.revision));
        if names != new.plan.removes() || !found.iter().all(as_seen) {
            return Err(Error::Busy { name: project.to_owned(), operation: String::new() });
        }
        environment::Entity::update_many()
            .col_expr(environment::Column::Operation, Expr::value(op))
            .col_expr(environment::Column::State, Expr::value("DELETING"))
            .col_expr(environment::Column::UpdateTime, Expr::value(self.now()))
            .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
            .filter(environment::Column::Project.eq(project))
            .exec(tx)
            .await
            .map_err(db)?;
        Ok(())
    }
}

/// Holds the project's row until commit; with `op` the project belongs to the operation from then on. Returns the
/// number of the next run.
pub(super) async fn take_project(
    tx: &Tx,
    name: &str,
    op: Option<&str>,
    seen: &Seen,
    runs: bool,
) -> Result<i64> {
    let mut update = project::Entity::update_many()
        .col_expr(project::Column::Touched, Expr::col(project::Column::Touched).add(1))
        .col_expr(project::Column::RunSeq, Expr::col(project::Column::RunSeq).add(i64::from(runs)))
        .filter(project::Column::Name.eq(name))
        .filter(project::Column::Operation.eq(""));
    if let Some((uid, revision)) = seen.get(name) {
        update = update.filter(project::Column::Uid.eq(*uid)).filter(project::Column::Revision.eq(*revision));
    }
    if let Some(op) = op {
        update = update
            .col_expr(project::Column::Operation, Expr::value(op))
            .col_expr(project::Column::State, Expr::value("DELETING"))
            .col_expr(project::Column::Revision, Expr::col(project::Column::Revision).add(1));
    }
    let rows = update.exec_with_returning(tx).await.map_err(db)?;
    match rows.first() {
        Some(row) => Ok(row.run_seq),
        None => {
            let row =
                project::Entity::find().filter(project::Column::Name.eq(name)).one(tx).await.map_err(db)?;
            let row = row.ok_or_else(|| Error::NotFound { kind: "Project", name: name.to_owned() })?;
            Err(Error::Busy { name: name.to_owned(), operation: row.operation })
        }
    }
}

/// The environment belongs to the operation from then on.
pub(super) async fn take_environment(
    tx: &Tx,
    new: &NewOperation,
    op: &str,
    now: OffsetDateTime,
) -> Result<()> {
    let name = &new.plan.target;
    let state = match (new.plan.kind, new.admission) {
        (_, Admission::AskPeople) => "AWAITING_APPROVAL",
        (kind, Admission::Run) => finish::working_state(kind),
    };
    let mut update = environment::Entity::update_many()
        .col_expr(environment::Column::Operation, Expr::value(op))
        .col_expr(environment::Column::State, Expr::value(state))
        .col_expr(environment::Column::UpdateTime, Expr::value(now))
        .col_expr(environment::Column::Revision, Expr::col(environment::Column::Revision).add(1))
        .filter(environment::Column::Name.eq(name.clone()))
        .filter(environment::Column::Operation.eq(""));
    if let Some((uid, revision)) = new.seen.get(name) {
        update = update
            .filter(environment::Column::Uid.eq(*uid))
            .filter(environment::Column::Revision.eq(*revision));
    }
    let done = update.exec(tx).await.map_err(db)?;
    if done.rows_affected == 1 {
        return Ok(());
    }
    let row = environment::Entity::find()
        .filter(environment::Column::Name.eq(name.clone()))
        .one(tx)
        .await
        .map_err(db)?
        .ok_or_else(|| Error::NotFound { kind: "Environment", name: name.clone() })?;
    Err(Error::Busy { name: name.clone(), operation: row.operation })
}

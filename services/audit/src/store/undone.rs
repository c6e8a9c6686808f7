//! What services did and a database of theirs that was set back does not know of, by name.

use futures::TryStreamExt as _;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, Order, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::AuditStore;
use super::entity::column::Status;
use super::entity::record::{self, Column};
use crate::domain::batch::Producer;
use crate::domain::codec::decode_event;
use crate::domain::undone::{Undone, UndoneAlong, UndoneList};
use crate::error::Error;

/// What an operator did about a database, and no service.
const RESTORE: &str = "platform.restore";
/// What stands in a record that names others beside its target.
const AFFECTED: &[u8] = b"\"affected\"";

impl AuditStore {
    /// What a service with a database did after a number of an epoch, or in a later epoch.
    pub(crate) async fn undone_unscoped(
        &self,
        service: &str,
        epoch: i64,
        seq: i64,
    ) -> Result<Vec<Undone>, Error> {
        let epochs = self.epochs_after_unscoped(service, epoch, seq).await?;
        if epochs.is_empty() {
            // A condition without alternatives would be no condition.
            return Ok(Vec::new());
        }
        let of_epoch = |(producer, after): (Producer, i64)| {
            Condition::all().add(Column::Epoch.eq(producer.epoch)).add(Column::Seq.gt(after))
        };
        let after = epochs.into_iter().map(of_epoch).fold(Condition::any(), Condition::add);
        let done = Condition::all()
            .add(Column::Service.eq(service))
            .add(after)
            .add(Column::Status.is_in([Status::Succeeded, Status::Accepted]))
            .add(Column::Action.ne(RESTORE));
        let mut undone = self.targets_of(done.clone()).await?;
        undone.extend(self.along_with(done).await?);
        Ok(undone)
    }

    /// What was done to the targets of records.
    async fn targets_of(&self, done: Condition) -> Result<Vec<Undone>, Error> {
        let mut rows = record::Entity::find()
            .select_only()
            .columns([Column::Log, Column::TargetType, Column::Target, Column::Action])
            .filter(done)
            .filter(Column::Target.ne(""))
            .group_by(Column::Log)
            .group_by(Column::TargetType)
            .group_by(Column::Target)
            .group_by(Column::Action)
            .order_by_asc(Column::Log)
            .order_by_asc(Column::TargetType)
            .order_by_asc(Column::Target)
            .order_by(Expr::col(Column::Idx).min(), Order::Asc)
            .into_tuple::<(String, String, String, String)>()
            .stream(self.store.read())
            .await?;
        let mut undone = UndoneList::default();
        while let Some((log, kind, name, action)) = rows.try_next().await? {
            undone.note(log, kind, name, &action);
        }
        Ok(undone.into_inner())
    }

    /// What was done to others along with the targets.
    async fn along_with(&self, done: Condition) -> Result<Vec<Undone>, Error> {
        let mut rows = record::Entity::find()
            .select_only()
            .columns([Column::Log, Column::Body])
            .filter(done)
            .order_by_asc(Column::Log)
            .order_by_asc(Column::Idx)
            .into_tuple::<(String, Vec<u8>)>()
            .stream(self.store.read())
            .await?;
        let mut along = UndoneAlong::default();
        while let Some((log, body)) = rows.try_next().await? {
            // Most name nothing else: they need not be read.
            if body.windows(AFFECTED.len()).any(|part| part == AFFECTED) {
                along.note(&log, &decode_event(&log, &body)?);
            }
        }
        Ok(along.into_inner())
    }
}

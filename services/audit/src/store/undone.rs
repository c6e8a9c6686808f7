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
use crate::domain::undone::{Undone, UndoneList};
use crate::error::Error;

/// What an operator did about a database, and no service.
const RESTORE: &str = "platform.restore";

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
        let mut rows = record::Entity::find()
            .select_only()
            .columns([Column::Log, Column::TargetType, Column::Target, Column::Action])
            .filter(Column::Service.eq(service))
            .filter(after)
            .filter(Column::Status.is_in([Status::Succeeded, Status::Accepted]))
            .filter(Column::Target.ne(""))
            .filter(Column::Action.ne(RESTORE))
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
}

//! How far the log is with each producer.

use std::collections::BTreeSet;

use sea_orm::sea_query::{Expr, Func};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _};

use uuid::Uuid;

use super::AuditStore;
use super::entity::{parked, producer, record};
use crate::domain::batch::{Producer, Progress};
use crate::error::Error;

/// Values in one statement.
const PART: usize = 200;

impl AuditStore {
    /// What the log has of a producer. Numbers of a service go over many organizations, so there is no one permit; the
    /// caller has checked that the service asks for itself.
    pub(crate) async fn progress_unscoped(&self, asked: &Producer) -> Result<Progress, Error> {
        let db = self.store.read();
        let key = (asked.service.clone(), asked.epoch.clone());
        let known = producer::Entity::find_by_id(key).one(db).await?;
        let last_seq = known.map_or(0, |row| row.last_seq);
        let recorded = record::Entity::find()
            .select_only()
            .column(record::Column::EventId)
            .filter(record::Column::Service.eq(asked.service.as_str()))
            .filter(record::Column::Epoch.eq(asked.epoch.as_str()))
            .filter(record::Column::Seq.eq(last_seq))
            .into_tuple::<String>()
            .one(db)
            .await?;
        let parked = parked::Entity::find()
            .select_only()
            .column(parked::Column::EventId)
            .filter(parked::Column::Service.eq(asked.service.as_str()))
            .filter(parked::Column::Epoch.eq(asked.epoch.as_str()))
            .filter(parked::Column::Seq.eq(last_seq));
        let last_event = match recorded {
            Some(event) => Some(event),
            None => parked.into_tuple::<String>().one(db).await?,
        };
        // Epochs of services with a database are times: a later one is longer or greater.
        let length = Func::char_length(Expr::col(producer::Column::Epoch));
        let newest_epoch = producer::Entity::find()
            .select_only()
            .column(producer::Column::Epoch)
            .filter(producer::Column::Service.eq(asked.service.as_str()))
            .filter(producer::Column::LastSeq.gt(0))
            .order_by_desc(length)
            .order_by_desc(producer::Column::Epoch)
            .into_tuple::<String>()
            .one(db)
            .await?;
        Ok(Progress { last_seq, last_event, newest_epoch })
    }

    /// Which of these events are recorded, or parked to be, in whatever log.
    pub(crate) async fn recorded_unscoped(&self, events: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        let logs = self.logs_unscoped().await?;
        let mut found = Vec::new();
        for part in events.chunks(PART) {
            let ids: Vec<String> = part.iter().map(Uuid::to_string).collect();
            let recorded = record::Entity::find()
                .select_only()
                .column(record::Column::EventId)
                // Named, so that the index is of use: it begins with the log.
                .filter(record::Column::Log.is_in(logs.iter().map(String::as_str)))
                .filter(record::Column::EventId.is_in(ids.iter().map(String::as_str)))
                .into_tuple::<String>()
                .all(self.store.read())
                .await?;
            let parked = parked::Entity::find()
                .select_only()
                .column(parked::Column::EventId)
                .filter(parked::Column::EventId.is_in(ids))
                .into_tuple::<String>()
                .all(self.store.read())
                .await?;
            found.extend(recorded.iter().chain(&parked).filter_map(|id| id.parse::<Uuid>().ok()));
        }
        Ok(found)
    }

    /// The logs with records of a service, or what is parked to be, after a number of an epoch, or of a later epoch.
    pub(crate) async fn logs_after_unscoped(
        &self,
        service: &str,
        epoch: i64,
        seq: i64,
    ) -> Result<Vec<String>, Error> {
        let epochs = producer::Entity::find().filter(producer::Column::Service.eq(service));
        let mut logs = BTreeSet::new();
        for row in epochs.all(self.store.read()).await? {
            let after = match row.epoch.parse::<i64>() {
                Ok(other) if other > epoch => 0,
                Ok(other) if other == epoch => seq,
                _ => continue,
            };
            let found = record::Entity::find()
                .select_only()
                .column(record::Column::Log)
                .distinct()
                .filter(record::Column::Service.eq(service))
                .filter(record::Column::Epoch.eq(row.epoch.as_str()))
                .filter(record::Column::Seq.gt(after))
                .into_tuple::<String>()
                .all(self.store.read())
                .await?;
            logs.extend(found);
            let parked = parked::Entity::find()
                .select_only()
                .column(parked::Column::Log)
                .distinct()
                .filter(parked::Column::Service.eq(service))
                .filter(parked::Column::Epoch.eq(row.epoch))
                .filter(parked::Column::Seq.gt(after))
                .into_tuple::<String>()
                .all(self.store.read())
                .await?;
            logs.extend(parked);
        }
        Ok(logs.into_iter().collect())
    }
}

//! Reading the trail: one record, pages, checkpoints.

use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::filter::Filter;

use super::checker::Suspicions;
use crate::domain::batch::{Producer, Progress};
use crate::domain::hash;
use crate::domain::record::{Checkpoint, StoredRecord};
use crate::error::Error;
use crate::store::{AuditStore, Page, Selection, Sign};

/// Reads logs.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) store: AuditStore,
    pub(crate) signer: Arc<dyn Sign>,
    pub(crate) max_page_bytes: usize,
    pub(crate) suspicions: Suspicions,
}

/// Where a page begins, and the size of the tree that the whole list is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) last: i64,
    pub(crate) tree_size: i64,
}

impl Reader {
    /// Compiles a filter.
    pub(crate) fn select(&self, filter: &Filter) -> Result<Selection, Error> {
        self.store.select(filter)
    }

    /// The newest checkpoint; that of the empty tree for a log that has not begun.
    pub(crate) async fn checkpoint(&self, permit: &Permit) -> Result<Checkpoint, Error> {
        if let Some(checkpoint) = self.store.checkpoint(permit).await? {
            return Ok(checkpoint);
        }
        let root = hash::empty();
        Ok(Checkpoint { size: 0, root, signed: self.signer.sign(permit.organization(), 0, &root, 0) })
    }

    /// What the log has of a producer, which asks for itself.
    pub(crate) async fn progress(&self, producer: &Producer) -> Result<Progress, Error> {
        self.store.progress_unscoped(producer).await
    }

    /// The record of an event.
    pub(crate) async fn record(&self, permit: &Permit, event_id: &str) -> Result<StoredRecord, Error> {
        let record = self.store.record_by_event(permit, event_id).await?;
        let record = record.ok_or_else(|| {
            Error::NoRecord(format!("organizations/{}/auditRecords/{event_id}", permit.organization()))
        })?;
        self.whole(permit, &record)?;
        Ok(record)
    }

    /// A page of the records that match, out of the tree that the first page was of: what is appended meanwhile does
    /// not move anything. Returns the page and the cursor of the next one.
    pub(crate) async fn list(
        &self,
        permit: &Permit,
        selection: &Selection,
        descending: bool,
        limit: u64,
        after: Option<Cursor>,
    ) -> Result<(Vec<StoredRecord>, Option<Cursor>), Error> {
        let tree_size = match after {
            Some(cursor) => cursor.tree_size,
            None => self.store.checkpoint(permit).await?.map_or(0, |c| c.size as i64),
        };
        let range = match after {
            None => 0..tree_size,
            Some(cursor) if descending => 0..cursor.last,
            Some(cursor) => cursor.last.saturating_add(1)..tree_size,
        };
        let page = self.page(permit, selection, range, descending, limit).await?;
        let next =
            page.records.last().filter(|_| page.more).map(|last| Cursor { last: last.index, tree_size });
        Ok((page.records, next))
    }

    pub(crate) async fn page(
        &self,
        permit: &Permit,
        selection: &Selection,
        range: std::ops::Range<i64>,
        descending: bool,
        limit: u64,
    ) -> Result<Page, Error> {
        let page =
            self.store.records_page(permit, selection, range, descending, limit, self.max_page_bytes).await?;
        page.records.iter().try_for_each(|record| self.whole(permit, record))?;
        Ok(page)
    }

    /// Nothing is shown that is not what its hash says. Where one is found, the log is looked at and held.
    fn whole(
        &self,
        permit: &Permit,
        StoredRecord { index, leaf, body, .. }: &StoredRecord,
    ) -> Result<(), Error> {
        if hash::leaf(body)[..] == leaf[..] {
            return Ok(());
        }
        let log = permit.organization();
        self.suspicions.tell(log, index.unsigned_abs());
        let why = format!("record {index} is not what its hash says");
        Err(Error::Inconsistent { log: log.to_owned(), why })
    }
}

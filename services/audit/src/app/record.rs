//! Records: one, and pages of them.
//!
//! Not the tables of `pavior_resource`: a record has no revision and never changes, it is found by its event, and a list
//! is a range of the tree that its first page was of.

use std::ops::Range;

use pavior_auth::Permit;
use pavior_core::filter::Filter;
use pavior_resource::ListError;

use super::reader::Reader;
use crate::domain::hash;
use crate::domain::record::StoredRecord;
use crate::error::Error;
use crate::store::{Page, Selection};

/// So many of the records that a filter matches are counted.
const MAX_COUNTED: u64 = 100_000;

/// A page of records.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) records: Vec<StoredRecord>,
    /// Of the next page.
    pub(crate) next: Option<Cursor>,
    /// The size of the tree that the list is of.
    pub(crate) tree_size: i64,
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
        let selection = self.store.select(filter).map_err(ListError::Filter);
        Ok(selection.map_err(pavior_resource::Error::from)?)
    }

    /// The record of an event, if the log has it.
    pub(crate) async fn record(
        &self,
        permit: &Permit,
        event_id: &str,
    ) -> Result<Option<StoredRecord>, Error> {
        let record = self.store.record_by_event(permit, event_id).await?;
        record.iter().try_for_each(|record| self.check(permit, record))?;
        Ok(record)
    }

    /// A page of the records that match, out of the tree that the first page was of: what is appended meanwhile does
    /// not move anything.
    pub(crate) async fn list(
        &self,
        permit: &Permit,
        selection: &Selection,
        descending: bool,
        limit: u64,
        after: Option<Cursor>,
    ) -> Result<Listed, Error> {
        let tree_size = match after {
            Some(cursor) => cursor.tree_size,
            None => self.store.checkpoint(permit).await?.map_or(0, |c| c.head.size as i64),
        };
        let range = match after {
            None => 0..tree_size,
            Some(cursor) if descending => 0..cursor.last,
            Some(cursor) => cursor.last.saturating_add(1)..tree_size,
        };
        let page = self.page(permit, selection, range, descending, limit).await?;
        let next =
            page.records.last().filter(|_| page.more).map(|last| Cursor { last: last.index, tree_size });
        Ok(Listed { records: page.records, next, tree_size })
    }

    /// How many of the first `tree_size` records match: exactly without a filter, and up to [`MAX_COUNTED`] with one.
    pub(crate) async fn count(
        &self,
        permit: &Permit,
        filter: &Filter,
        selection: &Selection,
        tree_size: i64,
    ) -> Result<u64, Error> {
        match filter.is_empty() {
            true => Ok(tree_size.unsigned_abs()),
            false => self.store.count_records(permit, selection, tree_size, MAX_COUNTED).await,
        }
    }

    /// The first records of a range that match.
    pub(crate) async fn page(
        &self,
        permit: &Permit,
        selection: &Selection,
        range: Range<i64>,
        descending: bool,
        limit: u64,
    ) -> Result<Page, Error> {
        let page =
            self.store.records_page(permit, selection, range, descending, limit, self.max_page_bytes).await?;
        page.records.iter().try_for_each(|record| self.check(permit, record))?;
        Ok(page)
    }

    /// Nothing is shown that is not what its hash says. Where one is found, its tile is checked and the log held.
    fn check(
        &self,
        permit: &Permit,
        StoredRecord { index, leaf, body, .. }: &StoredRecord,
    ) -> Result<(), Error> {
        if hash::leaf(body)[..] == leaf[..] {
            return Ok(());
        }
        let log = permit.organization();
        self.rechecks.request(log, index.unsigned_abs());
        Err(Error::inconsistent(log, format!("record {index} is not what its hash says")))
    }
}

//! Following a log: what is there from an index on, then what is appended, with a sign of life when nothing is.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use pavior_auth::Permit;
use tokio::sync::watch;
use tokio::time::Instant;

use super::reader::Reader;
use crate::domain::record::StoredRecord;
use crate::error::Error;
use crate::store::Selection;

/// Records read at once.
const CHUNK: u64 = 100;

/// What a stream sends.
#[derive(Debug)]
pub(crate) struct Item {
    /// Absent in a bookmark.
    pub(crate) record: Option<StoredRecord>,
    /// Every record below it has been sent or did not match.
    pub(crate) resume: i64,
}

/// How a stream waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) bookmark: Duration,
    /// How often to look when other processes write to the same database.
    pub(crate) poll: Duration,
}

struct State {
    reader: Reader,
    permit: Permit,
    selection: Selection,
    pace: Pace,
    commits: watch::Receiver<u64>,
    /// The first index that has not been looked at.
    next: i64,
    ready: VecDeque<Item>,
    bookmark_at: Instant,
    ended: bool,
}

impl Reader {
    /// Streams records from an index on. Nothing is read ahead of the client.
    pub(crate) async fn watch(
        &self,
        permit: Permit,
        selection: Selection,
        from: i64,
        pace: Pace,
    ) -> Result<impl Stream<Item = Result<Item, Error>> + Send + use<>, Error> {
        let size = self.checkpoint(&permit).await?.size;
        if u64::try_from(from).is_ok_and(|from| from > size) {
            return Err(Error::BeyondEnd { field: "from_index", asked: from as u64, size });
        }
        let state = State {
            commits: self.store.commits(),
            reader: self.clone(),
            permit,
            selection,
            pace,
            next: from,
            ready: VecDeque::new(),
            bookmark_at: Instant::now() + pace.bookmark,
            ended: false,
        };
        Ok(futures::stream::unfold(state, |mut state| async move {
            let item = state.next_item().await?;
            Some((item, state))
        }))
    }
}

impl State {
    async fn next_item(&mut self) -> Option<Result<Item, Error>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.bookmark_at = Instant::now() + self.pace.bookmark;
                return Some(Ok(item));
            }
            // Marked before looking, so that an append in between wakes the wait below.
            self.commits.mark_unchanged();
            match self.look().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
            if Instant::now() >= self.bookmark_at && self.ready.is_empty() {
                self.ready.push_back(Item { record: None, resume: self.next });
            }
        }
    }

    /// Reads the next records; false when there are none that have not been looked at.
    async fn look(&mut self) -> Result<bool, Error> {
        // The size first: whatever is below it is committed and will not change.
        let size = self.reader.checkpoint(&self.permit).await?.size as i64;
        if self.next >= size {
            return Ok(false);
        }
        let page = self.reader.page(&self.permit, &self.selection, self.next..size, false, CHUNK).await?;
        self.next = match page.records.last().filter(|_| page.more) {
            Some(last) => last.index + 1,
            None => size,
        };
        self.ready.extend(page.records.into_iter().map(|record| {
            let resume = record.index + 1;
            Item { record: Some(record), resume }
        }));
        Ok(true)
    }

    async fn wait(&mut self) {
        let poll = match self.reader.store.is_shared() {
            true => Instant::now() + self.pace.poll,
            false => self.bookmark_at,
        };
        tokio::select! {
            _ = self.commits.changed() => {}
            () = tokio::time::sleep_until(poll.min(self.bookmark_at)) => {}
        }
    }
}

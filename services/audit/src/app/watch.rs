//! Following a log: what is there from a place on, then what is appended, with a sign of life when nothing is.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use pavior_auth::Permit;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::reader::Reader;
use crate::domain::record::StoredRecord;
use crate::error::Error;
use crate::store::Selection;

/// How far the times of records that stand side by side may be apart: several processes write to a log, each by its
/// own clock.
const APART: Duration = Duration::from_secs(60);
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

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    Beginning,
    /// With the next record that is appended.
    End,
    /// With what the log took then or later.
    Time(OffsetDateTime),
    Index(i64),
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
    /// What the log took before is left out; microseconds since 1970.
    since: i64,
    ready: VecDeque<Item>,
    bookmark_at: Instant,
    ended: bool,
}

impl Reader {
    /// Streams records from a place on. Nothing is read ahead of the client.
    pub(crate) async fn watch(
        &self,
        permit: Permit,
        selection: Selection,
        from: From,
        pace: Pace,
    ) -> Result<impl Stream<Item = Result<Item, Error>> + Send + use<>, Error> {
        let size = self.checkpoint(&permit).await?.head.size as i64;
        let (next, since) = match from {
            From::Beginning => (0, i64::MIN),
            From::End => (size, i64::MIN),
            From::Time(time) => {
                let since = pavior_store::micros(time);
                let early = since.saturating_sub(APART.as_micros() as i64);
                (self.store.first_since(&permit, early, size).await?, since)
            }
            // The log was set back since.
            From::Index(next) if next > size => return Err(Error::ResumeBeyondEnd { next, size }),
            From::Index(next) => (next, i64::MIN),
        };
        let state = State {
            commits: self.store.commits(),
            reader: self.clone(),
            permit,
            selection,
            pace,
            next,
            since,
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
        let size = self.reader.checkpoint(&self.permit).await?.head.size as i64;
        if self.next >= size {
            return Ok(false);
        }
        let page = self.reader.page(&self.permit, &self.selection, self.next..size, false, CHUNK).await?;
        self.next = match page.records.last().filter(|_| page.more) {
            Some(last) => last.index + 1,
            None => size,
        };
        let since = self.since;
        let wanted = page.records.into_iter().filter(|record| record.receive_time >= since);
        self.ready.extend(wanted.map(|record| {
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

//! The two ways of a request: what the client sends goes to the back end, what that says goes to the client. Both end with
//! the client, with the deadline, and when there is too much of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt as _;
use pavior_driver::RefUpdate;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::account::Account;
use crate::child::Conversation;

/// How what the client sends ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fed {
    Whole,
    /// The client went away in the midst of it.
    Broken,
    TooLarge,
}

/// Brings what the client sends to the back end. Dropping it ends that.
pub(super) struct Feed {
    task: JoinHandle<Fed>,
    /// Set before the back end notices: what it says from then on is about an input that was cut off.
    too_large: Arc<AtomicBool>,
}

impl Feed {
    pub(super) fn start(body: Body, input: ChildStdin, most: u64) -> Self {
        let too_large = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(feed(body.into_data_stream(), input, most, Arc::clone(&too_large)));
        Self { task, too_large }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn feed(mut body: BodyDataStream, input: ChildStdin, most: u64, too_large: Arc<AtomicBool>) -> Fed {
    let mut left = most;
    let mut input = Some(input);
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else { return Fed::Broken };
        match left.checked_sub(chunk.len() as u64) {
            Some(rest) => left = rest,
            None => {
                too_large.store(true, Ordering::SeqCst);
                drop(input.take());
                return if rest_of(body).await { Fed::TooLarge } else { Fed::Broken };
            }
        }
        // The back end may stop reading when it has what it needs; a client listens when it has said everything.
        if let Some(pipe) = &mut input
            && pipe.write_all(&chunk).await.is_err()
        {
            input = None;
        }
    }
    Fed::Whole
}

/// Reads a body to its end; false when the client went away.
async fn rest_of(mut body: BodyDataStream) -> bool {
    while let Some(chunk) = body.next().await {
        if chunk.is_err() {
            return false;
        }
    }
    true
}

/// Reads a body of which nothing is wanted.
pub(super) async fn drain(body: Body) {
    rest_of(body.into_data_stream()).await;
}

/// What happens when a client sends too much.
#[derive(Default)]
pub(super) struct TooLarge {
    /// What the client is told; nothing when it is not to be told.
    pub(super) report: Vec<u8>,
    /// Where it is recorded then, what the push wanted and why it is refused: it was announced before anybody could know
    /// its size.
    pub(super) refused: Option<(Account, Vec<RefUpdate>, String)>,
}

/// What the back end says. Dropping it ends the back end.
pub(super) struct Answer {
    output: ReaderStream<BufReader<ChildStdout>>,
    feed: Feed,
    fed: Option<Fed>,
    too_large: TooLarge,
    deadline: Instant,
    over: bool,
    _held: (Conversation, Option<OwnedSemaphorePermit>),
}

impl Answer {
    pub(super) fn new(
        output: BufReader<ChildStdout>,
        feed: Feed,
        too_large: TooLarge,
        deadline: Instant,
        held: (Conversation, Option<OwnedSemaphorePermit>),
    ) -> Self {
        let output = ReaderStream::new(output);
        Self { output, feed, fed: None, too_large, deadline, over: false, _held: held }
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(futures::stream::unfold(self, |mut answer| async {
            let chunk = answer.next().await?;
            Some((chunk, answer))
        }))
    }

    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        if self.over {
            return None;
        }
        let next = tokio::time::timeout_at(self.deadline, self.next_in_time()).await;
        let next = next.unwrap_or_else(|_| Some(Err(std::io::ErrorKind::TimedOut.into())));
        self.over = !matches!(next, Some(Ok(_))) || self.fed == Some(Fed::TooLarge);
        next
    }

    /// Ends a push that is too large: it is recorded as refused, and the client is told.
    async fn too_much(&mut self) -> std::io::Result<Bytes> {
        let TooLarge { report, refused } = std::mem::take(&mut self.too_large);
        if let Some((account, updates, why)) = refused {
            account.refuse(updates, why).await;
        }
        if report.is_empty() { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(report.into()) }
    }

    async fn next_in_time(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            let too_large = self.feed.too_large.load(Ordering::SeqCst);
            tokio::select! {
                biased;
                fed = &mut self.feed.task, if self.fed.is_none() => {
                    let fed = fed.unwrap_or(Fed::Broken);
                    self.fed = Some(fed);
                    match fed {
                        Fed::Whole => {}
                        Fed::Broken => return Some(Err(std::io::ErrorKind::ConnectionAborted.into())),
                        Fed::TooLarge => return Some(self.too_much().await),
                    }
                }
                chunk = self.output.next(), if !too_large => {
                    // What it says of an input that was cut off is not for the client.
                    if !self.feed.too_large.load(Ordering::SeqCst) {
                        return chunk;
                    }
                }
            }
        }
    }
}

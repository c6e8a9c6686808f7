//! Background work.

use pavior_runtime::Task;
use tokio::sync::mpsc;

use crate::app::checkpoint_publisher::Publisher;
use crate::app::record_checker::{Checker, Recheck};
use crate::app::record_writer::Writer;

/// The writer of records. When told to end it first writes what waits.
pub(crate) fn record_writer(writer: Writer) -> Task {
    Task::new("audit record_writer", move |cancel| async move {
        writer.run(cancel).await;
        Ok(())
    })
    .supporting()
}

/// The publisher of checkpoints to their replica. It ends after the writer of records.
pub(crate) fn checkpoint_publisher(publisher: Publisher) -> Task {
    Task::new("audit checkpoint_publisher", move |_| async move {
        publisher.run().await;
        Ok(())
    })
    .supporting()
}

/// The reader that hashes again what is stored.
pub(crate) fn record_checker(checker: Checker, queue: mpsc::Receiver<Recheck>) -> Task {
    Task::new("audit record_checker", move |cancel| async move {
        checker.run(queue, cancel).await;
        Ok(())
    })
}

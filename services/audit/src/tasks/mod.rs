//! Background work.

use pavior_runtime::Task;

use crate::app::checker::{Checker, Suspected};
use crate::app::keeper::Keeper;
use crate::app::writer::Writer;

/// The writer of records. When told to end it first writes what waits.
pub(crate) fn record_writer(writer: Writer) -> Task {
    Task::new("audit record_writer", move |cancel| async move {
        writer.run(cancel).await;
        Ok(())
    })
    .supporting()
}

/// The keeper of checkpoints outside of the database. It ends after the writer of records.
pub(crate) fn checkpoint_keeper(keeper: Keeper) -> Task {
    Task::new("audit checkpoint_keeper", move |_| async move {
        keeper.run().await;
        Ok(())
    })
    .supporting()
}

/// The reader that hashes again what is stored.
pub(crate) fn record_checker(checker: Checker, suspected: Suspected) -> Task {
    Task::new("audit record_checker", move |cancel| async move {
        checker.run(suspected, cancel).await;
        Ok(())
    })
}

//! Background work.

use pavior_runtime::Task;

use crate::app::checker::Checker;
use crate::app::writer::Writer;

/// The writer of records. When told to end it first writes what waits.
pub(crate) fn record_writer(writer: Writer) -> Task {
    Task::new("audit record_writer", move |cancel| async move {
        writer.run(cancel).await;
        Ok(())
    })
}

/// The reader that hashes again what is stored.
pub(crate) fn record_checker(checker: Checker) -> Task {
    Task::new("audit record_checker", move |cancel| async move {
        checker.run(cancel).await;
        Ok(())
    })
}

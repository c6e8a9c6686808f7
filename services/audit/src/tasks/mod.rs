//! Background work.

use pavior_runtime::Task;

use crate::app::writer::Writer;

/// The writer of records. When told to end it first writes what waits.
pub(crate) fn record_writer(writer: Writer) -> Task {
    Task::new("audit record_writer", move |cancel| async move {
        writer.run(cancel).await;
        Ok(())
    })
}

//! Writes decisions from the queue to the table.

use pavior_runtime::Task;

use crate::app::App;

pub(super) fn task(app: App) -> Task {
    Task::new("decision_writer", move |cancel| async move {
        app.decision_log.run(&app.kernel.store, cancel).await;
        Ok(())
    })
}

//! Writes decisions.

use pavior_runtime::Task;

use crate::app::App;

pub(super) fn task(app: App) -> Task {
    Task::new("decision_writer", move |cancel| async move {
        app.decisions.run(&app.kernel.store, cancel).await;
        Ok(())
    })
}

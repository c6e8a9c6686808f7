//! The engine.

use pavior_runtime::Task;

use crate::app::App;

/// Takes and carries out steps.
pub(crate) fn task(app: App) -> Task {
    Task::new("engine_runner", move |cancel| async move {
        app.engine.run(cancel).await;
        Ok(())
    })
}

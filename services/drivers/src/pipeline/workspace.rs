//! The directories of runs. One attempt at a time has a run's, until nothing of it runs any more.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pavior_driver::{Failure, FailureCode};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use crate::child::gone;
use crate::files;

const STATUS: &str = ".status";

/// All of them.
pub(super) struct Workspaces {
    root: PathBuf,
    /// How long what an earlier process left may take to end.
    patience: Duration,
    places: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// One, and the right to work in it. Whatever works in it holds it; what is there goes with the last one.
pub(super) struct Workspace {
    pub(super) path: PathBuf,
    /// Says what works in it, to a process that comes after a kill.
    pub(super) status: PathBuf,
    alone: Option<OwnedMutexGuard<()>>,
}

impl Workspaces {
    pub(super) fn open(root: PathBuf, patience: Duration) -> std::io::Result<Self> {
        files::private_directory(&root)?;
        Ok(Self { root, patience, places: Mutex::default() })
    }

    pub(super) fn path(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    fn place(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| Arc::strong_count(place) > 1);
        Arc::clone(places.entry(id.to_owned()).or_default())
    }

    fn workspace(&self, id: &str, alone: OwnedMutexGuard<()>) -> Workspace {
        let status = self.root.join(format!("{id}{STATUS}"));
        Workspace { path: self.path(id), status, alone: Some(alone) }
    }

    /// An empty one, once nothing of earlier attempts runs any more, be it of this process or of one that was killed.
    pub(super) async fn take(&self, id: &str) -> Result<Workspace, Failure> {
        let alone = self.place(id).lock_owned().await;
        let workspace = self.workspace(id, alone);
        if !gone(&workspace.status, self.patience).await {
            let message = "an earlier attempt of this run has not ended yet";
            return Err(Failure::new(FailureCode::Unavailable, message));
        }
        let path = workspace.path.clone();
        let emptied = tokio::task::spawn_blocking(move || {
            files::remove_tree(&path)?;
            ["home", "tmp"].iter().try_for_each(|part| files::private_directory(&path.join(part)))
        });
        emptied.await.map_err(std::io::Error::other).flatten().map_err(|error| {
            tracing::error!(error = %error, "workspace cannot be made");
            Failure::new(FailureCode::Internal, "the workspace cannot be made")
        })?;
        Ok(workspace)
    }

    /// Removes what a process that was killed left, once its work has ended.
    pub(super) async fn clear(&self) {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ids: BTreeSet<String> =
            names.map(|name| name.strip_suffix(STATUS).unwrap_or(&name).to_owned()).collect();
        let clears = ids.iter().map(async |id| {
            // One that is taken is removed by whoever has it.
            let Ok(alone) = self.place(id).try_lock_owned() else { return };
            let workspace = self.workspace(id, alone);
            if gone(&workspace.status, self.patience).await {
                Arc::new(workspace).leave().await;
            } else {
                workspace.keep();
            }
        });
        futures::future::join_all(clears).await;
    }
}

impl Workspace {
    /// Removes it, unless something works in it still, which then does.
    pub(super) async fn leave(self: Arc<Self>) {
        let Some(mut last) = Arc::into_inner(self) else { return };
        if let Some(remove) = last.removal() {
            // It goes on without us.
            let _ = tokio::task::spawn_blocking(remove).await;
        }
    }

    /// Leaves it as it is.
    fn keep(mut self) {
        self.alone = None;
    }

    fn removal(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        let alone = self.alone.take()?;
        let (path, status) = (self.path.clone(), self.status.clone());
        Some(move || {
            remove(&path, &status);
            drop(alone);
        })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let Some(remove) = self.removal() else { return };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

fn remove(path: &Path, status: &Path) {
    if let Err(error) = files::remove_tree(path).and_then(|()| files::remove(status)) {
        tracing::warn!(workspace = %path.display(), %error, "a workspace cannot be removed");
    }
}

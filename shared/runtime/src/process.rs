//! What holds for the process as a whole, set before anything else runs.

/// Files and folders that this process and its children make are for their owner alone, whatever the shell that started
/// it has set. To be called first by every program of the platform.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

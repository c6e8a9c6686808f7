//! The Rust sources of the workspace.

use std::path::{Path, PathBuf};

/// A file, by its path from the root.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Lines of code with their numbers, without comments and without the items that are compiled for tests only. What
    /// follows such an item is code again.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut tests = false;
        self.text
            .lines()
            .enumerate()
            .filter(move |(_, line)| {
                let skipped = tests || line.starts_with("#[cfg(test)]");
                // An item ends with a line of its own depth, and attributes end nothing.
                let ends =
                    !line.starts_with([' ', '#', '/']) && (line.ends_with(';') || line.starts_with('}'));
                tests = skipped && !ends;
                !skipped
            })
            .map(|(number, line)| (number + 1, line.split_once("//").map_or(line, |(code, _)| code)))
            .filter(|(_, line)| !line.trim().is_empty())
    }

    /// True for tests, benches and what only they use.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.starts_with("shared/testkit/")
            || ["/tests/", "/benches/", "/tests.rs", "_tests.rs", "/testing"]
                .iter()
                .any(|part| self.path.contains(part))
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// Every Rust file of ours.
pub(crate) fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    for folder in ["shared", "services", "tests"] {
        for entry in walkdir::WalkDir::new(root.join(folder)) {
            let entry = entry.expect("the sources can be read");
            if entry.path().extension().is_some_and(|e| e == "rs") {
                let path = entry.path().strip_prefix(&root).expect("below the root").display().to_string();
                let text = std::fs::read_to_string(entry.path()).expect("sources are UTF-8");
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 100, "the sources were not found");
    found
}

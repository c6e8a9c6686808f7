//! What is wrong with an input: every problem at once, each with its path.

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// The dotted path of the field.
    pub(crate) path: String,
    /// What is wrong: lower case, user input in backticks.
    pub(crate) message: String,
}

/// A collector of problems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { path: path.into(), message: message.into() });
    }

    /// Keeps the error of a result as a problem of `path`.
    pub(crate) fn check<T, E: std::fmt::Display>(&mut self, path: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(path, error.to_string())).ok()
    }

    /// Takes over others, with `prefix` before their paths.
    pub(crate) fn extend_under(&mut self, prefix: &str, others: impl IntoIterator<Item = Violation>) {
        self.0.extend(
            others
                .into_iter()
                .map(|Violation { path, message }| Violation { path: join(prefix, &path), message }),
        );
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.0.iter()
    }

    pub(crate) fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Fails with all of them when there is one.
    pub(crate) fn into_result(self) -> Result<(), Violations> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// `prefix.path`, where either may be empty.
pub(crate) fn join(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    }
}

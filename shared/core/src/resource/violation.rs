//! What is wrong with an input: every problem at once, each with its path.

use super::Fault;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The dotted path of the field.
    pub path: String,
    /// What is wrong, for programs.
    pub fault: Fault,
    /// What is wrong: lower case, user input in backticks.
    pub message: String,
}

/// A collector of problems.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn add(&mut self, path: impl Into<String>, fault: Fault, message: impl Into<String>) {
        self.0.push(Violation { path: path.into(), fault, message: message.into() });
    }

    /// Keeps the error of a result as a problem of `path`.
    pub fn check<T, E: std::fmt::Display>(
        &mut self,
        path: &str,
        fault: Fault,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(path, fault, error.to_string())).ok()
    }

    /// Takes over others, with `prefix` before their paths.
    pub fn extend_under(&mut self, prefix: &str, others: impl IntoIterator<Item = Violation>) {
        self.0.extend(
            others
                .into_iter()
                .map(|violation| Violation { path: join(prefix, &violation.path), ..violation }),
        );
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.0.iter()
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Fails with all of them when there is one.
    pub fn into_result(self) -> Result<(), Violations> {
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
pub fn join(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(violations: I) -> Self {
        Self(violations.into_iter().collect())
    }
}

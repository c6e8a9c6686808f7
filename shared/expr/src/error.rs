use crate::limits::shorten;

/// Why a text could not be parsed or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if path.is_empty() { String::new() } else { format!("`{path}`: ") })]
pub struct ExprError {
    /// Dotted path in the JSON value, or the file in a skeleton; empty for the whole.
    pub path: String,
    /// What is wrong: lower case, user input in backticks.
    pub message: String,
}

impl ExprError {
    pub(crate) fn new(message: impl AsRef<str>) -> Self {
        Self { path: String::new(), message: shorten(message.as_ref()) }
    }

    pub(crate) fn at(mut self, path: &str) -> Self {
        if self.path.is_empty() {
            path.clone_into(&mut self.path);
        }
        self
    }

    pub(crate) fn engine(expression: &str, error: &minijinja::Error) -> Self {
        use minijinja::ErrorKind;
        let shown = shorten(expression.trim());
        let detail = error.detail().unwrap_or_default();
        Self::new(match error.kind() {
            ErrorKind::UndefinedError => format!("`{shown}` uses a name that is not defined"),
            ErrorKind::OutOfFuel => format!("`{shown}` does too much work"),
            ErrorKind::SyntaxError => format!("`{shown}` is not a valid expression: {detail}"),
            kind if detail.is_empty() => format!("`{shown}` failed: {kind}"),
            kind => format!("`{shown}` failed: {kind}: {detail}"),
        })
    }
}

//! The filter language of AIP-160 and the `order_by` of AIP-132.
//!
//! ```text
//! lifecycle = PRODUCTION AND labels.team:"pay*"
//! create_time > "2026-01-01T00:00:00Z" -labels.deprecated:*
//! ```
//!
//! `OR` binds tighter than `AND`; terms without a word between them are joined by `AND`. Functions and
//! parentheses at the right of a comparison are not part of our dialect. Which fields exist is not decided here:
//! `pavior_store::filter` compiles the tree against the fields of one table.

mod lexer;
mod order;
mod parser;

pub use order::order_by;

/// Longest filter, in bytes.
pub const MAX_LENGTH: usize = 2_048;
/// Deepest nesting of parentheses and negations.
pub const MAX_DEPTH: usize = 16;
/// Most restrictions in one filter.
pub const MAX_TERMS: usize = 64;

/// Where and why a filter or an ordering cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {problem}")]
pub struct ParseError {
    /// Character, counted from 1.
    pub position: usize,
    /// What is wrong there.
    pub problem: String,
}

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `:`, "has": contains an element, has a key, or contains the text
    Has,
}

impl Op {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Eq => "=",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
            Op::Has => ":",
        }
    }
}

/// Where a text literal may go on, from the `*` at its ends (which are not part of its value).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wildcard {
    /// `x`: the whole text
    None,
    /// `x*`
    Prefix,
    /// `*x`
    Suffix,
    /// `*x*`
    Contains,
    /// `*`: any value, if only there is one
    Any,
}

/// The right side of a comparison. What it means depends on the type of the field.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Quoted text, or a bare word that is none of the following.
    Text {
        /// Without the wildcards.
        value: String,
        /// Where it may go on.
        wildcard: Wildcard,
    },
    /// A bare number.
    Number {
        /// Its value.
        value: f64,
        /// As it was written, for fields that hold text or large integers.
        raw: String,
    },
    /// A bare `true` or `false`.
    Bool(bool),
    /// A bare `null`.
    Null,
}

impl Literal {
    /// The literal as text, as it was written, without wildcards.
    pub fn raw(&self) -> &str {
        match self {
            Literal::Text { value, .. } => value,
            Literal::Number { raw, .. } => raw,
            Literal::Bool(true) => "true",
            Literal::Bool(false) => "false",
            Literal::Null => "null",
        }
    }

    /// The wildcard; none for what is not text.
    pub fn wildcard(&self) -> Wildcard {
        match self {
            Literal::Text { wildcard, .. } => *wildcard,
            _ => Wildcard::None,
        }
    }

    /// Whether `text` equals the literal, with regard to wildcards and case.
    pub fn matches(&self, text: &str) -> bool {
        match self.wildcard() {
            Wildcard::None => text == self.raw(),
            Wildcard::Prefix => text.starts_with(self.raw()),
            Wildcard::Suffix => text.ends_with(self.raw()),
            Wildcard::Contains => text.contains(self.raw()),
            Wildcard::Any => true,
        }
    }
}

/// A parsed filter. An empty filter is `And` of nothing and lets everything pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them.
    And(Vec<Filter>),
    /// One of them at least.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A field compared with a literal.
    Restriction {
        /// Field and sub-fields, such as `labels`, `team`.
        path: Vec<String>,
        /// The operator.
        op: Op,
        /// The right side.
        value: Literal,
    },
    /// A bare word or quoted phrase, to be looked for wherever the resource has text.
    Global(String),
}

impl Filter {
    /// Parses a filter; text of nothing but spaces is the empty filter.
    pub fn parse(text: &str) -> Result<Filter, ParseError> {
        parser::parse(text)
    }

    /// Whether it lets everything pass because nothing was asked for.
    pub fn is_empty(&self) -> bool {
        matches!(self, Filter::And(items) if items.is_empty())
    }
}

fn error<T>(position: usize, problem: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError { position, problem: problem.into() })
}

#[cfg(test)]
mod tests;

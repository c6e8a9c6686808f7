//! A lexer for what must be known before the engine's parser may see a text: where expressions begin and end, how
//! deep and how long they are, and which names they use.

use std::fmt;

use crate::ExprError;
use crate::limits::{MAX_EXPRESSION_BYTES, MAX_NESTING, MAX_OPERATORS};

/// A dotted name used in an expression, such as `resources.db.url`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    segments: Vec<String>,
}

impl Reference {
    /// The parts: `["resources", "db", "url"]`. A computed part ends the reference: `resources[x]` is `resources`.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The first part.
    #[must_use]
    pub fn root(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    /// The part at `index`.
    #[must_use]
    pub fn segment(&self, index: usize) -> Option<&str> {
        self.segments.get(index).map(String::as_str)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments.join("."))
    }
}

/// An expression that passed the limits.
#[derive(Debug, Clone)]
pub(crate) struct Scanned {
    /// Text for the engine, hyphenated names written as subscripts.
    pub(crate) code: String,
    pub(crate) references: Vec<Reference>,
    /// The whole expression is one dotted path.
    pub(crate) is_path: bool,
}

#[derive(Debug)]
pub(crate) enum Segment<'a> {
    Text(&'a str),
    Expression(&'a str),
}

/// Splits a string at `${{ … }}`.
pub(crate) fn split(text: &str) -> Result<Vec<Segment<'_>>, ExprError> {
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        if start > 0 {
            segments.push(Segment::Text(&rest[..start]));
        }
        let inner = &rest[start + 3..];
        let end = find_end(inner, b"}}")?;
        segments.push(Segment::Expression(&inner[..end]));
        rest = &inner[end + 2..];
    }
    if !rest.is_empty() {
        segments.push(Segment::Text(rest));
    }
    Ok(segments)
}

/// Where the closing delimiter begins. Quotes and braces inside the expression are skipped.
pub(crate) fn find_end(inner: &str, close: &[u8]) -> Result<usize, ExprError> {
    let bytes = inner.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        if at > MAX_EXPRESSION_BYTES {
            return Err(ExprError::new(format!("an expression is longer than {MAX_EXPRESSION_BYTES} bytes")));
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = skip_string(bytes, at, quote),
            _ if depth == 0 && bytes[at..].starts_with(close) => return Ok(at),
            b'{' | b'(' | b'[' => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(ExprError::new(format!("brackets are nested deeper than {MAX_NESTING}")));
                }
                at += 1;
            }
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    Err(ExprError::new("an expression that begins with `${{` or `${%` does not end"))
}

/// The position behind a string literal that begins at `at`.
fn skip_string(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

const KEYWORDS: [&str; 16] = [
    "and",
    "or",
    "not",
    "in",
    "is",
    "if",
    "else",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "loop",
    "recursive",
    "self",
];

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    code: String,
    references: Vec<Reference>,
    operators: usize,
    depth: usize,
}

/// Checks the limits of one expression and lists its names.
pub(crate) fn scan(text: &str) -> Result<Scanned, ExprError> {
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(ExprError::new(format!("an expression is longer than {MAX_EXPRESSION_BYTES} bytes")));
    }
    let mut scanner =
        Scanner { text, at: 0, code: String::new(), references: Vec::new(), operators: 0, depth: 0 };
    let mut previous = Previous::Start;
    let mut tokens = 0_usize;
    let mut only_path = true;
    while let Some(byte) = scanner.peek() {
        if byte.is_ascii_whitespace() {
            scanner.take(1);
            continue;
        }
        tokens += 1;
        let (next, was_path) = scanner.token(byte, previous)?;
        previous = next;
        only_path &= was_path;
    }
    let mut references = scanner.references;
    references.sort();
    references.dedup();
    Ok(Scanned { code: scanner.code, is_path: tokens == 1 && only_path && references.len() == 1, references })
}

/// What stood before a name decides what the name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Previous {
    Start,
    /// `.` or `|`: an attribute or a filter follows.
    Attached,
    /// `is`, `is not`: a test follows.
    Test,
    Other,
}

impl Scanner<'_> {
    fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn take(&mut self, count: usize) {
        let end = self.at + count;
        self.code.push_str(&self.text[self.at..end]);
        self.at = end;
    }

    fn token(&mut self, byte: u8, previous: Previous) -> Result<(Previous, bool), ExprError> {
        match byte {
            b'"' | b'\'' => {
                let end = skip_string(self.bytes(), self.at, byte).min(self.text.len());
                let end = (end..=self.text.len()).find(|at| self.text.is_char_boundary(*at)).unwrap_or(end);
                self.take(end - self.at);
                Ok((Previous::Other, false))
            }
            b'(' | b'[' | b'{' => {
                self.depth += 1;
                if self.depth > MAX_NESTING {
                    return Err(ExprError::new(format!("brackets are nested deeper than {MAX_NESTING}")));
                }
                self.operator(Previous::Other)
            }
            b')' | b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.operator(Previous::Other)
            }
            b'.' | b'|' => self.operator(Previous::Attached),
            b'0'..=b'9' => {
                let length = self.text[self.at..]
                    .bytes()
                    .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
                    .count();
                self.take(length);
                Ok((Previous::Other, false))
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => self.name(previous),
            _ => {
                let length = self.text[self.at..].chars().next().map_or(1, char::len_utf8);
                self.count()?;
                self.take(length);
                Ok((Previous::Other, false))
            }
        }
    }

    fn count(&mut self) -> Result<(), ExprError> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(ExprError::new(format!("an expression has more than {MAX_OPERATORS} operators")));
        }
        Ok(())
    }

    fn operator(&mut self, next: Previous) -> Result<(Previous, bool), ExprError> {
        self.count()?;
        self.take(1);
        Ok((next, false))
    }

    fn word(&self, from: usize) -> usize {
        self.text[from..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
    }

    fn name(&mut self, previous: Previous) -> Result<(Previous, bool), ExprError> {
        let length = self.word(self.at);
        let word = self.text[self.at..self.at + length].to_owned();
        self.count()?;
        self.take(length);
        if previous == Previous::Attached {
            return Ok((Previous::Other, false));
        }
        if KEYWORDS.contains(&word.as_str()) {
            let next = match (word.as_str(), previous) {
                ("is", _) | ("not", Previous::Test) => Previous::Test,
                _ => Previous::Other,
            };
            return Ok((next, false));
        }
        if previous == Previous::Test {
            return Ok((Previous::Other, false));
        }
        let mut segments = vec![word];
        while let Some(segment) = self.path_segment()? {
            segments.push(segment);
        }
        let rest = self.text[self.at..].trim_start();
        if rest.starts_with('(') {
            // A call: the last part is a function or a method, not a value.
            segments.pop();
        }
        let keyword_argument = rest.starts_with('=') && !rest.starts_with("==") && segments.len() == 1;
        if segments.is_empty() || keyword_argument {
            return Ok((Previous::Other, false));
        }
        self.references.push(Reference { segments });
        Ok((Previous::Other, true))
    }

    /// Reads `.name`, `.na-me`, `.0`, `["name"]` or `[0]` behind a name; anything else ends the path.
    fn path_segment(&mut self) -> Result<Option<String>, ExprError> {
        match self.peek() {
            Some(b'.') => {
                let start = self.at + 1;
                let mut end = start + self.word(start);
                if end == start {
                    return Ok(None);
                }
                while self.bytes().get(end) == Some(&b'-') && self.word(end + 1) > 0 {
                    end += 1 + self.word(end + 1);
                }
                self.count()?;
                let segment = self.text[start..end].to_owned();
                if segment.contains('-') {
                    self.code.push_str(&format!("[\"{segment}\"]"));
                    self.at = end;
                } else {
                    self.take(end - self.at);
                }
                Ok(Some(segment))
            }
            Some(b'[') => {
                let inner = &self.text[self.at + 1..];
                let Some(close) = inner.find(']') else { return Ok(None) };
                let literal = inner[..close].trim();
                let Some(segment) = literal_key(literal) else { return Ok(None) };
                let length = close + 2;
                self.count()?;
                self.take(length);
                Ok(Some(segment))
            }
            _ => Ok(None),
        }
    }
}

/// A plain string or number in brackets; anything with escapes or computation is not a constant path.
fn literal_key(literal: &str) -> Option<String> {
    if !literal.is_empty() && literal.bytes().all(|b| b.is_ascii_digit()) {
        return Some(literal.to_owned());
    }
    let quote = literal.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let body = literal.strip_prefix(quote)?.strip_suffix(quote)?;
    (!body.contains(['"', '\'', '\\'])).then(|| body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        scan(text).unwrap().references.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_listed() {
        let table: &[(&str, &[&str])] = &[
            ("resources.db.url", &["resources.db.url"]),
            ("resources[\"my-db\"].url", &["resources.my-db.url"]),
            ("resources.my-db.url", &["resources.my-db.url"]),
            ("parameters.a - parameters.b", &["parameters.a", "parameters.b"]),
            ("a.b | default(c.d) | upper", &["a.b", "c.d"]),
            ("a.b is defined and not c", &["a.b", "c"]),
            ("x is not none", &["x"]),
            ("range(parameters.n)", &["parameters.n"]),
            ("a.b.upper()", &["a.b"]),
            ("f(key=value.x)", &["value.x"]),
            ("'a.b' ~ \"c.d\"", &[]),
            ("resources[parameters.x].url", &["parameters.x", "resources"]),
            ("items[0].name", &["items.0.name"]),
            ("{'a': b.c}", &["b.c"]),
            ("1.5 + a", &["a"]),
            ("a if b else c", &["a", "b", "c"]),
        ];
        for (text, expected) in table {
            assert_eq!(&names(text), expected, "{text}");
        }
    }

    #[test]
    fn only_a_bare_path_is_a_path() {
        assert!(scan(" a.b-c.d ").unwrap().is_path);
        assert!(!scan("a.b ~ ''").unwrap().is_path);
        assert!(!scan("a.b|upper").unwrap().is_path);
        assert!(!scan("f(a)").unwrap().is_path);
    }

    #[test]
    fn braces_and_quotes_do_not_end_an_expression() {
        let segments = split("x${{ {'a': {'b': '}}'}} }}y").unwrap();
        assert_eq!(segments.len(), 3);
        assert!(matches!(segments[1], Segment::Expression(" {'a': {'b': '}}'}} ")));
    }
}

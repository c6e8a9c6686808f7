//! The patterns that texts must match.

use std::sync::LazyLock;

use regex::Regex;

/// Every pattern in use, with what callers are told instead of it.
pub(super) const PATTERNS: &[(&str, &str)] = &[
    // As `pavior_core::text::is_hidden`.
    (
        r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|[\x{200C}\x{200D}])*$",
        "must not hold control characters, line breaks or invisible formatting",
    ),
    (
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        "must be 1 to 63 lower-case letters, digits or hyphens, and begin and end with a letter or a digit",
    ),
    (
        "^[a-z0-9]([a-z0-9._@-]{0,126}[a-z0-9])?$",
        "must be 1 to 128 lower-case letters, digits or `-._@`, and begin and end with a letter or a digit",
    ),
    ("^[A-Za-z0-9_./-]{1,128}$", "must be 1 to 128 letters, digits or `-_./`"),
    (r"^[^\s\p{Cc}\p{Cf}]+$", "must not be empty or hold spaces, control characters or invisible formatting"),
    (r"^[^\s\p{Cc}\p{Cf}]{1,63}$", "must be 1 to 63 characters without spaces or invisible formatting"),
    ("^[A-Za-z][A-Za-z0-9_-]{0,62}$", "must be 1 to 63 letters, digits or `_-` and begin with a letter"),
    ("^sha256:[0-9a-f]{64}$", "must be a digest: `sha256:` and 64 lower-case hexadecimal digits"),
];

pub(super) static COMPILED: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let compiled = |(text, words): &(&'static str, &'static str)| {
        Some(Pattern { text, words, regex: Regex::new(text).ok()? })
    };
    PATTERNS.iter().filter_map(compiled).collect()
});

/// A pattern that texts must match.
#[derive(Debug)]
pub struct Pattern {
    /// In the syntax of RE2.
    pub text: &'static str,
    /// What it demands, in words.
    pub words: &'static str,
    pub(super) regex: Regex,
}

/// What is written otherwise for JSON Schema. Categories stand in classes only, and are written out as far as the first plane
/// of Unicode goes.
const PORTABLE: [(&str, &str); 6] = [
    (r"\p{Cc}", r"\u0000-\u001F\u007F-\u009F"),
    (
        r"\p{Cf}",
        r"\u00AD\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u180E\u200B-\u200F\u202A-\u202E\u2060-\u2064\u2066-\u206F\uFEFF\uFFF9-\uFFFB",
    ),
    (r"\p{Zl}", r"\u2028"),
    (r"\p{Zp}", r"\u2029"),
    (r"\x{200C}", r"\u200C"),
    (r"\x{200D}", r"\u200D"),
];

impl Pattern {
    /// In what ECMA-262, with its flag `u` and without, and the dialects of other languages have in common, as JSON Schema
    /// asks for. It may let a little more pass than the service does; without the flag, a character beyond the first plane
    /// counts as two.
    pub fn portable(&self) -> String {
        PORTABLE.iter().fold(self.text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

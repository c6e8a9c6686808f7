/// Longest expression between `${{` and `}}`, in bytes. Also bounds the depth of a left-leaning syntax tree, which
/// the parser's own recursion limit does not see.
pub const MAX_EXPRESSION_BYTES: usize = 2 * 1024;
/// Deepest nesting of brackets in an expression, and of a JSON value.
pub const MAX_NESTING: usize = 32;
/// Most operators, dots, filters and other punctuation in one expression.
pub(crate) const MAX_OPERATORS: usize = 256;
/// Longest string with expressions in it, in bytes.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Most expressions in one value.
pub const MAX_EXPRESSIONS: usize = 10_000;
/// Deepest JSON value that is walked.
pub(crate) const MAX_VALUE_DEPTH: usize = 96;
/// Fuel of one expression: one unit is one instruction or 64 bytes of data.
pub(crate) const EXPRESSION_FUEL: u64 = 50_000;
/// Fuel of one skeleton file.
pub(crate) const FILE_FUEL: u64 = 1_000_000;
/// Longest text file of a skeleton that is rendered, in bytes.
pub(crate) const MAX_TEMPLATE_BYTES: usize = 1024 * 1024;
/// Most files of a skeleton.
pub(crate) const MAX_FILES: usize = 5_000;
/// Most bytes that a skeleton renders to.
pub(crate) const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// Longest message that is passed on from a parser or validator, in characters.
pub(crate) const MAX_MESSAGE: usize = 400;

pub(crate) fn shorten(message: &str) -> String {
    let line = message.trim();
    if line.chars().count() <= MAX_MESSAGE {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(MAX_MESSAGE).collect();
    short.push('…');
    short
}

//! Texts as errors tell them.

use std::borrow::Cow;

use pavior_core::text::is_hidden;

/// How many bytes of one text leave the process. Callers see their own input back in it, which may be of any length.
const MAX_TEXT_BYTES: usize = 640;

/// The text, or its beginning with an ellipsis. What was given is told in errors: characters of it that are not seen are
/// written out, as they could change how the rest is shown.
pub(crate) fn clip(text: &str) -> Cow<'_, str> {
    let clipped = beginning(text);
    let is_concealed = |c: char| !matches!(c, '\n' | '\t') && is_hidden(c);
    if !clipped.contains(is_concealed) {
        return clipped;
    }
    let mut shown = String::with_capacity(clipped.len());
    for c in clipped.chars() {
        if is_concealed(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    Cow::Owned(beginning(&shown).into_owned())
}

fn beginning(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_written_out_and_what_is_long_is_cut() {
        assert!(matches!(clip("a\tb\nc é"), Cow::Borrowed("a\tb\nc é")));
        assert_eq!(clip("a\u{202e}b\0"), "a\\u{202e}b\\u{0}");
        for long in ["é".repeat(MAX_TEXT_BYTES), "\u{202e}".repeat(MAX_TEXT_BYTES)] {
            let told = clip(&long);
            assert!(told.ends_with('…') && told.len() <= MAX_TEXT_BYTES + '…'.len_utf8(), "{}", told.len());
        }
    }
}

//! Lines of text that people give: names to show, titles, labels.

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// Whether a character has no place in a line: a control character, a line break, or one that is not seen and changes how
/// what stands beside it is shown (Unicode: the categories Cc, Cf, Zl and Zp). The joiners are no such: Persian, the
/// languages of India and emoji are written with them.
pub fn is_hidden(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let is_joiner = matches!(c, '\u{200c}' | '\u{200d}');
    !is_joiner && [Control, Format, LineSeparator, ParagraphSeparator].contains(&category)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_told_from_what_is() {
        for c in ['\0', '\n', '\u{85}', '\u{ad}', '\u{200b}', '\u{202e}', '\u{2028}', '\u{2066}', '\u{feff}']
        {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in ['a', ' ', '\u{a0}', 'é', '\u{301}', 'ی', '\u{200c}', '\u{200d}', '👩', '\u{fe0f}'] {
            assert!(!is_hidden(c), "{c:?}");
        }
    }
}

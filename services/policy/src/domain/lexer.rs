//! Limits on a policy's text that hold before any parser sees it: about 300 bytes of nested parentheses overflow the
//! parser's stack, which aborts the process.

/// Longest text of a policy, in bytes.
pub const MAX_BYTES: usize = 10_000;
/// Deepest nesting of brackets.
pub const MAX_NESTING: usize = 32;
/// Most operators in one statement: each may be one level of the syntax tree, without any bracket.
pub const MAX_OPERATORS: usize = 400;

/// Why a text is refused before it is parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too long.
    #[error("the policy has {0} bytes, at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// Too deep.
    #[error("line {line}: brackets are nested deeper than {MAX_NESTING}")]
    TooDeep {
        /// Where, counted from 1.
        line: usize,
    },
    /// A closing bracket without an opening one.
    #[error("line {line}: closing `{bracket}` without its opening bracket")]
    Unbalanced {
        /// Where, counted from 1.
        line: usize,
        /// The bracket.
        bracket: char,
    },
    /// Too many operators.
    #[error("line {line}: a statement has more than {MAX_OPERATORS} operators")]
    TooManyOperators {
        /// Where, counted from 1.
        line: usize,
    },
}

/// Checks the limits. Strings and comments do not count.
pub fn check(text: &str) -> Result<(), LimitError> {
    if text.len() > MAX_BYTES {
        return Err(LimitError::TooLong(text.len()));
    }
    let mut open = Vec::new();
    let (mut operators, mut line) = (0_usize, 1_usize);
    let mut chars = text.chars().peekable();
    let mut word = String::new();
    while let Some(c) = chars.next() {
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        operators += usize::from(word == "if");
        word.clear();
        match c {
            '\n' => line += 1,
            '"' => line += skip_string(&mut chars),
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '(' | '[' | '{' => {
                open.push(c);
                if open.len() > MAX_NESTING {
                    return Err(LimitError::TooDeep { line });
                }
            }
            ')' | ']' | '}' => {
                let wanted = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(wanted) {
                    return Err(LimitError::Unbalanced { line, bracket: c });
                }
            }
            ';' => operators = 0,
            '!' | '-' | '+' | '*' | '.' | '&' | '|' | '=' | '<' | '>' => operators += 1,
            _ => {}
        }
        if operators > MAX_OPERATORS {
            return Err(LimitError::TooManyOperators { line });
        }
    }
    Ok(())
}

/// Skips to the end of a string, of which the opening quote was read; gives the line breaks in it.
fn skip_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut lines = 0;
    while let Some(c) = chars.next() {
        match c {
            '\\' => lines += usize::from(chars.next() == Some('\n')),
            '\n' => lines += 1,
            '"' => break,
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_table() {
        let deep = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
        assert_eq!(check(&deep(32)), Ok(()));
        assert_eq!(check(&deep(33)), Err(LimitError::TooDeep { line: 1 }));
        assert_eq!(check(&deep(300)), Err(LimitError::TooDeep { line: 1 }));
        assert_eq!(check(&"x".repeat(10_001)), Err(LimitError::TooLong(10_001)));
        assert_eq!(check(&format!("\"{}\"", "(".repeat(300))), Ok(()));
        assert_eq!(check(&format!("\"\\\"{}\"", "(".repeat(300))), Ok(()));
        assert_eq!(check(&format!("// {}\ntrue", "(".repeat(300))), Ok(()));
        assert_eq!(check("\n)"), Err(LimitError::Unbalanced { line: 2, bracket: ')' }));
        assert_eq!(check("(]"), Err(LimitError::Unbalanced { line: 1, bracket: ']' }));
        assert!(matches!(check(&"!".repeat(500)), Err(LimitError::TooManyOperators { .. })));
        assert!(matches!(check(&"if a then b else ".repeat(500)), Err(LimitError::TooManyOperators { .. })));
        assert_eq!(check(&"a.b;".repeat(1000)), Ok(()));
        assert_eq!(check("\"unterminated"), Ok(()), "the parser's to tell");
    }
}

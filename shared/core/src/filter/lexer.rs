//! Text → tokens.

use super::{MAX_LENGTH, Op, ParseError, Wildcard, error};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A bare word; keywords are recognized by the parser.
    Word(String),
    /// A quoted text and its wildcard.
    Quoted(String, Wildcard),
    Dot,
    Minus,
    Open,
    Close,
    Op(Op),
    End,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Character, counted from 1.
    pub(super) at: usize,
    /// Whether it follows the token before without a space.
    pub(super) joined: bool,
}

/// Splits `text`; the last token is always `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, ParseError> {
    if text.len() > MAX_LENGTH {
        return error(1, format!("the text is longer than {MAX_LENGTH} bytes"));
    }
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, next: 0 };
    let mut out = Vec::new();
    loop {
        let before = lexer.next;
        while lexer.peek().is_some_and(char::is_whitespace) {
            lexer.next += 1;
        }
        let joined = before == lexer.next && before != 0;
        let at = lexer.next + 1;
        let kind = lexer.token()?;
        let end = kind == Kind::End;
        out.push(Token { kind, at, joined });
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    next: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.next).copied()
    }

    fn take_if(&mut self, c: char) -> bool {
        let taken = self.peek() == Some(c);
        self.next += usize::from(taken);
        taken
    }

    fn token(&mut self) -> Result<Kind, ParseError> {
        let at = self.next + 1;
        let Some(c) = self.peek() else { return Ok(Kind::End) };
        if is_word(c) && c != '-' {
            return Ok(self.word());
        }
        self.next += 1;
        Ok(match c {
            '(' => Kind::Open,
            ')' => Kind::Close,
            '.' => Kind::Dot,
            '-' => Kind::Minus,
            ':' => Kind::Op(Op::Has),
            '=' => Kind::Op(Op::Eq),
            '<' if self.take_if('=') => Kind::Op(Op::Le),
            '<' => Kind::Op(Op::Lt),
            '>' if self.take_if('=') => Kind::Op(Op::Ge),
            '>' => Kind::Op(Op::Gt),
            '!' if self.take_if('=') => Kind::Op(Op::Ne),
            '"' | '\'' => self.quoted(c, at)?,
            c => return error(at, format!("unexpected character `{}`", c.escape_default())),
        })
    }

    fn word(&mut self) -> Kind {
        let start = self.next;
        while self.peek().is_some_and(is_word) {
            self.next += 1;
        }
        Kind::Word(self.chars.get(start..self.next).unwrap_or_default().iter().collect())
    }

    fn quoted(&mut self, quote: char, at: usize) -> Result<Kind, ParseError> {
        let (mut text, mut stars) = (Vec::new(), Vec::new());
        loop {
            let Some(c) = self.peek() else { return error(at, "the quoted text has no end") };
            self.next += 1;
            match c {
                c if c == quote => break,
                '\\' => match self.peek() {
                    Some(e @ ('"' | '\'' | '\\' | '*')) => {
                        self.next += 1;
                        text.push(e);
                    }
                    _ => {
                        return error(
                            self.next,
                            "a backslash may only stand before a quote, a backslash or `*`",
                        );
                    }
                },
                c => {
                    if c == '*' {
                        stars.push(text.len());
                    }
                    text.push(c);
                }
            }
        }
        let (text, wildcard) = strip(&text, &stars).map_or_else(|problem| error(at, problem), Ok)?;
        Ok(Kind::Quoted(text, wildcard))
    }
}

/// A bare word as a literal: text and wildcard.
pub(super) fn wildcard(word: &str) -> Result<(String, Wildcard), &'static str> {
    let text: Vec<char> = word.chars().collect();
    let stars: Vec<usize> = text.iter().enumerate().filter(|(_, c)| **c == '*').map(|(i, _)| i).collect();
    strip(&text, &stars)
}

fn strip(text: &[char], stars: &[usize]) -> Result<(String, Wildcard), &'static str> {
    let last = text.len().wrapping_sub(1);
    if stars.iter().any(|i| *i != 0 && *i != last) {
        return Err("a wildcard `*` may only stand at the begin or the end of a value");
    }
    let (first, end) = (stars.contains(&0), stars.contains(&last));
    let (from, to, wildcard) = match (first, end) {
        (true, true) if text.len() <= 2 => (0, 0, Wildcard::Any),
        (true, true) => (1, last, Wildcard::Contains),
        (true, false) => (1, text.len(), Wildcard::Suffix),
        (false, true) => (0, last, Wildcard::Prefix),
        (false, false) => (0, text.len(), Wildcard::None),
    };
    Ok((text.get(from..to).unwrap_or_default().iter().collect(), wildcard))
}

fn is_word(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"()\"'\\<>=!:.,".contains(c)
}

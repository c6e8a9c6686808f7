//! Tokens → tree, by recursive descent. The grammar is that of AIP-160.

use super::lexer::{Kind, Token, tokens, wildcard};
use super::{Filter, Literal, MAX_DEPTH, MAX_TERMS, Op, ParseError, Wildcard, error};

pub(super) fn parse(text: &str) -> Result<Filter, ParseError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, terms: 0 };
    if parser.peek().kind == Kind::End {
        return Ok(Filter::And(Vec::new()));
    }
    let filter = parser.expression(0)?;
    match &parser.peek().kind {
        Kind::End => Ok(filter),
        Kind::Close => error(parser.peek().at, "`)` without `(`"),
        _ => error(parser.peek().at, "unexpected text after the end of the filter"),
    }
}

static END: Token = Token { kind: Kind::End, at: 1, joined: false };

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    terms: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a Token {
        self.tokens.get(self.next).or(self.tokens.last()).unwrap_or(&END)
    }

    fn take(&mut self) -> &'a Token {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn word_is(&self, word: &str) -> bool {
        matches!(&self.peek().kind, Kind::Word(w) if w == word)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let taken = self.word_is(word);
        self.next += usize::from(taken);
        taken
    }

    /// `factor {[AND] factor}`
    fn expression(&mut self, depth: usize) -> Result<Filter, ParseError> {
        let mut items = Vec::new();
        loop {
            push(&mut items, self.factor(depth)?, true);
            let and = self.take_word("AND");
            if !and && matches!(self.peek().kind, Kind::End | Kind::Close | Kind::Op(_) | Kind::Dot) {
                return Ok(single(items, Filter::And));
            }
        }
    }

    /// `term {OR term}`
    fn factor(&mut self, depth: usize) -> Result<Filter, ParseError> {
        let mut items = Vec::new();
        loop {
            push(&mut items, self.term(depth)?, false);
            if !self.take_word("OR") {
                return Ok(single(items, Filter::Or));
            }
        }
    }

    /// `[NOT | -] ( restriction | "(" expression ")" )`
    fn term(&mut self, depth: usize) -> Result<Filter, ParseError> {
        let at = self.peek().at;
        if depth > MAX_DEPTH {
            return error(at, format!("nested more than {MAX_DEPTH} deep"));
        }
        if self.take_word("NOT") {
            return Ok(Filter::Not(Box::new(self.term(depth + 1)?)));
        }
        match self.peek().kind {
            Kind::Minus => {
                self.next += 1;
                if !self.peek().joined {
                    return error(at, "`-` must stand directly before what it negates");
                }
                Ok(Filter::Not(Box::new(self.term(depth + 1)?)))
            }
            Kind::Open => {
                self.next += 1;
                let inner = self.expression(depth + 1)?;
                match self.take().kind {
                    Kind::Close => Ok(inner),
                    _ => error(at, "`(` without `)`"),
                }
            }
            _ => self.restriction(),
        }
    }

    fn restriction(&mut self) -> Result<Filter, ParseError> {
        let first = self.peek();
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return error(first.at, format!("more than {MAX_TERMS} terms"));
        }
        if let Kind::Word(word) = &first.kind
            && matches!(word.as_str(), "AND" | "OR")
        {
            return error(first.at, format!("`{word}` must stand between two terms"));
        }
        let mut path = vec![self.segment()?];
        while self.peek().kind == Kind::Dot && self.peek().joined {
            self.next += 1;
            if !self.peek().joined {
                return error(self.peek().at, "a field name must follow `.`");
            }
            path.push(self.segment()?);
        }
        match self.peek().kind {
            Kind::Op(op) => {
                self.next += 1;
                if let Some(bad) = path.iter().find(|p| p.is_empty() || p.contains('*')) {
                    return error(first.at, format!("`{bad}` is not a field name"));
                }
                let value = self.literal(op)?;
                Ok(Filter::Restriction { path, op, value })
            }
            Kind::Open if self.peek().joined => error(first.at, "functions are not supported"),
            _ => Ok(Filter::Global(path.join("."))),
        }
    }

    fn segment(&mut self) -> Result<String, ParseError> {
        let token = self.take();
        match &token.kind {
            Kind::Word(word) => Ok(word.clone()),
            Kind::Quoted(text, Wildcard::None) => Ok(text.clone()),
            Kind::Quoted(..) => error(token.at, "a wildcard may only stand at the right of a comparison"),
            Kind::End => error(token.at, "the filter ends where a term is expected"),
            _ => error(token.at, "a field name or a text is expected"),
        }
    }

    fn literal(&mut self, op: Op) -> Result<Literal, ParseError> {
        let token = self.take();
        let at = token.at;
        let literal = match &token.kind {
            Kind::Quoted(value, wildcard) => Literal::Text { value: value.clone(), wildcard: *wildcard },
            Kind::Word(word) if !matches!(word.as_str(), "AND" | "OR" | "NOT") => {
                let raw = self.rest_of_literal(word.clone());
                bare(&raw).map_or_else(|problem| error(at, problem), Ok)?
            }
            Kind::Minus => match (&self.peek().kind, self.peek().joined) {
                (Kind::Word(word), true) => {
                    self.next += 1;
                    let raw = self.rest_of_literal(format!("-{word}"));
                    bare(&raw).map_or_else(|problem| error(at, problem), Ok)?
                }
                _ => return error(at, "a value is expected"),
            },
            Kind::Open => return error(at, "parentheses are not supported at the right of a comparison"),
            _ => return error(at, format!("a value is expected after `{}`", op.as_str())),
        };
        if literal.wildcard() != Wildcard::None && !matches!(op, Op::Eq | Op::Ne | Op::Has) {
            return error(at, format!("a wildcard cannot be used with `{}`", op.as_str()));
        }
        Ok(literal)
    }

    /// Joins what belongs to a bare literal such as `1.5` or `example.com`.
    fn rest_of_literal(&mut self, mut raw: String) -> String {
        while self.peek().kind == Kind::Dot && self.peek().joined {
            match self.tokens.get(self.next + 1) {
                Some(Token { kind: Kind::Word(word), joined: true, .. }) => {
                    raw.push('.');
                    raw.push_str(word);
                    self.next += 2;
                }
                _ => break,
            }
        }
        raw
    }
}

fn bare(raw: &str) -> Result<Literal, &'static str> {
    match raw {
        "true" => return Ok(Literal::Bool(true)),
        "false" => return Ok(Literal::Bool(false)),
        "null" => return Ok(Literal::Null),
        _ => {}
    }
    let numeric = raw.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
    if let (true, Ok(value)) = (numeric, raw.parse::<f64>())
        && value.is_finite()
    {
        return Ok(Literal::Number { value, raw: raw.to_owned() });
    }
    let (value, wildcard) = wildcard(raw)?;
    Ok(Literal::Text { value, wildcard })
}

/// Adds an item; a conjunction in a conjunction becomes part of it, and likewise for a disjunction.
fn push(items: &mut Vec<Filter>, item: Filter, and: bool) {
    match item {
        Filter::And(inner) if and => items.extend(inner),
        Filter::Or(inner) if !and => items.extend(inner),
        item => items.push(item),
    }
}

fn single(mut items: Vec<Filter>, many: fn(Vec<Filter>) -> Filter) -> Filter {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        Some(last) => {
            items.push(last);
            many(items)
        }
        None => many(items),
    }
}

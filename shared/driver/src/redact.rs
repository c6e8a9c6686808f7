use std::ops::Range;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::LogStream;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Secrets shorter than this are not searched for: they would mask half of every log line.
const SHORTEST: usize = 4;

/// Replaces known secrets in text. Lines of a multi-line secret (a key in PEM) are masked one by one too, because
/// programs log them so; so is the password of an address, since programs log addresses in parts. Every byte that
/// belongs to a secret is masked, also where secrets overlap.
///
/// What comes in pieces goes through a [`RedactedStream`]: a piece may end within a secret.
#[derive(Clone)]
pub struct Redactor {
    known: Arc<Known>,
}

struct Known {
    /// The longest first.
    needles: Vec<SecretString>,
    /// The bytes that a needle begins with.
    begins: [bool; 256],
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.known.needles.len()).finish()
    }
}

impl Redactor {
    /// For these secrets.
    #[must_use]
    pub fn new(secrets: &[SecretString]) -> Self {
        let mut needles: Vec<String> = Vec::new();
        for secret in secrets {
            let text = secret.expose_secret();
            needles.push(text.to_owned());
            needles.extend(text.lines().map(str::trim).map(str::to_owned));
            needles.extend(password(text).map(str::to_owned));
        }
        needles.retain(|needle| needle.len() >= SHORTEST);
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        let mut begins = [false; 256];
        for byte in needles.iter().filter_map(|needle| needle.bytes().next()) {
            begins[usize::from(byte)] = true;
        }
        let needles = needles.into_iter().map(SecretString::from).collect();
        Self { known: Arc::new(Known { needles, begins }) }
    }

    /// Whether there is nothing to replace.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.needles.is_empty()
    }

    /// Text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        // Needles are text, so that what is left between them is.
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// Bytes without secrets; bytes that are not UTF-8 are kept as they are. For a whole, not for a piece of a stream.
    #[must_use]
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.stream();
        let mut out = stream.push(bytes);
        out.extend(stream.finish());
        out
    }

    /// The same for what comes in pieces.
    #[must_use]
    pub fn stream(&self) -> RedactedStream {
        RedactedStream { redactor: self.clone(), held: Vec::new(), masked: 0 }
    }

    fn needles(&self) -> impl Iterator<Item = &[u8]> {
        self.known.needles.iter().map(|needle| needle.expose_secret().as_bytes())
    }

    /// Where secrets stand, those that overlap taken together, in order. The first `masked` bytes belong to one.
    fn spans(&self, bytes: &[u8], masked: usize) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        if masked > 0 {
            spans.push(0..masked);
        }
        let begins = |at: &usize| self.known.begins[usize::from(bytes[*at])];
        for at in (0..bytes.len()).filter(begins) {
            // The longest that stands here covers the others.
            let Some(needle) = self.needles().find(|needle| bytes[at..].starts_with(needle)) else {
                continue;
            };
            let end = at + needle.len();
            match spans.last_mut() {
                Some(last) if at < last.end => last.end = last.end.max(end),
                _ => spans.push(at..end),
            }
        }
        spans
    }

    /// Where a secret may have begun of which the rest has not come; the end when there is none.
    fn open(&self, bytes: &[u8]) -> usize {
        let longest = self.needles().next().map_or(0, <[u8]>::len);
        let from = bytes.len().saturating_sub(longest.saturating_sub(1));
        let mut places = from..bytes.len();
        let begun = |at: &usize| {
            let rest = &bytes[*at..];
            let mut longer = self.needles().take_while(|needle| needle.len() > rest.len());
            self.known.begins[usize::from(rest[0])] && longer.any(|needle| needle.starts_with(rest))
        };
        places.find(begun).unwrap_or(bytes.len())
    }

    /// A JSON value without secrets, in keys and strings.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.value(item)).collect()),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(key, item)| (self.text(key), self.value(item))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// The password as it stands in an address (RFC 3986, userinfo).
fn password(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    Some(user.split_once(':')?.1)
}

/// Takes secrets out of what comes in pieces, wherever it is cut. It keeps back what may be the beginning of a secret,
/// and nothing else.
pub struct RedactedStream {
    redactor: Redactor,
    held: Vec<u8>,
    /// So many of the held bytes belong to a secret whose mask was given out already.
    masked: usize,
}

impl std::fmt::Debug for RedactedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedactedStream").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl RedactedStream {
    /// Takes a piece; gives what can be told by now.
    #[must_use = "it is not given again"]
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let open = self.redactor.open(&self.held);
        self.give(open)
    }

    /// Nothing more comes: gives the rest.
    #[must_use = "it is not given again"]
    pub fn finish(&mut self) -> Vec<u8> {
        self.give(self.held.len())
    }

    /// Gives the held bytes before `until`. No secret begins before it that does not end within what is held.
    fn give(&mut self, until: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(until);
        let mut at = 0;
        // The mask of the first one was given before.
        let mut told = self.masked > 0;
        for span in self.redactor.spans(&self.held, self.masked) {
            if !std::mem::take(&mut told) {
                if span.start >= until {
                    break;
                }
                out.extend_from_slice(&self.held[at..span.start]);
                out.extend_from_slice(MASK.as_bytes());
            }
            at = span.end;
        }
        self.masked = at.saturating_sub(until);
        out.extend_from_slice(self.held.get(at..until).unwrap_or_default());
        self.held.drain(..until);
        out
    }
}

/// Log output of a call, stream by stream, without secrets.
#[derive(Debug)]
pub struct RedactedLog {
    streams: [(LogStream, RedactedStream); 3],
}

impl RedactedLog {
    /// Without the secrets that the redactor knows.
    #[must_use]
    pub fn new(redactor: &Redactor) -> Self {
        let streams = [LogStream::Stdout, LogStream::Stderr, LogStream::System];
        Self { streams: streams.map(|stream| (stream, redactor.stream())) }
    }

    /// Takes a piece of a stream; gives what can be told of that stream by now.
    #[must_use = "it is not given again"]
    pub fn push(&mut self, stream: LogStream, bytes: &[u8]) -> Vec<u8> {
        let mut streams = self.streams.iter_mut();
        let found = streams.find(|(known, _)| *known == stream);
        found.map(|(_, redacted)| redacted.push(bytes)).unwrap_or_default()
    }

    /// Nothing more comes: gives the rest of each stream that has one.
    #[must_use = "it is not given again"]
    pub fn finish(&mut self) -> Vec<(LogStream, Vec<u8>)> {
        let rest = self.streams.iter_mut().map(|(stream, redacted)| (*stream, redacted.finish()));
        rest.filter(|(_, rest)| !rest.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[test]
    fn secrets_are_masked_in_text_bytes_and_values() {
        let redactor =
            Redactor::new(&[SecretString::from("hunter22"), SecretString::from("line-one\nline-two")]);
        assert_eq!(redactor.text("a hunter22 b"), "a *** b");
        assert_eq!(redactor.bytes(b"\xffhunter22\xff"), b"\xff***\xff");
        assert_eq!(redactor.text("has line-two in it"), "has *** in it");
        assert_eq!(
            redactor.value(&serde_json::json!({"hunter22": ["xhunter22"]})),
            serde_json::json!({"***": ["x***"]})
        );
    }

    #[test]
    fn the_password_of_an_address_is_masked_alone() {
        let redactor = Redactor::new(&[SecretString::from("postgres://joe:pass@word@host:5432/db?a=b@c")]);
        assert_eq!(redactor.text("user joe, password pass@word"), "user joe, password ***");
        for other in ["postgres://host/joe:name@db", "postgres://joe@host/db", "no:address@all"] {
            let redactor = Redactor::new(&[SecretString::from(other)]);
            assert_eq!(redactor.text("joe name address"), "joe name address");
        }
    }

    #[test]
    fn secrets_that_overlap_are_masked_together() {
        let redactor = Redactor::new(&["abcd", "cdefgh", "dede"].map(SecretString::from));
        assert_eq!(redactor.text("xabcdefghx abcdede abcdabcd"), "x***x *** ******");
        assert_eq!(redactor.text("abc"), "abc");
    }

    #[test]
    fn what_cannot_belong_to_a_secret_is_not_kept_back() {
        let mut stream = Redactor::new(&[SecretString::from("first line\nsecond line")]).stream();
        assert_eq!(stream.push(b"started\nfir"), b"started\n");
        assert_eq!(stream.push(b"e\nfirst line\nsecond "), b"fire\n");
        assert_eq!(stream.push(b"line\nhalf: first"), b"***\nhalf: ");
        assert_eq!(stream.finish(), b"first");
    }

    /// A secret that repeats itself may overlap itself without end; what is kept back stays short.
    #[test]
    fn a_stream_holds_less_than_the_longest_secret() {
        let mut stream = Redactor::new(&[SecretString::from("aaaaaaaa")]).stream();
        let mut out = Vec::new();
        for _ in 0..1_000 {
            out.extend(stream.push(b"aaa"));
            assert!(stream.held.len() < 8, "{}", stream.held.len());
        }
        out.extend(stream.finish());
        assert_eq!(out, b"***");
    }

    proptest! {
        /// Any secret at any place in any pieces: nothing of it is given out, and all else is, as it was.
        #[test]
        fn no_secret_gets_through_however_the_stream_is_cut(
            secrets in vec("[ab\n]{4,12}", 1..4),
            noise in vec("[abc\n]{0,9}", 1..12),
            picks in vec((any::<bool>(), any::<Index>()), 1..12),
            cuts in vec(any::<Index>(), 0..12),
        ) {
            let sealed: Vec<SecretString> = secrets.iter().map(|text| SecretString::from(text.as_str())).collect();
            let redactor = Redactor::new(&sealed);
            let pieces = noise.iter().zip(&picks).map(|(noise, (with, which))| {
                format!("{noise}{}", if *with { which.get(&secrets).as_str() } else { "" })
            });
            let whole: String = pieces.collect();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            places.extend([0, whole.len()]);
            places.sort_unstable();
            let mut stream = redactor.stream();
            let mut out = Vec::new();
            for cut in places.windows(2) {
                out.extend(stream.push(&whole.as_bytes()[cut[0]..cut[1]]));
            }
            out.extend(stream.finish());
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(&out, &redactor.text(&whole));
            for secret in &secrets {
                prop_assert!(!out.contains(secret.as_str()), "{:?} in {:?}", secret, out);
            }
            // What is left is what no secret touches.
            let mut rest = whole.as_str();
            for (index, part) in out.split(MASK).enumerate() {
                let at = rest.find(part).filter(|at| index > 0 || *at == 0);
                prop_assert!(at.is_some(), "{:?} is not of {:?}", part, whole);
                rest = &rest[at.unwrap_or_default() + part.len()..];
            }
        }
    }

    #[test]
    fn short_values_are_left_alone() {
        assert!(Redactor::new(&[SecretString::from("a")]).is_empty());
    }
}

//! Digests, and the one byte form of a JSON value that they are taken over.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

/// SHA-256 as 32 bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// SHA-256 as every answer, record and document names it: the text form of a [`Digest`].
pub fn sha256_digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Whether a text has the form of [`sha256_digest`].
pub fn is_sha256_digest(text: &str) -> bool {
    text.parse::<Digest>().is_ok()
}

/// What stands before the hex digits of a SHA-256, so that another algorithm can come beside it.
pub const SHA256_PREFIX: &str = "sha256:";

/// A SHA-256 that names its algorithm: as text and in JSON `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a text is no [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `sha256:` and 64 lower-case hexadecimal digits")]
pub struct InvalidDigest;

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    /// A digest that was computed elsewhere, for example over a stream.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 lower-case hex digits, as file names have them.
    pub fn from_hex(text: &str) -> Result<Self, InvalidDigest> {
        let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok().filter(|()| lower).ok_or(InvalidDigest)?;
        Ok(Self(bytes))
    }

    /// The 64 hex digits alone, for names of files.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SHA256_PREFIX}{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        text.strip_prefix(SHA256_PREFIX).ok_or(InvalidDigest).and_then(Self::from_hex)
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// What a place that was used with a key remembers of it: the same for the same key and name, and nothing that tells
/// the key.
pub fn key_check(name: &str, key: &[u8; 32]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hex::encode(hmac::sign(&key, format!("pavior key check v1: {name}").as_bytes()))
}

/// The canonical JSON form (RFC 8785): no spaces, keys in the order of their UTF-16 code units, numbers as in
/// ECMAScript.
///
/// One intended difference: integers beyond 2^53 are written exactly rather than rounded to a double, so that two
/// different values never share a digest.
pub fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = String::new();
    write_value(value, &mut out);
    out.into_bytes()
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_value(item, out);
            }
            out.push('}');
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn write_number(number: &Number, out: &mut String) {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(n), _, _) => out.push_str(&n.to_string()),
        (_, Some(n), _) => out.push_str(&n.to_string()),
        (_, _, Some(n)) => out.push_str(&ecmascript_number(n)),
        // Only with serde_json's arbitrary_precision, which we do not use.
        _ => out.push_str(&number.to_string()),
    }
}

/// `Number::toString` of ECMAScript (ECMA-262, 6.1.6.1.20).
fn ecmascript_number(n: f64) -> String {
    if n == 0.0 {
        return "0".to_owned();
    }
    // `{:e}` gives the shortest digits that read back as the same number, as ECMAScript asks.
    let shortest = format!("{:e}", n.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let k = digits.len() as i32;
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let sign = if n < 0.0 { "-" } else { "" };
    if (k..=21).contains(&point) {
        format!("{sign}{digits}{}", "0".repeat((point - k) as usize))
    } else if (1..=21).contains(&point) {
        let (whole, fraction) = digits.split_at(point as usize);
        format!("{sign}{whole}.{fraction}")
    } else if (-5..=0).contains(&point) {
        format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else {
        let e = point - 1;
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{dot}{rest}e{}{}", if e < 0 { "-" } else { "+" }, e.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn sha256_of_abc() {
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_digest_names_its_algorithm() {
        let wanted = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_digest(b"abc"), wanted);
        assert!(is_sha256_digest(wanted));
        let upper = wanted.replace("ba78", "BA78");
        for other in ["", "sha256:", &wanted[7..], &wanted[..70], &upper, &wanted.replace("256", "512")] {
            assert!(!is_sha256_digest(other), "{other}");
        }
        let digest: Digest = wanted.parse().unwrap();
        assert_eq!((digest, digest.hex()), (Digest::of(b"abc"), wanted[7..].to_owned()));
        assert_eq!(Digest::from_hex(&upper[7..]), Err(InvalidDigest));
        assert_eq!(serde_json::to_value(digest).unwrap(), json!(wanted));
        assert_eq!(serde_json::from_value::<Digest>(json!(wanted)).unwrap(), digest);
        let refused = serde_json::from_value::<Digest>(json!(&wanted[7..])).unwrap_err();
        assert_eq!(refused.to_string(), "must be `sha256:` and 64 lower-case hexadecimal digits");
    }

    #[test]
    fn keys_are_sorted_by_utf16_units_and_controls_escaped() {
        // The example of RFC 8785, section 3.2.3: U+1F600 (a surrogate pair) comes before U+FB33.
        let value =
            json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        let text = String::from_utf8(canonical_json(&value)).unwrap();
        assert_eq!(
            text,
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
        assert_eq!(canonical_json(&json!("\u{1}\u{7f}/")), "\"\\u0001\u{7f}/\"".as_bytes());
    }

    #[test]
    fn numbers_are_written_as_in_ecmascript() {
        // From RFC 8785, appendix B.
        let table = [
            (0.0, "0"),
            (-0.0, "0"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (9007199254740992.0, "9007199254740992"),
            (295147905179352830000.0, "295147905179352830000"),
            (9.999999999999997e22, "9.999999999999997e+22"),
            (1e23, "1e+23"),
            (999999999999999700000.0, "999999999999999700000"),
            (1e21, "1e+21"),
            (0.000001, "0.000001"),
            (9.999999999999997e-7, "9.999999999999997e-7"),
            (333333333.3333333, "333333333.3333333"),
            (-0.0000033333333333333333, "-0.0000033333333333333333"),
            (4.5, "4.5"),
            (100.0, "100"),
        ];
        for (number, want) in table {
            assert_eq!(String::from_utf8(canonical_json(&json!(number))).unwrap(), want);
        }
        assert_eq!(canonical_json(&json!(u64::MAX)), b"18446744073709551615");
    }

    proptest! {
        #[test]
        fn canonical_form_reads_back_as_the_same_number(n in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            prop_assert_eq!(ecmascript_number(n).parse::<f64>().unwrap(), n);
        }

        #[test]
        fn canonical_form_does_not_depend_on_key_order(a in ".{0,8}", b in ".{0,8}") {
            prop_assume!(a != b);
            let one: Value = [(a.clone(), json!(1)), (b.clone(), json!(2))].into_iter().collect();
            let two: Value = [(b, json!(2)), (a, json!(1))].into_iter().collect();
            prop_assert_eq!(canonical_json(&one), canonical_json(&two));
        }
    }
}

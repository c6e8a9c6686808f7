use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Secrets shorter than this are not searched for: they would mask half of every log line.
const SHORTEST: usize = 4;

/// Replaces known secrets in text. Lines of a multi-line secret (a key in PEM) are masked one by one too, because
/// logs are read line by line; so is the password of an address, since programs log addresses in parts.
#[derive(Clone, Default)]
pub struct Redactor {
    needles: Vec<SecretString>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").field("secrets", &self.needles.len()).finish()
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
        // The longest first, so that a secret that contains another leaves no tail.
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles: needles.into_iter().map(SecretString::from).collect() }
    }

    /// Whether there is nothing to replace.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for needle in &self.needles {
            if out.contains(needle.expose_secret()) {
                out = out.replace(needle.expose_secret(), MASK);
            }
        }
        out
    }

    /// Bytes without secrets; bytes that are not UTF-8 are kept as they are.
    #[must_use]
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for needle in &self.needles {
            out = replace(&out, needle.expose_secret().as_bytes());
        }
        out
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

fn replace(haystack: &[u8], needle: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(haystack.len());
    let mut rest = haystack;
    while let Some(at) = rest.windows(needle.len()).position(|window| window == needle) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(MASK.as_bytes());
        rest = &rest[at + needle.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
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
    fn short_values_are_left_alone() {
        assert!(Redactor::new(&[SecretString::from("a")]).is_empty());
    }
}

//! The small texts of HTTP: percent-encoding, queries, media types, lists in headers.

use http::{HeaderMap, HeaderName, header};

/// Text whose escapes cannot be read, or that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Undoes percent-encoding (RFC 3986). With `keep_slash`, an escaped slash stays escaped: it does not divide.
pub(crate) fn decode(text: &str, keep_slash: bool) -> Result<String, Malformed> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let [high, low, rest @ ..] = left else { return Err(Malformed) };
        left = rest;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(Malformed);
        let byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).map_err(|_| Malformed)?;
        if byte == b'/' && keep_slash {
            decoded.extend_from_slice(b"%2F");
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).map_err(|_| Malformed)
}

/// The pairs of a query, in order; a key without `=` has an empty value.
pub(crate) fn query(text: &str) -> Result<Vec<(String, String)>, Malformed> {
    let plain = |part: &str| decode(&part.replace('+', " "), false);
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((plain(key)?, plain(value)?))
        })
        .collect()
}

/// The media type of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MediaType {
    /// Lower case, without parameters.
    pub(crate) name: String,
    /// False when it says to be in another encoding than UTF-8.
    pub(crate) utf8: bool,
}

impl MediaType {
    /// That of `content-type`; `None` without one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("unreadable");
        let mut parts = text.split(';');
        let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let utf8 = parts.filter_map(|part| part.split_once('=')).all(|(key, value)| {
            !key.trim().eq_ignore_ascii_case("charset")
                || ["utf-8", "utf8"].contains(&value.trim().trim_matches('"').to_ascii_lowercase().as_str())
        });
        Some(Self { name, utf8 })
    }
}

/// The members of a list header such as `accept` or `accept-encoding` that are not refused with `q=0`, lower case,
/// without parameters, most wanted first.
pub(crate) fn wanted(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let mut found = Vec::new();
    for member in headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')) {
        let mut parts = member.split(';');
        let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let weight =
            parts.filter_map(|part| part.trim().strip_prefix("q=")?.trim().parse::<f32>().ok()).next();
        let weight = weight.unwrap_or(1.0);
        if !name.is_empty() && weight > 0.0 {
            found.push((name, weight));
        }
    }
    found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    found.into_iter().map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_slashes_stay_what_they_are() {
        assert_eq!(decode("a%20b%C3%A4", false).as_deref(), Ok("a bä"));
        assert_eq!(decode("a%2fb", false).as_deref(), Ok("a/b"));
        assert_eq!(decode("a%2fb/c", true).as_deref(), Ok("a%2Fb/c"));
        for text in ["%", "%2", "%zz", "%+1", "%ff"] {
            assert_eq!(decode(text, false), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let read = query("a=1&a=2&b=x+y%3D&c&&d.e=").unwrap();
        assert_eq!(read, [pair("a", "1"), pair("a", "2"), pair("b", "x y="), pair("c", ""), pair("d.e", "")]);
        assert_eq!(query("a=%ff"), Err(Malformed));
    }

    #[test]
    fn media_types_and_lists_are_read_whatever_their_case() {
        let headers = |name: HeaderName, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
        for (text, name, utf8) in [
            ("application/json", "application/json", true),
            ("Application/JSON; Charset=\"UTF-8\"", "application/json", true),
            ("application/json;charset=latin1", "application/json", false),
            ("application/json; x=y", "application/json", true),
        ] {
            let read = MediaType::of(&headers(header::CONTENT_TYPE, text)).unwrap();
            assert_eq!((read.name.as_str(), read.utf8), (name, utf8), "{text}");
        }
        assert_eq!(MediaType::of(&HeaderMap::new()), None);
        let accept = headers(header::ACCEPT, "application/json;q=0.5, TEXT/event-stream, a/b;q=0");
        assert_eq!(wanted(&accept, &header::ACCEPT), ["text/event-stream", "application/json"]);
    }
}

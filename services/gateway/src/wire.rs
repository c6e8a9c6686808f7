//! Reads one string out of an encoded message without decoding the rest.
//!
//! What is found here is what policy decides on, so it must be what the service will see: the rules of the protobuf
//! encoding for repeated occurrences (the last value of a string wins, occurrences of a message are merged) are
//! followed, and whatever a decoder could read in another way is refused.

/// A message that is not valid protobuf, or not unambiguously so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The value of the string field at `path` (field numbers, outermost first); `None` where it is not set.
pub(crate) fn string_at<'a>(mut message: &'a [u8], path: &[u32]) -> Result<Option<&'a str>, Malformed> {
    let Some((wanted, deeper)) = path.split_first() else { return Err(Malformed) };
    let mut found = None;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        if key > u64::from(u32::MAX) {
            return Err(Malformed);
        }
        let (number, wire_type) = (key >> 3, key & 7);
        if number == 0 {
            return Err(Malformed);
        }
        let wanted = number == u64::from(*wanted);
        match wire_type {
            BYTES => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Malformed)?;
                let value = take(&mut message, length)?;
                if !wanted {
                    continue;
                }
                if deeper.is_empty() {
                    found = Some(std::str::from_utf8(value).map_err(|_| Malformed)?);
                } else if let Some(inner) = string_at(value, deeper)? {
                    found = Some(inner);
                }
            }
            // The wanted field in another encoding: decoders disagree about it.
            _ if wanted => return Err(Malformed),
            VARINT => drop(varint(&mut message)?),
            FIXED64 => drop(take(&mut message, 8)?),
            FIXED32 => drop(take(&mut message, 4)?),
            // Groups do not exist in proto3; nothing else is an encoding.
            _ => return Err(Malformed),
        }
    }
    Ok(found)
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (value, rest) = message.split_at_checked(length).ok_or(Malformed)?;
    *message = rest;
    Ok(value)
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in 0..10 {
        let (byte, rest) = message.split_first().ok_or(Malformed)?;
        *message = rest;
        // The tenth byte has room for one bit only.
        if shift == 9 && *byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use pavior_proto::pavior::governance::v1::{Mixin, Rule};
    use prost::Message;

    use super::*;

    fn rule(action: &str) -> Vec<u8> {
        Rule { action: action.to_owned(), access: 2, facts: true, ..Default::default() }.encode_to_vec()
    }

    fn mixin(rules: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = Mixin { method: "m".to_owned(), rule: None }.encode_to_vec();
        for action in rules {
            let rule =
                Rule { action: action.unwrap_or_default().to_owned(), facts: true, ..Default::default() };
            bytes.extend(Mixin { method: String::new(), rule: Some(rule) }.encode_to_vec());
        }
        bytes
    }

    #[test]
    fn a_string_is_found_at_any_depth_and_the_last_one_counts() {
        assert_eq!(string_at(&rule("a"), &[1]), Ok(Some("a")));
        assert_eq!(string_at(&rule(""), &[1]), Ok(None));
        let twice = [rule("a"), rule("b")].concat();
        assert_eq!(string_at(&twice, &[1]), Ok(Some("b")));
        assert_eq!(string_at(&mixin(&[Some("a")]), &[2, 1]), Ok(Some("a")));
        // Occurrences are merged, as every decoder does it.
        for rules in [vec![Some("a"), Some("b")], vec![Some("a"), None], vec![None, Some("b")], vec![None]] {
            let bytes = mixin(&rules);
            let decoded = Mixin::decode(bytes.as_slice()).unwrap();
            let expected = decoded.rule.map(|rule| rule.action).filter(|action| !action.is_empty());
            assert_eq!(string_at(&bytes, &[2, 1]), Ok(expected.as_deref()), "{rules:?}");
        }
    }

    #[test]
    fn what_decoders_could_read_differently_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("cut off", &[0x0a, 5, b'a']),
            ("length beyond the end", &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            ("endless varint", &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            ("varint of 65 bits", &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            ("field zero", &[0x02, 0]),
            ("wanted field as a number", &[0x08, 1]),
            ("group", &[0x0b, 0x0c]),
            ("other group", &[0x1b, 0x1c]),
            ("wire type 7", &[0x17]),
            ("not UTF-8", &[0x0a, 1, 0xff]),
            ("key of 33 bits", &[0x80, 0x80, 0x80, 0x80, 0x10, 0]),
        ];
        for (what, bytes) in cases {
            assert_eq!(string_at(bytes, &[1]), Err(Malformed), "{what}");
        }
        assert_eq!(string_at(&[], &[1]), Ok(None));
        assert_eq!(string_at(&[0x10, 1, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4], &[1]), Ok(None));
    }

    /// Whatever bytes come: where the service's decoder takes the message, it sees the name that was decided on.
    #[test]
    fn the_service_never_sees_another_name_than_policy() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below as u64).unwrap()
        };
        let mut compared = 0;
        for _ in 0..50_000 {
            let mut bytes = mixin(&[Some("aa"), None, Some("b")][..random(4)]);
            for _ in 0..random(4) {
                match random(3) {
                    0 => bytes
                        .insert(random(bytes.len() + 1), [0x0a, 0x12, 0x0b, 0x80, 0xff, 0, 1, 2][random(8)]),
                    1 => drop(bytes.remove(random(bytes.len()))),
                    _ => {
                        let at = random(bytes.len());
                        bytes[at] ^= 1 << random(8);
                    }
                }
            }
            let Ok(decoded) = Mixin::decode(bytes.as_slice()) else { continue };
            for (path, seen) in [
                (&[1][..], decoded.method.clone()),
                (&[2, 1][..], decoded.rule.clone().unwrap_or_default().action),
            ] {
                // What is refused here goes nowhere, so that it does not matter what a decoder makes of it.
                if let Ok(found) = string_at(&bytes, path) {
                    assert_eq!(found.unwrap_or_default(), seen, "{bytes:?}");
                    compared += 1;
                }
            }
        }
        assert!(compared > 1_000, "{compared}");
    }
}

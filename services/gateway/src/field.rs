//! Reads strings out of an encoded message without decoding the rest.
//!
//! What is found here is what policy decides on, so it must be what the service will see: the rules of the protobuf
//! encoding for repeated occurrences (the last value of a string wins, occurrences of a message are merged) are
//! followed, and whatever a decoder could read in another way is refused.

use std::collections::HashMap;

use pavior_core::Fault;
use pavior_rpc::problem::Problem;

/// A message that is not valid protobuf, or not unambiguously so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<Malformed> for Problem {
    fn from(_: Malformed) -> Self {
        Self::invalid_field("", Fault::Syntax, "the message is not valid protobuf")
    }
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The value of the string field at `path` (field numbers, outermost first); `None` where it is not set.
pub(crate) fn string_at<'a>(mut message: &'a [u8], path: &[u32]) -> Result<Option<&'a str>, Malformed> {
    let Some((wanted, deeper)) = path.split_first() else { return Err(Malformed) };
    let mut found = None;
    while !message.is_empty() {
        let (number, wire_type) = key(&mut message)?;
        let wanted = number == u64::from(*wanted);
        match wire_type {
            BYTES => {
                let value = bytes(&mut message)?;
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
            other => skip(&mut message, other)?,
        }
    }
    Ok(found)
}

/// Every value of the repeated string field at `path`, in order. Occurrences of the messages above it are merged.
pub(crate) fn strings_at<'a>(message: &'a [u8], path: &[u32]) -> Result<Vec<&'a str>, Malformed> {
    let values = values_at(message, path)?.into_iter();
    values.map(|value| std::str::from_utf8(value).map_err(|_| Malformed)).collect()
}

/// The map of texts at `path`. Of entries with the same key the last one counts.
pub(crate) fn texts_at(message: &[u8], path: &[u32]) -> Result<HashMap<String, String>, Malformed> {
    let text = |entry, number| Ok(string_at(entry, &[number])?.unwrap_or_default().to_owned());
    values_at(message, path)?.into_iter().map(|entry| Ok((text(entry, 1)?, text(entry, 2)?))).collect()
}

/// Every value with a length of the field at `path`, in order.
fn values_at<'a>(mut message: &'a [u8], path: &[u32]) -> Result<Vec<&'a [u8]>, Malformed> {
    let Some((wanted, deeper)) = path.split_first() else { return Err(Malformed) };
    let mut found = Vec::new();
    while !message.is_empty() {
        let (number, wire_type) = key(&mut message)?;
        let wanted = number == u64::from(*wanted);
        match wire_type {
            BYTES => {
                let value = bytes(&mut message)?;
                match (wanted, deeper.is_empty()) {
                    (false, _) => {}
                    (true, true) => found.push(value),
                    (true, false) => found.extend(values_at(value, deeper)?),
                }
            }
            _ if wanted => return Err(Malformed),
            other => skip(&mut message, other)?,
        }
    }
    Ok(found)
}

/// The value of a boolean field; false where it is not set.
pub(crate) fn flag_at(mut message: &[u8], wanted: u32) -> Result<bool, Malformed> {
    let mut found = false;
    while !message.is_empty() {
        let (number, wire_type) = key(&mut message)?;
        let wanted = number == u64::from(wanted);
        match wire_type {
            VARINT => {
                let value = varint(&mut message)?;
                found = if wanted { value != 0 } else { found };
            }
            _ if wanted => return Err(Malformed),
            BYTES => drop(bytes(&mut message)?),
            other => skip(&mut message, other)?,
        }
    }
    Ok(found)
}

/// The number and the wire type of the next field.
fn key(message: &mut &[u8]) -> Result<(u64, u64), Malformed> {
    let key = varint(message)?;
    if key > u64::from(u32::MAX) || key >> 3 == 0 {
        return Err(Malformed);
    }
    Ok((key >> 3, key & 7))
}

/// A value that brings its length.
fn bytes<'a>(message: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(varint(message)?).map_err(|_| Malformed)?;
    take(message, length)
}

/// A value of any other wire type.
fn skip(message: &mut &[u8], wire_type: u64) -> Result<(), Malformed> {
    match wire_type {
        VARINT => drop(varint(message)?),
        FIXED64 => drop(take(message, 8)?),
        FIXED32 => drop(take(message, 4)?),
        // Groups do not exist in proto3; nothing else is an encoding.
        _ => return Err(Malformed),
    }
    Ok(())
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
        let mut bytes = Mixin { method: "m".to_owned(), ..Default::default() }.encode_to_vec();
        for action in rules {
            let rule =
                Rule { action: action.unwrap_or_default().to_owned(), facts: true, ..Default::default() };
            bytes.extend(Mixin { rule: Some(rule), ..Default::default() }.encode_to_vec());
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
    fn every_value_of_a_repeated_string_is_found() {
        use pavior_proto::pavior::catalog::v1::UpdateEntityRequest;
        let mask = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let update_mask = Some(prost_types::FieldMask { paths });
            UpdateEntityRequest { update_mask, request_id: "r".to_owned(), ..Default::default() }
                .encode_to_vec()
        };
        let twice = [mask(&["owner", "spec"]), mask(&["labels"])].concat();
        let decoded = UpdateEntityRequest::decode(twice.as_slice()).unwrap().update_mask.unwrap().paths;
        assert_eq!(strings_at(&twice, &[2, 1]).unwrap(), decoded);
        assert_eq!(strings_at(&mask(&[]), &[2, 1]), Ok(Vec::new()));
    }

    #[test]
    fn a_map_is_what_a_decoder_makes_of_it() {
        use pavior_proto::pavior::catalog::v1::{Entity, UpdateEntityRequest};
        let of = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let entity = Some(Entity { labels, ..Default::default() });
            UpdateEntityRequest { entity, ..Default::default() }.encode_to_vec()
        };
        let twice = [of(&[("a", "1"), ("b", ""), ("", "x")]), of(&[("a", "2")])].concat();
        let decoded = UpdateEntityRequest::decode(twice.as_slice()).unwrap().entity.unwrap().labels;
        assert_eq!(texts_at(&twice, &[1, 8]).unwrap(), decoded);
        assert_eq!(decoded["a"], "2");
        assert_eq!(texts_at(&[0x0a, 2, 0x40, 1], &[1, 8]), Err(Malformed));
    }

    #[test]
    fn the_last_flag_counts() {
        assert_eq!(flag_at(&rule("a"), 7), Ok(true));
        assert_eq!(flag_at(&[0x0a, 1, b'a', 0x18, 1, 0x18, 0], 3), Ok(false));
        assert_eq!(flag_at(&[0x18, 1, 0x25, 1, 2, 3, 4], 3), Ok(true));
        assert_eq!(flag_at(&[], 3), Ok(false));
        assert_eq!(flag_at(&[0x1a, 0], 3), Err(Malformed));
        assert_eq!(flag_at(&[0x18], 3), Err(Malformed));
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
        for (what, bytes) in cases {
            assert_eq!(strings_at(bytes, &[1]), Err(Malformed), "{what}");
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

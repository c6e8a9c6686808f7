//! `order_by` (AIP-132): `create_time desc, name`.

use super::{ParseError, error};

const MAX_KEYS: usize = 8;
const MAX_LENGTH: usize = 512;

/// Parses an ordering into paths, each with whether it is descending. Empty text gives no keys. No key may stand
/// twice, and there are at most eight.
pub fn order_by(text: &str) -> Result<Vec<(Vec<String>, bool)>, ParseError> {
    let mut keys: Vec<(Vec<String>, bool)> = Vec::new();
    if text.len() > MAX_LENGTH {
        return error(1, format!("the text is longer than {MAX_LENGTH} bytes"));
    }
    if text.trim().is_empty() {
        return Ok(keys);
    }
    let mut position = 1;
    for part in text.split(',') {
        let words: Vec<&str> = part.split_whitespace().collect();
        let (path, descending) = match words.as_slice() {
            [path] | [path, "asc"] => (*path, false),
            [path, "desc"] => (*path, true),
            [] => return error(position, "a field name is expected"),
            _ => return error(position, "a field name may only be followed by `asc` or `desc`"),
        };
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if !path.iter().all(|p| is_field(p)) {
            return error(position, format!("`{}` is not a field name", path.join(".")));
        }
        if keys.iter().any(|(other, _)| *other == path) {
            return error(position, format!("`{}` stands twice", path.join(".")));
        }
        if keys.len() == MAX_KEYS {
            return error(position, format!("more than {MAX_KEYS} fields"));
        }
        keys.push((path, descending));
        position += part.chars().count() + 1;
    }
    Ok(keys)
}

fn is_field(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

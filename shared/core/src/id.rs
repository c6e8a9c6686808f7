//! Ids: the last segments of resource names, and their grammar.

use crate::principal::{EVERYONE, INSTALLATION, RESERVED_ID, is_reserved};

pub(crate) const MAX_ID: usize = 63;
const MAX_USER_ID: usize = 128;
/// What a reference without a resource name calls the groups and users of an organization.
const NO_KINDS: [&str; 2] = ["group", "user"];
const NO_KIND: &str = "cannot be a kind of entities: groups and users are resources of their own";
const NO_GROUP: &str = "is the group of everybody in the organization, which nobody makes";
/// Why an id is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("id `{id}` must {wanted}")]
pub struct IdError {
    /// The id, cut to 100 characters.
    pub id: String,
    /// What is wanted, as a continuation of "must".
    pub wanted: &'static str,
}

/// Checks an id that a user chose: `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`.
pub fn validate_id(id: &str) -> Result<(), IdError> {
    let ok = id.len() <= MAX_ID
        && id.starts_with(is_lower_or_digit)
        && id.ends_with(is_lower_or_digit)
        && id.chars().all(|c| is_lower_or_digit(c) || c == '-');
    let wanted =
        "be 1 to 63 lower-case letters, digits or hyphens, and begin and end with a letter or a digit";
    if ok { Ok(()) } else { Err(IdError { id: shorten(id), wanted }) }
}

/// Checks an id under `collection`. Beside [`validate_id`], `versions` takes a semantic version, and `users`, like
/// `memberships`, which are called like them, also `.`, `_` and `@`. Where the server counts, there is one way to write
/// a number: `revisions` and `records` take whole numbers without leading zeros, and `auditTiles` two of them.
pub fn validate_id_in(collection: &str, id: &str) -> Result<(), IdError> {
    let counted = match collection {
        "users" | "memberships" => return validate_user_id(id),
        "versions" if is_semver(id) => return Ok(()),
        "revisions" | "records" => is_number(id),
        "auditTiles" => id.split_once('-').is_some_and(|(level, index)| is_number(level) && is_number(index)),
        _ => return validate_id(id),
    };
    let wanted = "be a number of at most 18 digits without leading zeros, or two of them for a tile";
    match id.starts_with(|c: char| c.is_ascii_digit()) && !counted && !is_uuid(id) {
        true => Err(IdError { id: shorten(id), wanted }),
        false => validate_id(id),
    }
}

fn is_lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Checks an id that somebody chose for a new resource under `collection`. Nobody is called like a part of the platform,
/// for which they would be taken.
///
/// # Errors
/// What it must be, for people.
pub fn validate_new_id(collection: &str, id: &str) -> Result<(), String> {
    let checked = match collection {
        "users" | "memberships" => validate_user_id(id),
        _ => validate_id(id),
    };
    checked.map_err(|error| error.to_string())?;
    match reserved_in(collection, id) {
        Some(why) => Err(format!("`{id}` {why}")),
        None => Ok(()),
    }
}

/// Why nothing new under `collection` can have an id that is well formed, for people; none where it can.
pub fn reserved_in(collection: &str, id: &str) -> Option<&'static str> {
    match collection {
        "organizations" if id == INSTALLATION => Some(RESERVED_ID),
        "users" | "groups" if is_reserved(id) => Some(RESERVED_ID),
        "groups" if id == EVERYONE => Some(NO_GROUP),
        "kinds" if NO_KINDS.contains(&id) => Some(NO_KIND),
        _ => None,
    }
}

fn validate_user_id(id: &str) -> Result<(), IdError> {
    let ok = id.len() <= MAX_USER_ID
        && id.starts_with(is_lower_or_digit)
        && id.ends_with(is_lower_or_digit)
        && id.chars().all(|c| is_lower_or_digit(c) || "-._@".contains(c));
    let wanted =
        "be 1 to 128 lower-case letters, digits or `-._@`, and begin and end with a letter or a digit";
    if ok { Ok(()) } else { Err(IdError { id: shorten(id), wanted }) }
}

fn is_number(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 18
        && id.bytes().all(|b| b.is_ascii_digit())
        && (id.len() == 1 || !id.starts_with('0'))
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36
        && id.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
}

/// Semantic version 2.0.0 without build metadata: two builds of one version would be two names of one thing.
fn is_semver(id: &str) -> bool {
    let (core, pre) = match id.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (id, None),
    };
    id.len() <= MAX_ID
        && core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| {
            pre.split('.').all(|part| {
                !part.is_empty()
                    && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && (is_number(part) || !part.bytes().all(|b| b.is_ascii_digit()))
            })
        })
}

/// User input for a message: at most 100 characters.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_table() {
        for id in [
            "a",
            "web",
            "a-b",
            "a1",
            "abc-1-2",
            "1a",
            "3scale-api",
            "1st-line",
            "7",
            "007",
            &"a".repeat(63),
            &"1".repeat(63),
        ] {
            assert!(validate_id(id).is_ok(), "{id}");
        }
        for id in [
            "",
            "-a",
            "-1",
            "a-",
            "1-",
            "-",
            "A",
            "1A",
            "a_b",
            "a.b",
            "a/b",
            "ä",
            "٣a",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(validate_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn ids_by_collection_table() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        for (collection, id) in [
            ("versions", "1.2.0"),
            ("versions", "1.2.0-rc.1"),
            ("versions", "3"),
            ("versions", "latest"),
            ("operations", uuid),
            ("users", "alice.b_c@example.com"),
            ("users", "0abc"),
            ("revisions", "12"),
            ("records", "0"),
            ("auditTiles", "0-12"),
            ("auditTiles", "overview"),
            ("projects", "12"),
            ("projects", "3scale-api"),
            ("groups", uuid),
        ] {
            assert!(validate_id_in(collection, id).is_ok(), "{collection}/{id}");
        }
        for (collection, id) in [
            ("versions", "1.2"),
            ("versions", "01.2.3"),
            ("revisions", "012"),
            ("revisions", "1a"),
            ("auditTiles", "0-012"),
            ("versions", "1.2.3+b"),
            ("versions", "1.2.3-"),
            ("versions", "1.2.3-01"),
            ("projects", "1.2.0"),
            ("users", "Alice"),
            ("users", "@alice"),
            ("users", ".."),
            ("records", "007"),
            ("operations", "01890A5D-AC96-774B-BCCE-B302099A8057"),
        ] {
            assert!(validate_id_in(collection, id).is_err(), "{collection}/{id}");
        }
    }

    #[test]
    fn nothing_new_is_called_like_the_platform() {
        let refused = validate_new_id("organizations", "pavior").unwrap_err();
        assert_eq!(refused, "`pavior` is the platform's own name");
    }
}

//! Where things stand whose names come from outside: from callers, and from records that callers named.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// The path below `root` that has one part for each of the names, of which `suffix` ends the last. Nothing where a name
/// would lead elsewhere: an empty one, `.` and `..`, one with a separator, or with a byte that no path holds.
pub(crate) fn below(root: &Path, names: &[&str], suffix: &str) -> Option<PathBuf> {
    let mut path = root.as_os_str().to_owned();
    for name in names {
        let mut parts = Path::new(name).components();
        let is_plain = parts.next() == Some(Component::Normal(OsStr::new(name))) && parts.next().is_none();
        if !is_plain || name.contains('\0') {
            return None;
        }
        path.push(std::path::MAIN_SEPARATOR_STR);
        path.push(name);
    }
    path.push(suffix);
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        let root = Path::new("/data/x");
        assert_eq!(below(root, &["acme", "db-1"], ".db"), Some(PathBuf::from("/data/x/acme/db-1.db")));
        assert_eq!(below(root, &["...", "a b"], ""), Some(PathBuf::from("/data/x/.../a b")));
        for name in ["", ".", "..", "../x", "/etc", "a/b", "a/", "./a", "a\0", "\0"] {
            assert_eq!(below(root, &["acme", name], ".db"), None, "{name:?}");
            assert_eq!(below(root, &[name, "db-1"], ".db"), None, "{name:?}");
        }
    }
}

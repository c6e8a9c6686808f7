//! Entity tags (AIP-154, RFC 9110 section 8.8.3).

use uuid::Uuid;

/// The strong etag of one revision of one resource, with its quotes.
///
/// The uid is in it so that the etag of a deleted resource never fits its successor of the same name.
pub fn etag(uid: Uuid, revision: i64) -> String {
    format!("\"{}-{revision}\"", uid.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_differs_by_uid_and_revision() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(etag(a, 3), "\"00000000000000000000000000000001-3\"");
        assert_ne!(etag(a, 3), etag(b, 3));
        assert_ne!(etag(a, 3), etag(a, 4));
    }
}

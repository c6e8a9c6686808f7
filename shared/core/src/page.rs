//! Page sizes and opaque page tokens (AIP-158).
//!
//! A token carries the sort key of the last item of a page. It is bound by HMAC-SHA256 to the other arguments of
//! the request, so that a changed filter cannot be combined with an old token, and it carries no authority.

use crate::clock::{Clock, SystemClock};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

/// Page size when none is asked for.
pub const DEFAULT_PAGE_SIZE: u64 = 50;
/// Largest page; greater requests are lowered to it.
pub const MAX_PAGE_SIZE: u64 = 1_000;
/// How long a token may be used, in seconds.
pub const TOKEN_LIFETIME_SECONDS: i64 = 3 * 24 * 3_600;

const VERSION: u8 = 1;
const HEADER: usize = 1 + 8;
const MAC: usize = 32;
/// Longer tokens are not ours.
const MAX_TOKEN: usize = 8 * 1_024;

/// Why a page token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// Not made by this server, altered, or used with other arguments.
    #[error("page token is not valid for this request; repeat the call with the arguments of the first page")]
    Invalid,
    /// Older than three days.
    #[error("page token has expired; start again from the first page")]
    Expired,
}

/// A negative page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("page size must not be negative, got `{0}`")]
pub struct PageSizeError(pub i32);

/// The page size to use: 0 gives the default (50), more than 1000 gives 1000, negative is an error.
pub fn page_size(requested: i32) -> Result<u64, PageSizeError> {
    match u64::try_from(requested) {
        Ok(0) => Ok(DEFAULT_PAGE_SIZE),
        Ok(n) => Ok(n.min(MAX_PAGE_SIZE)),
        Err(_) => Err(PageSizeError(requested)),
    }
}

/// Makes and checks page tokens. All replicas of a service must share the key.
#[derive(Clone)]
pub struct PageTokens {
    key: hmac::Key,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageTokens").finish_non_exhaustive()
    }
}

impl PageTokens {
    /// Tokens under `key`, with the system clock.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), clock: Arc::new(SystemClock) }
    }

    /// The same with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// A token that continues after the sort key `last`. `args_hash` must cover parent, filter and order.
    pub fn encode(&self, args_hash: &[u8], last: &serde_json::Value) -> String {
        self.encode_at(self.clock.now().unix_timestamp(), args_hash, last)
    }

    /// A token for [`PageTokens::decode_of_any_age`]: always the same for the same place.
    pub fn encode_for_any_age(&self, args_hash: &[u8], last: &serde_json::Value) -> String {
        self.encode_at(0, args_hash, last)
    }

    fn encode_at(&self, issued: i64, args_hash: &[u8], last: &serde_json::Value) -> String {
        let mut body = vec![VERSION];
        body.extend_from_slice(&issued.to_be_bytes());
        body.extend_from_slice(last.to_string().as_bytes());
        let tag = hmac::sign(&self.key, &signed(args_hash, &body));
        body.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(body)
    }

    /// The sort key in `token`, if it was made for the same arguments within the last three days.
    pub fn decode(&self, token: &str, args_hash: &[u8]) -> Result<serde_json::Value, PageTokenError> {
        let (issued, last) = self.verified(token, args_hash)?;
        if self.clock.now().unix_timestamp().saturating_sub(issued) > TOKEN_LIFETIME_SECONDS {
            return Err(PageTokenError::Expired);
        }
        Ok(last)
    }

    /// The same however long ago it was made: what it stands behind says whether it is too old.
    pub fn decode_of_any_age(
        &self,
        token: &str,
        args_hash: &[u8],
    ) -> Result<serde_json::Value, PageTokenError> {
        self.verified(token, args_hash).map(|(_, last)| last)
    }

    /// When a token was made, and what it carries.
    fn verified(&self, token: &str, args_hash: &[u8]) -> Result<(i64, serde_json::Value), PageTokenError> {
        if token.len() > MAX_TOKEN {
            return Err(PageTokenError::Invalid);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenError::Invalid)?;
        let at = bytes.len().checked_sub(MAC).filter(|at| *at >= HEADER).ok_or(PageTokenError::Invalid)?;
        let (body, tag) = bytes.split_at(at);
        hmac::verify(&self.key, &signed(args_hash, body), tag).map_err(|_| PageTokenError::Invalid)?;
        if body.first() != Some(&VERSION) {
            return Err(PageTokenError::Invalid);
        }
        let issued: [u8; 8] =
            body.get(1..HEADER).and_then(|b| b.try_into().ok()).ok_or(PageTokenError::Invalid)?;
        let last = serde_json::from_slice(body.get(HEADER..).unwrap_or_default());
        Ok((i64::from_be_bytes(issued), last.map_err(|_| PageTokenError::Invalid)?))
    }
}

/// What is signed: a label for this use of the key, and both parts with unmistakable borders.
fn signed(args_hash: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = b"pavior page token\0".to_vec();
    out.extend_from_slice(&(args_hash.len() as u64).to_be_bytes());
    out.extend_from_slice(args_hash);
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn page_size_table() {
        for (asked, want) in
            [(0, Ok(50)), (1, Ok(1)), (1000, Ok(1000)), (1001, Ok(1000)), (i32::MAX, Ok(1000))]
        {
            assert_eq!(page_size(asked), want);
        }
        assert_eq!(page_size(-1), Err(PageSizeError(-1)));
    }

    #[test]
    fn token_is_bound_to_arguments_key_and_time() {
        let clock = Arc::new(ManualClock::default());
        let tokens = PageTokens::new([7; 32]).with_clock(clock.clone());
        let last = json!(["web", "0190"]);
        let token = tokens.encode(b"args", &last);
        assert_eq!(tokens.decode(&token, b"args"), Ok(last.clone()));
        assert_eq!(tokens.decode(&token, b"other"), Err(PageTokenError::Invalid));
        assert_eq!(PageTokens::new([8; 32]).decode(&token, b"args"), Err(PageTokenError::Invalid));
        clock.advance(Duration::from_secs(3 * 24 * 3_600));
        assert_eq!(tokens.decode(&token, b"args"), Ok(last));
        clock.advance(Duration::from_secs(1));
        assert_eq!(tokens.decode(&token, b"args"), Err(PageTokenError::Expired));
    }

    proptest! {
        #[test]
        fn any_text_as_token_is_refused_without_panic(text in ".{0,200}") {
            prop_assert_eq!(PageTokens::new([1; 32]).decode(&text, b""), Err(PageTokenError::Invalid));
        }

        #[test]
        fn any_altered_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8, key in ".{0,40}") {
            let tokens = PageTokens::new([1; 32]);
            let token = tokens.encode(b"a", &json!(key));
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
            let i = at.index(bytes.len());
            bytes[i] ^= 1 << bit;
            prop_assert_eq!(tokens.decode(&URL_SAFE_NO_PAD.encode(bytes), b"a"), Err(PageTokenError::Invalid));
        }

        #[test]
        fn every_token_is_url_safe_and_round_trips(key in ".{0,100}", args in prop::collection::vec(any::<u8>(), 0..40)) {
            let tokens = PageTokens::new([3; 32]);
            let token = tokens.encode(&args, &json!({"k": key}));
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(tokens.decode(&token, &args), Ok(json!({"k": key})));
        }
    }
}

//! Tokens, from outside and between services, as a server meets them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod abandoned;
mod bounds;
mod external;
mod internal;
mod standing;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pavior_core::clock::ManualClock;
use pavior_core::id_gen::SeededIds;

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::default())
}

pub(crate) fn ids() -> Arc<SeededIds> {
    Arc::new(SeededIds::new(7))
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The payload of a token.
pub(crate) fn payload(token: &str) -> serde_json::Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

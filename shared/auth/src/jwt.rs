//! Compact JWTs: the few parts that both kinds of token share. Signatures are checked by the callers, over `signed`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{AuthError, Unauthenticated};
use crate::keys::SigningKey;

/// The longest token that is looked at. Larger ones would not fit a header list that servers accept.
pub(crate) const MAX_TOKEN_BYTES: usize = 12 * 1024;

/// A JOSE header as far as it is understood. `crit` names extensions that must be understood: none are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) typ: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crit: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) b64: Option<bool>,
}

/// A token taken apart; nothing in it is trusted yet.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// What the signature is over.
    pub(crate) signed: &'a str,
    /// The signature as written (base64url).
    pub(crate) signature: &'a str,
}

pub(crate) fn split(token: &str) -> Result<Parts<'_>, Unauthenticated> {
    const MALFORMED: Unauthenticated = Unauthenticated::new("malformed");
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Unauthenticated::new("too_long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
    if payload.contains('.') {
        return Err(MALFORMED);
    }
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| MALFORMED)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| MALFORMED)?;
    if header.crit.is_some() || header.b64.is_some() {
        return Err(Unauthenticated::new("critical_extension"));
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| MALFORMED)?;
    Ok(Parts { header, payload, signed, signature })
}

pub(crate) fn claims<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Unauthenticated> {
    serde_json::from_slice(payload).map_err(|_| Unauthenticated::new("claims"))
}

pub(crate) fn signature_bytes(signature: &str) -> Result<Vec<u8>, Unauthenticated> {
    URL_SAFE_NO_PAD.decode(signature).map_err(|_| Unauthenticated::new("malformed"))
}

/// Signs `claims` with Ed25519.
pub(crate) fn sign<T: Serialize>(
    typ: &str,
    kid: &str,
    claims: &T,
    key: &SigningKey,
) -> Result<String, AuthError> {
    let mint = |error: serde_json::Error| AuthError::Mint(error.to_string());
    let header = Header {
        alg: "EdDSA".to_owned(),
        kid: Some(kid.to_owned()),
        typ: Some(typ.to_owned()),
        crit: None,
        b64: None,
    };
    let mut token = String::with_capacity(1024);
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(&header).map_err(mint)?, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims).map_err(mint)?, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

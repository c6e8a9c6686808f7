//! The signed token between services.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::signature::ParsedPublicKey;
use http::HeaderValue;
use pavior_core::audit::DecisionRef;
use pavior_core::clock::Clock;
use pavior_core::principal::{GATEWAY, Principal};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{AuthError, Unauthenticated};
use crate::jwt;
use crate::keys::{PublicKey, SigningKey};
use crate::permit::{Inner, Origin, Permit, Standing};
use crate::principal::service_principal;

/// The metadata key of the internal token: a compact JWT without a scheme before it.
pub const INTERNAL_TOKEN: &str = "x-pavior-internal";
/// The longest life of an internal token.
pub const MAX_LIFETIME_SECONDS: i64 = 60;
/// How far apart the clocks of two services may be.
const LEEWAY_SECONDS: i64 = 5;
/// How long after a token of the gateway has expired its call may still be worked on, and go on to other services in
/// its caller's name: the longest that a unary call may take.
const MAX_WORK_SECONDS: i64 = 120;
const TYPE: &str = "pavior-internal+jwt";
/// Verified tokens that are remembered.
const CACHE_SIZE: u64 = 8192;

/// What a token says. The principal is carried whole, so that a service needs no look-up to know who asks: by the
/// gateway and by services that act as themselves in `principal`, else in `proof`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    pub(crate) sub: String,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    pub(crate) jti: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<Principal>,
    /// The token of the gateway whose call the issuer is working on. Principal and decision are those that it names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) proof: String,
    pub(crate) organization: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) resource: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<DecisionRef>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) facts: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) request_id: String,
    /// The one method that the token is good for, as `/package.Service/Method`; empty for any allowed one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
}

/// What a caller asks a token for.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// The role of the service that shall accept it.
    pub audience: &'a str,
    /// The one method that it is good for (`/package.Service/Method`); empty for any that the caller may call.
    pub method: &'a str,
    /// On whose behalf.
    pub principal: &'a Principal,
    /// The organization that the call is confined to; `pavior` for the installation itself.
    pub organization: &'a str,
    /// The action that was decided on.
    pub action: &'a str,
    /// The resource that was decided on.
    pub resource: &'a str,
    /// The decision.
    pub decision: Option<&'a DecisionRef>,
    /// The fingerprint of the facts that were decided on; empty where there were none.
    pub facts: &'a str,
    /// The request that the call belongs to.
    pub request_id: &'a str,
}

/// Signs internal tokens.
#[derive(Debug, Clone)]
pub struct InternalSigner {
    key: SigningKey,
    kid: String,
}

impl InternalSigner {
    /// A signer with a key of its own, for services that share a process.
    pub fn generate() -> Result<Self, AuthError> {
        Ok(Self::from_key(SigningKey::generate()?))
    }

    /// A signer with a key in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, AuthError> {
        Ok(Self::from_key(SigningKey::from_pem(pem)?))
    }

    /// A signer with a key.
    pub fn from_key(key: SigningKey) -> Self {
        let kid = key.public().kid();
        Self { key, kid }
    }

    /// The key that verifies what this signs.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, AuthError> {
        jwt::sign(TYPE, &self.kid, claims, &self.key)
    }
}

/// Verifies internal tokens against the keys of the roles that may issue them. Cheap to clone.
#[derive(Clone)]
pub struct InternalVerifier {
    inner: Arc<Verifier>,
}

/// Claims with a good signature.
struct Verified {
    claims: Claims,
    principal: Arc<Principal>,
    standing: Standing,
    /// The gateway's token for this call, to go on with; sensitive.
    token: Option<HeaderValue>,
    /// The token of the gateway that this one rests on.
    outer: Option<Arc<Verified>>,
}

impl Verified {
    /// A token for one request does not come again: remembering it would only push out the useful ones.
    fn comes_again(&self) -> bool {
        self.claims.request_id.is_empty() && self.outer.as_ref().is_none_or(|outer| outer.comes_again())
    }
}

struct Verifier {
    /// By (role, kid): a role may have several keys while one replaces the other.
    keys: HashMap<(String, String), ParsedPublicKey>,
    clock: Arc<dyn Clock>,
    /// Tokens that are good for many calls, by SHA-256, so that each is checked once.
    verified: moka::sync::Cache<[u8; 32], Arc<Verified>>,
}

impl std::fmt::Debug for InternalVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InternalVerifier").field("keys", &self.inner.keys.keys()).finish_non_exhaustive()
    }
}

impl InternalVerifier {
    /// A verifier that knows these issuers and no other. One issuer may stand several times, with different keys.
    pub fn new(
        issuers: impl IntoIterator<Item = (String, PublicKey)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, AuthError> {
        let keys = issuers
            .into_iter()
            .map(|(role, key)| Ok(((role, key.kid()), key.parse()?)))
            .collect::<Result<_, AuthError>>()?;
        Ok(Self { inner: Arc::new(Verifier { keys, clock, verified: moka::sync::Cache::new(CACHE_SIZE) }) })
    }

    /// Checks a token for a call of `method` (`/package.Service/Method`) at the service `audience`.
    ///
    /// # Errors
    /// [`Unauthenticated`] whatever is wrong with it.
    pub fn verify(&self, token: &str, audience: &str, method: &str) -> Result<Permit, Unauthenticated> {
        self.verify_for(token, audience, method, "", Origin::default())
    }

    /// As [`InternalVerifier::verify`]; `request_id_given` is used where the token does not carry one.
    pub(crate) fn verify_for(
        &self,
        token: &str,
        audience: &str,
        method: &str,
        request_id_given: &str,
        origin: Origin,
    ) -> Result<Permit, Unauthenticated> {
        let verified = self.verified(token)?;
        let claims = &verified.claims;
        self.check(claims, audience, method)?;
        if let Some(outer) = &verified.outer {
            self.check_proof(claims, &outer.claims)?;
        }
        let asked = verified.outer.as_ref().map_or(claims, |outer| &outer.claims);
        // Only the gateway asks for decisions.
        let decided = matches!(verified.standing, Standing::Gateway | Standing::Proven);
        let request_id = [&claims.request_id, &asked.request_id].into_iter().find(|id| !id.is_empty());
        Ok(Permit::new(Inner {
            principal: verified.principal.clone(),
            organization: claims.organization.clone(),
            action: claims.action.clone(),
            resource: claims.resource.clone(),
            decision: asked.decision.clone().filter(|_| decided),
            facts: claims.facts.clone(),
            caller: claims.iss.clone(),
            standing: verified.standing,
            token: verified.token.clone(),
            request_id: request_id.map_or(request_id_given, String::as_str).to_owned(),
            origin,
        }))
    }

    /// The claims of a token whose signature is good, and of the one that it rests on. Times, audience and method are
    /// checked on every use.
    fn verified(&self, token: &str) -> Result<Arc<Verified>, Unauthenticated> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.inner.verified.get(&hash) {
            return Ok(known);
        }
        let claims = self.signed(token)?;
        let outer = match claims.proof.as_str() {
            "" => None,
            // Only the gateway's own token proves anything, so nothing is nested deeper.
            proof => Some(self.verified(proof).and_then(|outer| match outer.standing {
                Standing::Gateway => Ok(outer),
                Standing::Itself | Standing::Proven | Standing::Claimed => Err(Unauthenticated::new("proof")),
            })?),
        };
        let made = Arc::new(principal_of(claims, outer, token)?);
        if made.comes_again() {
            self.inner.verified.insert(hash, made.clone());
        }
        Ok(made)
    }

    fn signed(&self, token: &str) -> Result<Claims, Unauthenticated> {
        let parts = jwt::split(token)?;
        if parts.header.alg != "EdDSA" || parts.header.typ.as_deref() != Some(TYPE) {
            return Err(Unauthenticated::new("algorithm"));
        }
        let claims: Claims = jwt::claims(&parts.payload)?;
        let kid = parts.header.kid.ok_or(Unauthenticated::new("unknown_key"))?;
        let key =
            self.inner.keys.get(&(claims.iss.clone(), kid)).ok_or(Unauthenticated::new("unknown_key"))?;
        key.verify_sig(parts.signed.as_bytes(), &jwt::signature_bytes(parts.signature)?)
            .map_err(|_| Unauthenticated::new("signature"))?;
        Ok(claims)
    }

    /// The call that the issuer works on came to the issuer, in the same organization, and not so long ago that it
    /// must have ended.
    fn check_proof(&self, claims: &Claims, outer: &Claims) -> Result<(), Unauthenticated> {
        let open = outer.exp.saturating_add(MAX_WORK_SECONDS + LEEWAY_SECONDS) > self.now();
        if outer.aud == claims.iss && outer.organization == claims.organization && open {
            return Ok(());
        }
        Err(Unauthenticated::new("proof"))
    }

    fn check(&self, claims: &Claims, audience: &str, method: &str) -> Result<(), Unauthenticated> {
        let now = self.now();
        if claims.exp <= now - LEEWAY_SECONDS {
            return Err(Unauthenticated::new("expired"));
        }
        if claims.iat > now + LEEWAY_SECONDS {
            return Err(Unauthenticated::new("not_yet_valid"));
        }
        let life = claims.exp.checked_sub(claims.iat).ok_or(Unauthenticated::new("lifetime"))?;
        if !(0..=MAX_LIFETIME_SECONDS).contains(&life) {
            return Err(Unauthenticated::new("lifetime"));
        }
        if claims.aud != audience {
            return Err(Unauthenticated::new("audience"));
        }
        if !claims.method.is_empty() && claims.method != method {
            return Err(Unauthenticated::new("method"));
        }
        if claims.organization.is_empty() {
            return Err(Unauthenticated::new("subject"));
        }
        Ok(())
    }

    fn now(&self) -> i64 {
        self.inner.clock.now().unix_timestamp()
    }
}

/// Whom a token names, and what that rests on.
fn principal_of(
    claims: Claims,
    outer: Option<Arc<Verified>>,
    token: &str,
) -> Result<Verified, Unauthenticated> {
    let subject = || Unauthenticated::new("subject");
    let principal = match (&claims.principal, &outer) {
        (Some(principal), None) => Arc::new(principal.clone()),
        (None, Some(outer)) => outer.principal.clone(),
        // Two names leave open which of them is meant.
        _ => return Err(subject()),
    };
    if claims.sub != principal.name {
        return Err(subject());
    }
    let standing = match &outer {
        Some(_) => Standing::Proven,
        None if claims.iss == GATEWAY => Standing::Gateway,
        None if *principal == service_principal(&claims.iss) => Standing::Itself,
        None => Standing::Claimed,
    };
    let token = match standing {
        Standing::Gateway => {
            let mut token = HeaderValue::from_str(token).map_err(|_| Unauthenticated::new("malformed"))?;
            token.set_sensitive(true);
            Some(token)
        }
        Standing::Itself | Standing::Proven | Standing::Claimed => None,
    };
    Ok(Verified { claims, principal, standing, token, outer })
}

//! The keys of an issuer: read from a file or fetched from a URL, kept, and looked for anew with a cool-down.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use time::OffsetDateTime;

use super::config::{Algorithm, IssuerConfig};
use crate::error::AuthError;

const MAX_BYTES: usize = 1 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const NEVER: i64 = i64::MIN;

/// A key and the one algorithm that it is for.
#[derive(Debug)]
pub(crate) struct PinnedKey {
    pub(crate) decoding: DecodingKey,
    pub(crate) algorithm: Algorithm,
    /// To see whether a key of the same name has changed.
    fingerprint: String,
}

#[derive(Default)]
struct KeySet {
    keys: HashMap<String, Arc<PinnedKey>>,
    /// Goes up whenever a key goes away, which ends trust in what was verified with it.
    generation: u64,
}

enum Place {
    File(PathBuf),
    Url { url: String, client: reqwest::Client },
}

/// The keys of one issuer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct KeySource {
    source: Arc<Source>,
    /// One fetch at a time; the rest wait for it or go on with what is there.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

struct Source {
    issuer: String,
    place: Place,
    algorithms: Vec<Algorithm>,
    set: ArcSwap<KeySet>,
    /// When the keys were last looked for, with whatever result, in seconds since 1970.
    tried: AtomicI64,
    cooldown: i64,
    max_age: i64,
}

impl KeySource {
    pub(crate) fn new(config: &IssuerConfig) -> Result<Self, AuthError> {
        let wrong = |reason: String| AuthError::Issuer { issuer: config.issuer.clone(), reason };
        let place = match (&config.jwks_file, &config.jwks_url) {
            (Some(file), None) => Place::File(file.clone()),
            (None, Some(url)) => {
                let client = reqwest::Client::builder()
                    .timeout(FETCH_TIMEOUT)
                    .redirect(reqwest::redirect::Policy::none())
                    .build()
                    .map_err(|error| wrong(error.to_string()))?;
                Place::Url { url: url.clone(), client }
            }
            _ => return Err(wrong("exactly one of `jwks_file` and `jwks_url` must be set".to_owned())),
        };
        let source = Source {
            issuer: config.issuer.clone(),
            place,
            algorithms: config.algorithms.clone(),
            set: ArcSwap::default(),
            tried: AtomicI64::new(NEVER),
            cooldown: i64::from(config.jwks_cooldown_seconds),
            max_age: i64::from(config.jwks_max_age_seconds),
        };
        Ok(Self { source: Arc::new(source), fetching: Arc::default() })
    }

    /// Which keys there are. Looks for newer ones when they are old, for whoever shows the same token again and again.
    pub(crate) async fn generation(&self, now: OffsetDateTime) -> u64 {
        self.refresh_if_old(now.unix_timestamp()).await;
        self.source.set.load().generation
    }

    /// One caller looks for newer keys; the others go on with those that there are.
    async fn refresh_if_old(&self, now: i64) {
        if self.source.tried_within(self.source.max_age, now) {
            return;
        }
        if let Ok(one) = self.fetching.clone().try_lock_owned() {
            self.refresh_quietly(one, now).await;
        }
    }

    /// The key named `kid` and the generation that it belongs to. Looks for new keys when the name is unknown or the
    /// set is old, but not more often than the cool-down allows; when that fails, the keys at hand stay in use.
    pub(crate) async fn key(&self, kid: &str, now: OffsetDateTime) -> Option<(Arc<PinnedKey>, u64)> {
        let (source, now) = (&self.source, now.unix_timestamp());
        if source.known(kid).is_some() {
            self.refresh_if_old(now).await;
        } else if !source.tried_within(source.cooldown, now) || self.fetching.try_lock().is_err() {
            // Also for a fetch that is under way: it may bring the key.
            let one = self.fetching.clone().lock_owned().await;
            if source.known(kid).is_none() && !source.tried_within(source.cooldown, now) {
                self.refresh_quietly(one, now).await;
            }
        }
        source.known(kid)
    }

    /// True when there are keys, which are looked for if need be.
    pub(crate) async fn ready(&self, now: OffsetDateTime) -> bool {
        let now = now.unix_timestamp();
        if self.is_empty() && !self.source.tried_within(self.source.cooldown, now) {
            let one = self.fetching.clone().lock_owned().await;
            if self.is_empty() {
                self.refresh_quietly(one, now).await;
            }
        }
        !self.is_empty()
    }

    pub(crate) async fn fetch_now(&self, now: OffsetDateTime) -> Result<(), AuthError> {
        let one = self.fetching.clone().lock_owned().await;
        self.refresh(one, now.unix_timestamp()).await
    }

    /// Whether there were never any keys: nothing can be said about a token.
    pub(crate) fn is_empty(&self) -> bool {
        self.source.set.load().keys.is_empty()
    }

    async fn refresh_quietly(&self, one: Fetching, now: i64) {
        if let Err(error) = self.refresh(one, now).await {
            tracing::warn!(issuer = %self.source.issuer, %error, "keys of the issuer could not be fetched");
        }
    }

    /// In a task of its own, which ends however soon its caller gives up: a fetch that counts as tried was made.
    async fn refresh(&self, one: Fetching, now: i64) -> Result<(), AuthError> {
        let source = self.source.clone();
        let fetched = tokio::spawn(async move {
            let fetched = source.refresh(now).await;
            drop(one);
            fetched
        });
        fetched.await.map_err(|error| self.source.unusable(error))?
    }
}

/// Held while keys are fetched.
type Fetching = tokio::sync::OwnedMutexGuard<()>;

impl Source {
    /// Whether the keys were looked for less than `seconds` ago. A clock that was set back makes them old, not young.
    fn tried_within(&self, seconds: i64, now: i64) -> bool {
        (0..seconds).contains(&now.saturating_sub(self.tried.load(Ordering::Acquire)))
    }

    fn known(&self, kid: &str) -> Option<(Arc<PinnedKey>, u64)> {
        let set = self.set.load();
        set.keys.get(kid).map(|key| (key.clone(), set.generation))
    }

    async fn refresh(&self, now: i64) -> Result<(), AuthError> {
        self.tried.store(now, Ordering::Release);
        let bytes = self.read().await?;
        let keys = parse(&bytes, &self.algorithms).map_err(|reason| self.unusable(reason))?;
        let old = self.set.load();
        let gone = old
            .keys
            .iter()
            .any(|(kid, key)| keys.get(kid).is_none_or(|new| new.fingerprint != key.fingerprint));
        let generation = old.generation + u64::from(gone);
        self.set.store(Arc::new(KeySet { keys, generation }));
        Ok(())
    }

    fn unusable(&self, reason: impl ToString) -> AuthError {
        let source_name = match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Url { url, .. } => url.clone(),
        };
        AuthError::KeySet { source_name, reason: reason.to_string() }
    }

    async fn read(&self) -> Result<Vec<u8>, AuthError> {
        match &self.place {
            Place::File(path) => tokio::fs::read(path).await.map_err(|error| self.unusable(error)),
            Place::Url { url, client } => {
                let sent = client.get(url).header("accept", "application/json").send().await;
                let mut response = sent
                    .and_then(reqwest::Response::error_for_status)
                    .map_err(|error| self.unusable(error))?;
                if !response.status().is_success() {
                    return Err(self.unusable(format!("answered {}", response.status())));
                }
                let mut bytes = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(|error| self.unusable(error))? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MAX_BYTES {
                        return Err(self.unusable("larger than 1 MiB"));
                    }
                }
                Ok(bytes)
            }
        }
    }
}

/// The usable keys of a JWK set (RFC 7517). Keys for other purposes and of other kinds are passed over; a name that
/// stands twice is not usable at all.
fn parse(bytes: &[u8], allowed: &[Algorithm]) -> Result<HashMap<String, Arc<PinnedKey>>, &'static str> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(bytes).map_err(|_| "not a JWK set")?;
    let mut keys = HashMap::new();
    let mut twice = Vec::new();
    for value in set.keys {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value.clone()) else { continue };
        let Some(kid) = jwk.common.key_id.clone() else { continue };
        if matches!(jwk.common.public_key_use, Some(ref purpose) if *purpose != PublicKeyUse::Signature) {
            continue;
        }
        let Some(algorithm) = algorithm(&jwk, allowed) else { continue };
        let Ok(decoding) = DecodingKey::from_jwk(&jwk) else { continue };
        let key = PinnedKey { decoding, algorithm, fingerprint: value.to_string() };
        if keys.insert(kid.clone(), Arc::new(key)).is_some() {
            twice.push(kid);
        }
    }
    for kid in twice {
        tracing::warn!(kid, "two keys of one name in a key set: neither is used");
        keys.remove(&kid);
    }
    Ok(keys)
}

/// The one algorithm that a key is for, from its own declaration or its shape.
fn algorithm(jwk: &Jwk, allowed: &[Algorithm]) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDsa, PS256, PS384, PS512, RS256, RS384, RS512};
    let shape: &[(Algorithm, KeyAlgorithm)] = match &jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            &[(EdDsa, KeyAlgorithm::EdDSA)]
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            &[(ES256, KeyAlgorithm::ES256)]
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            &[(ES384, KeyAlgorithm::ES384)]
        }
        AlgorithmParameters::RSA(_) => &[
            (RS256, KeyAlgorithm::RS256),
            (RS384, KeyAlgorithm::RS384),
            (RS512, KeyAlgorithm::RS512),
            (PS256, KeyAlgorithm::PS256),
            (PS384, KeyAlgorithm::PS384),
            (PS512, KeyAlgorithm::PS512),
        ],
        _ => return None,
    };
    let declared = jwk.common.key_algorithm;
    let fits = |named: &KeyAlgorithm| declared.is_none_or(|alg| alg == *named);
    shape.iter().find(|(own, named)| fits(named) && allowed.contains(own)).map(|(own, _)| *own)
}

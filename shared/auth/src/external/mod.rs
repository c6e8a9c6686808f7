//! Tokens of outsiders: JWTs of configured issuers, verified against pinned keys.

mod config;
mod jwks;

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jsonwebtoken::crypto;
use pavior_core::clock::Clock;
use pavior_core::id::{validate_id, validate_id_in};
use pavior_core::principal::{INSTALLATION, Principal, PrincipalKind, is_reserved};
use pavior_core::text::is_hidden;
use serde_json::{Map, Value};

pub use config::{Algorithm, IssuerConfig};

use crate::error::NO_KEYS;
use crate::error::{AuthError, Unauthenticated};
use crate::jwt;
use jwks::KeySource;

/// How far apart the clock of an issuer may be.
const LEEWAY_SECONDS: i64 = 30;
/// Verified tokens that are remembered until they expire.
const CACHE_SIZE: u64 = 10_000;
/// Groups beyond this are refused: a principal travels in every internal token, and headers have a limit.
const MAX_GROUPS: usize = 128;
const MAX_GROUP_BYTES: usize = 4096;

/// The token in `authorization: Bearer …`.
///
/// # Errors
/// [`Unauthenticated`] where there is none, more than one, or another scheme.
pub fn bearer(headers: &http::HeaderMap) -> Result<&str, Unauthenticated> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Unauthenticated::new("missing"))?;
    if values.next().is_some() {
        return Err(Unauthenticated::new("several"));
    }
    let text = value.to_str().map_err(|_| Unauthenticated::new("malformed"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Unauthenticated::new("scheme")),
    }
}

/// A caller whose token is good.
#[derive(Debug)]
pub struct Authenticated {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// When the token expires, in seconds since 1970.
    pub expires_at: i64,
    /// The issuer of the token.
    pub issuer: String,
}

/// Verifies the tokens of callers. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    inner: Arc<Inner>,
}

struct Inner {
    issuers: HashMap<String, Issuer>,
    clock: Arc<dyn Clock>,
    /// By SHA-256 of the token, with the generation of the issuer's keys that it was verified with.
    verified: moka::future::Cache<[u8; 32], (Arc<Authenticated>, u64)>,
}

struct Issuer {
    config: IssuerConfig,
    keys: KeySource,
}

/// Whoever a token names, and the issuer may speak for.
struct Named {
    kind: PrincipalKind,
    name: String,
    subject: String,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenVerifier").field("issuers", &self.inner.issuers.keys()).finish_non_exhaustive()
    }
}

impl TokenVerifier {
    /// A verifier for these issuers. Keys are fetched when first needed; see [`TokenVerifier::refresh`].
    ///
    /// # Errors
    /// A configuration that is incomplete, contradictory or unsafe.
    pub fn new(issuers: Vec<IssuerConfig>, clock: Arc<dyn Clock>) -> Result<Self, AuthError> {
        let mut known = HashMap::new();
        for config in issuers {
            config.validate()?;
            let keys = KeySource::new(&config)?;
            let name = config.issuer.clone();
            if known.insert(name.clone(), Issuer { config, keys }).is_some() {
                return Err(AuthError::Issuer { issuer: name, reason: "configured twice".to_owned() });
            }
        }
        let verified = moka::future::Cache::new(CACHE_SIZE);
        Ok(Self { inner: Arc::new(Inner { issuers: known, clock, verified }) })
    }

    /// Fetches the keys of every issuer now, for start-up checks.
    ///
    /// # Errors
    /// The first key set that cannot be had.
    pub async fn refresh(&self) -> Result<(), AuthError> {
        for issuer in self.inner.issuers.values() {
            issuer.keys.fetch_now(self.inner.clock.now()).await?;
        }
        Ok(())
    }

    /// The issuers.
    pub fn issuers(&self) -> Vec<String> {
        let mut names: Vec<String> = self.inner.issuers.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Says whether there are keys of an issuer, looking for missing ones as often as the cool-down allows.
    ///
    /// # Errors
    /// There are none.
    pub async fn ready(&self, issuer: &str) -> Result<(), String> {
        match self.inner.issuers.get(issuer) {
            Some(known) if known.keys.ready(self.inner.clock.now()).await => Ok(()),
            _ => Err(format!("no keys of issuer `{issuer}`")),
        }
    }

    /// Says whether there are keys of any issuer: whoever has a token of it can be let in. One that does not answer
    /// holds up no other.
    ///
    /// # Errors
    /// The issuers, of all of which there are none.
    pub async fn any_ready(&self) -> Result<(), String> {
        let names = self.issuers();
        let mut asked: FuturesUnordered<_> = names.iter().map(|name| self.ready(name)).collect();
        while let Some(ready) = asked.next().await {
            if ready.is_ok() {
                return Ok(());
            }
        }
        Err(format!("no keys of any issuer: `{}`", names.join("`, `")))
    }

    /// Verifies a token (without the `Bearer` before it).
    ///
    /// # Errors
    /// [`Unauthenticated`] whatever is wrong with it.
    pub async fn verify(&self, token: &str) -> Result<Arc<Authenticated>, Unauthenticated> {
        let now = self.inner.clock.now();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        if let Some((known, generation)) = self.inner.verified.get(&hash).await {
            if known.expires_at + LEEWAY_SECONDS <= now.unix_timestamp() {
                self.inner.verified.invalidate(&hash).await;
                return Err(Unauthenticated::EXPIRED);
            }
            if let Some(issuer) = self.inner.issuers.get(&known.issuer)
                && issuer.keys.generation(now).await == generation
            {
                return Ok(known);
            }
        }
        let (fresh, generation) = self.verify_fully(token, now).await?;
        let fresh = Arc::new(fresh);
        self.inner.verified.insert(hash, (fresh.clone(), generation)).await;
        Ok(fresh)
    }

    async fn verify_fully(
        &self,
        token: &str,
        now: time::OffsetDateTime,
    ) -> Result<(Authenticated, u64), Unauthenticated> {
        let parts = jwt::split(token)?;
        if !matches!(
            parts.header.typ.as_deref(),
            None | Some("JWT" | "jwt" | "at+jwt" | "application/at+jwt")
        ) {
            return Err(Unauthenticated::new("type"));
        }
        let claims: Map<String, Value> = jwt::claims(&parts.payload)?;
        // Not trusted yet: it only says whose keys and rules are to be asked.
        let named = text(&claims, "iss").ok_or(Unauthenticated::new("issuer"))?;
        let issuer = self.inner.issuers.get(named).ok_or(Unauthenticated::new("issuer"))?;
        let kid = parts.header.kid.as_deref().ok_or(Unauthenticated::new("unknown_key"))?;
        let unknown = || match issuer.keys.is_empty() {
            true => Unauthenticated::new(NO_KEYS),
            false => Unauthenticated::new("unknown_key"),
        };
        let (key, generation) = issuer.keys.key(kid, now).await.ok_or_else(unknown)?;
        // The key says which algorithm it is for; the token must agree and cannot choose.
        if parts.header.alg != key.algorithm.name() {
            return Err(Unauthenticated::new("algorithm"));
        }
        let signed = parts.signed.as_bytes();
        let good = crypto::verify(parts.signature, signed, &key.decoding, key.algorithm.of_library());
        if !matches!(good, Ok(true)) {
            return Err(Unauthenticated::new("signature"));
        }
        let expires_at = issuer.check_claims(&claims, now.unix_timestamp())?;
        let principal = Arc::new(issuer.principal(&claims)?);
        Ok((Authenticated { principal, expires_at, issuer: named.to_owned() }, generation))
    }
}

/// The kinds of principals that issuers may speak for.
const KINDS: [PrincipalKind; 3] = [PrincipalKind::User, PrincipalKind::ServiceAccount, PrincipalKind::Agent];

impl Issuer {
    fn check_claims(&self, claims: &Map<String, Value>, now: i64) -> Result<i64, Unauthenticated> {
        let expires_at = seconds(claims, "exp")?.ok_or(Unauthenticated::new("expired"))?;
        if expires_at.saturating_add(LEEWAY_SECONDS) <= now {
            return Err(Unauthenticated::new("expired"));
        }
        for claim in ["nbf", "iat"] {
            if seconds(claims, claim)?.is_some_and(|from| from > now + LEEWAY_SECONDS) {
                return Err(Unauthenticated::new("not_yet_valid"));
            }
        }
        let meant = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.config.audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(&self.config.audience)),
            _ => false,
        };
        if meant { Ok(expires_at) } else { Err(Unauthenticated::wrong_audience(&self.config.audience)) }
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Unauthenticated> {
        let config = &self.config;
        let organization = match (&config.organization, &config.organization_claim) {
            (Some(fixed), _) => fixed.as_str(),
            (None, Some(claim)) => text(claims, claim).ok_or(Unauthenticated::new("organization"))?,
            (None, None) => return Err(Unauthenticated::new("organization")),
        };
        if !config.speaks_for(organization) {
            return Err(Unauthenticated::new("organization"));
        }
        let subject = self.named(organization, claims, PrincipalKind::User)?;
        // RFC 8693 §4.1: the subject is who it is done for, the actor who does it. What else stands in the token
        // (groups, e-mail) is the subject's, so that the actor's own stands beside its name.
        let (acting, human, own) = match claims.get("act") {
            Some(Value::Object(actor)) => {
                let acting = self.actor(organization, claims, actor)?;
                (acting, Some(subject), actor)
            }
            Some(_) => return Err(Unauthenticated::new("actor")),
            None => (subject, self.human(organization, claims)?, claims),
        };
        let on_behalf_of = match human {
            // A user who is said to act for somebody is not that person, and no agent either.
            Some(human) if acting.kind == PrincipalKind::User && human.name != acting.name => {
                return Err(Unauthenticated::new("on_behalf_of"));
            }
            Some(human) if human.kind != PrincipalKind::User => {
                return Err(Unauthenticated::new("on_behalf_of"));
            }
            Some(human) if acting.kind != PrincipalKind::User => Some(human.name),
            Some(_) | None => None,
        };
        let claimed =
            |claim: &Option<String>| claim.as_deref().and_then(|claim| text(own, claim)).map(str::to_owned);
        Ok(Principal {
            kind: acting.kind,
            installation_operator: acting.kind == PrincipalKind::User
                && config.installation_operators.contains(&acting.name),
            name: acting.name,
            organization: organization.to_owned(),
            subject: acting.subject,
            groups: self.groups(own)?,
            email: claimed(&config.email_claim),
            // One that would change how what stands beside it is shown is none.
            display_name: text(own, "name").filter(|name| !name.contains(is_hidden)).map(str::to_owned),
            on_behalf_of,
        })
    }

    /// Whoever these claims name.
    fn named(
        &self,
        organization: &str,
        claims: &Map<String, Value>,
        otherwise: PrincipalKind,
    ) -> Result<Named, Unauthenticated> {
        let subject = text(claims, &self.config.subject_claim).ok_or(Unauthenticated::new("subject"))?;
        let kind = match self.config.kind_claim.as_deref().and_then(|claim| claims.get(claim)) {
            None => otherwise,
            Some(Value::String(kind)) => {
                KINDS.into_iter().find(|known| known.as_str() == kind).ok_or(Unauthenticated::new("kind"))?
            }
            Some(_) => return Err(Unauthenticated::new("kind")),
        };
        self.known(organization, kind, subject)
    }

    /// The principal of this name, if the issuer may speak for it.
    fn known(
        &self,
        organization: &str,
        kind: PrincipalKind,
        subject: &str,
    ) -> Result<Named, Unauthenticated> {
        if !self.config.kinds.contains(&kind) {
            return Err(Unauthenticated::new("kind"));
        }
        let collection = kind.collection();
        // A subject that is no legal id is refused, never rewritten: two subjects must not become one principal.
        validate_id_in(collection, subject).map_err(|_| Unauthenticated::new("subject"))?;
        let name = format!("organizations/{organization}/{collection}/{subject}");
        // The installation itself has nobody but its operators, and nobody else is called like a part of it.
        let free = match organization {
            INSTALLATION => self.config.installation_operators.contains(&name),
            _ => !is_reserved(subject),
        };
        if !free {
            return Err(Unauthenticated::new("reserved"));
        }
        Ok(Named { kind, name, subject: subject.to_owned() })
    }

    /// The actor of a token; an agent unless it says otherwise.
    fn actor(
        &self,
        organization: &str,
        claims: &Map<String, Value>,
        actor: &Map<String, Value>,
    ) -> Result<Named, Unauthenticated> {
        let foreign = actor.get("iss").is_some_and(|issuer| Some(issuer) != claims.get("iss"));
        let acting = self.named(organization, actor, PrincipalKind::Agent)?;
        // Both ways at once leave open who is meant.
        let twice = self.config.on_behalf_of_claim.as_ref().is_some_and(|claim| claims.contains_key(claim));
        if foreign || twice || acting.kind == PrincipalKind::User {
            return Err(Unauthenticated::new("actor"));
        }
        Ok(acting)
    }

    /// The user whom the claim that is configured for it names.
    fn human(
        &self,
        organization: &str,
        claims: &Map<String, Value>,
    ) -> Result<Option<Named>, Unauthenticated> {
        const BAD: Unauthenticated = Unauthenticated::new("on_behalf_of");
        let Some(claim) =
            self.config.on_behalf_of_claim.as_deref().filter(|claim| claims.contains_key(*claim))
        else {
            return Ok(None);
        };
        let user = text(claims, claim).ok_or(BAD)?;
        let own = format!("organizations/{organization}/users/");
        let user = user.strip_prefix(&own).unwrap_or(user);
        self.known(organization, PrincipalKind::User, user).map(Some).map_err(|_| BAD)
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, Unauthenticated> {
        let Some(claim) = self.config.groups_claim.as_deref().and_then(|claim| claims.get(claim)) else {
            return Ok(Vec::new());
        };
        let all = claim.as_array().ok_or(Unauthenticated::new("groups"))?;
        if all.len() > MAX_GROUPS {
            return Err(Unauthenticated::new("groups"));
        }
        // Directories name groups as they please; only legal ids can be groups here.
        let legal = all.iter().filter_map(Value::as_str).filter(|group| validate_id(group).is_ok());
        let groups: Vec<String> = legal.map(str::to_owned).collect();
        let bytes: usize = groups.iter().map(String::len).sum();
        if bytes <= MAX_GROUP_BYTES { Ok(groups) } else { Err(Unauthenticated::new("groups")) }
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty() && text.len() <= 256)
}

/// A NumericDate (RFC 7519): seconds, possibly with a fraction.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Unauthenticated> {
    const BAD: Unauthenticated = Unauthenticated::new("claims");
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) if (0..=253_402_300_799).contains(&whole) => Ok(Some(whole)),
            (None, Some(real)) if (0.0..=253_402_300_799.0).contains(&real) => Ok(Some(real as i64)),
            _ => Err(BAD),
        },
        Some(_) => Err(BAD),
    }
}

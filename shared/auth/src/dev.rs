//! An issuer for development: a key file and a key set in a data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::principal::PrincipalKind;
use serde::Serialize;

use crate::error::AuthError;
use crate::external::{Algorithm, IssuerConfig};
use crate::jwt;
use crate::keys::SigningKey;

/// The `iss` of development tokens.
pub const DEV_ISSUER: &str = "https://dev.pavior.invalid";
const DEV_AUDIENCE: &str = "pavior";

/// Who a development token is for.
#[derive(Debug, Clone, Default)]
pub struct DevClaims {
    /// The user's id, for example `alice`.
    pub subject: String,
    /// The organization's id, for example `acme`.
    pub organization: String,
    /// The ids of the groups that the token vouches for.
    pub groups: Vec<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The name for people.
    pub display_name: Option<String>,
    /// `user` (also when empty), `service` or `agent`.
    pub kind: String,
    /// The user whom a service or an agent acts for; empty when it acts for nobody.
    pub on_behalf_of: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    organization: &'a str,
    groups: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor<'a>>,
}

/// RFC 8693 §4.1: who acts for the subject.
#[derive(Serialize)]
struct Actor<'a> {
    sub: &'a str,
    kind: &'a str,
}

/// Mints tokens for development and for the quickstart. Never part of a deployment that others use.
#[derive(Clone)]
pub struct DevIssuer {
    key: SigningKey,
    jwks: PathBuf,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGen>,
}

impl std::fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevIssuer").field("jwks", &self.jwks).finish_non_exhaustive()
    }
}

impl DevIssuer {
    /// Opens the issuer in `directory`, making its key (`dev-issuer.pem`, owner only) and its key set
    /// (`dev-issuer.jwks.json`) where they are missing.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>, ids: Arc<dyn IdGen>) -> Result<Self, AuthError> {
        let file_error = |path: &Path| {
            let path = path.display().to_string();
            move |source| AuthError::File { path, source }
        };
        std::fs::create_dir_all(directory).map_err(file_error(directory))?;
        let key = SigningKey::load_or_create(&directory.join("dev-issuer.pem"))?;
        let jwks = directory.join("dev-issuer.jwks.json");
        let public = key.public();
        let set = serde_json::json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": public.kid(), "x": public.jwk_x(),
        }] });
        let text = format!("{set:#}\n");
        if std::fs::read_to_string(&jwks).ok().as_deref() != Some(text.as_str()) {
            // Renamed into place, so that a reader never sees half of it.
            let partial = directory.join(format!(".dev-issuer.jwks.{}", ids.uuid()));
            std::fs::write(&partial, text).map_err(file_error(&partial))?;
            std::fs::rename(&partial, &jwks).map_err(file_error(&jwks))?;
        }
        Ok(Self { key, jwks, clock, ids })
    }

    /// The configuration with which a [`crate::TokenVerifier`] accepts the tokens of this issuer.
    pub fn config(&self, organizations: Vec<String>, installation_operators: Vec<String>) -> IssuerConfig {
        IssuerConfig {
            jwks_file: Some(self.jwks.clone()),
            algorithms: vec![Algorithm::EdDsa],
            organization_claim: Some("organization".to_owned()),
            groups_claim: Some("groups".to_owned()),
            email_claim: Some("email".to_owned()),
            kind_claim: Some("kind".to_owned()),
            organizations,
            kinds: vec![PrincipalKind::User, PrincipalKind::ServiceAccount, PrincipalKind::Agent],
            installation_operators,
            ..IssuerConfig::new(DEV_ISSUER, DEV_AUDIENCE)
        }
    }

    /// Mints a token that lives for `lifetime`.
    pub fn mint(&self, claims: &DevClaims, lifetime: time::Duration) -> Result<String, AuthError> {
        let now = self.clock.now().unix_timestamp();
        let kind = if claims.kind.is_empty() { "user" } else { &claims.kind };
        let (sub, kind, act) = match claims.on_behalf_of.as_str() {
            "" => (claims.subject.as_str(), kind, None),
            human => (human, "user", Some(Actor { sub: &claims.subject, kind })),
        };
        let claims = Claims {
            iss: DEV_ISSUER,
            aud: DEV_AUDIENCE,
            sub,
            iat: now,
            nbf: now,
            exp: now.saturating_add(lifetime.whole_seconds()),
            jti: self.ids.uuid().to_string(),
            organization: &claims.organization,
            groups: &claims.groups,
            email: claims.email.as_deref(),
            name: claims.display_name.as_deref(),
            kind,
            act,
        };
        jwt::sign("JWT", &self.key.public().kid(), &claims, &self.key)
    }
}

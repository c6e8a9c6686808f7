//! What is configured for each issuer of external tokens.

use serde::{Deserialize, Serialize};

use crate::error::AuthError;

/// A signature algorithm that an issuer may use. Symmetric ones do not exist here: a verifier that can also sign
/// proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
    ES256,
    ES384,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
        }
    }

    pub(crate) fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
        }
    }
}

/// One issuer whose tokens are accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` that a token must be for.
    pub audience: String,
    /// The file with its keys (a JWK set). Exactly one of file and URL.
    #[serde(default)]
    pub jwks_file: Option<std::path::PathBuf>,
    /// The URL of its keys: `https`, or `http` on the machine itself.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// Allows `http` for the key set of another machine, for closed networks.
    #[serde(default)]
    pub jwks_allow_http: bool,
    /// The signature algorithms that its keys may be for.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// The organization of all its users. Exactly one of this and the claim.
    #[serde(default)]
    pub organization: Option<String>,
    /// The claim that holds the organization.
    #[serde(default)]
    pub organization_claim: Option<String>,
    /// The claim that holds the user's id.
    #[serde(default = "default_subject")]
    pub subject_claim: String,
    /// The claim that holds the groups (an array of ids).
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// The claim that holds the e-mail address.
    #[serde(default)]
    pub email_claim: Option<String>,
    /// The claim that holds the kind of principal (`user`, `service`, `agent`); all are users without it.
    #[serde(default)]
    pub kind_claim: Option<String>,
    /// Users that may act on the platform itself and in every organization: subjects, or full resource names where
    /// subjects are unique only within an organization.
    #[serde(default)]
    pub platform_admins: Vec<String>,
    /// The shortest time between two fetches of the keys because of an unknown key.
    #[serde(default = "default_cooldown")]
    pub jwks_cooldown_seconds: u32,
    /// The longest time that keys are used without looking for newer ones.
    #[serde(default = "default_max_age")]
    pub jwks_max_age_seconds: u32,
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::EdDsa, Algorithm::ES256, Algorithm::RS256]
}

fn default_subject() -> String {
    "sub".to_owned()
}

fn default_cooldown() -> u32 {
    30
}

fn default_max_age() -> u32 {
    300
}

impl IssuerConfig {
    /// A configuration with the defaults.
    pub fn new(issuer: &str, audience: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            jwks_file: None,
            jwks_url: None,
            jwks_allow_http: false,
            algorithms: default_algorithms(),
            organization: None,
            organization_claim: None,
            subject_claim: default_subject(),
            groups_claim: None,
            email_claim: None,
            kind_claim: None,
            platform_admins: Vec::new(),
            jwks_cooldown_seconds: default_cooldown(),
            jwks_max_age_seconds: default_max_age(),
        }
    }

    /// Checks that the configuration is complete and not contradictory.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), AuthError> {
        let wrong =
            |reason: &str| Err(AuthError::Issuer { issuer: self.issuer.clone(), reason: reason.to_owned() });
        if self.issuer.is_empty() || self.audience.is_empty() || self.subject_claim.is_empty() {
            return wrong("`issuer`, `audience` and `subject_claim` must not be empty");
        }
        if self.jwks_file.is_some() == self.jwks_url.is_some() {
            return wrong("exactly one of `jwks_file` and `jwks_url` must be set");
        }
        if self.organization.is_some() == self.organization_claim.is_some() {
            return wrong("exactly one of `organization` and `organization_claim` must be set");
        }
        if let Some(organization) = &self.organization
            && pavior_core::name::validate_id(organization).is_err()
        {
            return wrong("`organization` is not a legal id");
        }
        if self.algorithms.is_empty() {
            return wrong("`algorithms` must not be empty");
        }
        if let Some(url) = &self.jwks_url {
            let url = reqwest::Url::parse(url).ok().filter(|url| url.host_str().is_some());
            let Some(url) = url else { return wrong("`jwks_url` is not a URL") };
            let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
            let safe = url.scheme() == "https" || (url.scheme() == "http" && (local || self.jwks_allow_http));
            if !safe {
                return wrong("`jwks_url` must be https, or http on this machine");
            }
        }
        Ok(())
    }
}

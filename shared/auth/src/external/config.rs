//! What is configured for each issuer of external tokens.

use pavior_core::id::{validate_id, validate_id_in};
use pavior_core::principal::{INSTALLATION, PrincipalKind};
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
    /// The organizations that it may speak for where a claim holds them; `pavior` for the installation itself, which has nobody
    /// but its operators.
    #[serde(default)]
    pub organizations: Vec<String>,
    /// The kinds of principals that it may speak for.
    #[serde(default)]
    pub kinds: Vec<PrincipalKind>,
    /// The claim that holds the user's id.
    #[serde(default = "default_subject")]
    pub subject_claim: String,
    /// The claim that holds the groups (an array of ids).
    #[serde(default)]
    pub groups_claim: Option<String>,
    /// The claim that holds the e-mail address.
    #[serde(default)]
    pub email_claim: Option<String>,
    /// The claim that holds the kind of principal (`user`, `service_account`, `agent`); all are users without it.
    #[serde(default)]
    pub kind_claim: Option<String>,
    /// The claim in which a service account or an agent names the user that it acts for: an id, or a full resource name.
    /// Where a token carries `act` (RFC 8693 §4.1), its subject is that user, and the actor is who acts.
    #[serde(default)]
    pub on_behalf_of_claim: Option<String>,
    /// Users that may act on the platform itself and in every organization, by full resource name:
    /// `organizations/pavior/users/{user}` for the platform's own, `organizations/{organization}/users/{user}` for others.
    #[serde(default)]
    pub installation_operators: Vec<String>,
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
            organizations: Vec::new(),
            kinds: Vec::new(),
            kind_claim: None,
            on_behalf_of_claim: None,
            installation_operators: Vec::new(),
            jwks_cooldown_seconds: default_cooldown(),
            jwks_max_age_seconds: default_max_age(),
        }
    }

    /// Checks that the configuration is complete and not contradictory.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), AuthError> {
        let wrong = |reason: &str| Err(self.wrong(reason));
        if self.issuer.is_empty() || self.audience.is_empty() || self.subject_claim.is_empty() {
            return wrong("`issuer`, `audience` and `subject_claim` must not be empty");
        }
        if self.jwks_file.is_some() == self.jwks_url.is_some() {
            return wrong("exactly one of `jwks_file` and `jwks_url` must be set");
        }
        if self.organization.is_some() == self.organization_claim.is_some() {
            return wrong("exactly one of `organization` and `organization_claim` must be set");
        }
        if self.kinds.contains(&PrincipalKind::Service) {
            return wrong(
                "`kinds`: services are the platform's own, a machine's identity is a `service_account`",
            );
        }
        self.validate_scope()?;
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

    /// For whom it may speak. Nobody is meant where nobody is named.
    fn validate_scope(&self) -> Result<(), AuthError> {
        let legal = |organization: &str| validate_id(organization).is_ok();
        if !self.organization.as_deref().is_none_or(legal) {
            return Err(self.wrong("`organization` is not a legal id"));
        }
        if let Some(other) = self.organizations.iter().find(|organization| !legal(organization)) {
            return Err(self.wrong(&format!(
                "`organizations`: `{other}` is not a legal id; that of the installation is `{INSTALLATION}`"
            )));
        }
        match (&self.organization, self.organizations.is_empty()) {
            (None, true) => {
                return Err(self.wrong(
                    "it may speak for no organization: write the ids of those that it is for, for example \
                     `organizations = [\"acme\"]`",
                ));
            }
            (Some(_), false) => {
                return Err(self.wrong(
                    "`organizations` is for `organization_claim`: leave it out beside `organization`",
                ));
            }
            (None, false) | (Some(_), true) => {}
        }
        if self.kinds.is_empty() {
            return Err(self.wrong(
                "it may speak for nobody: write the kinds of principals that it is for, for example \
                 `kinds = [\"user\"]` (of `user`, `service_account`, `agent`)",
            ));
        }
        if self.kind_claim.is_none() && !self.kinds.contains(&PrincipalKind::User) {
            return Err(
                self.wrong("without `kind_claim` all its principals are users: `kinds` must hold `user`")
            );
        }
        self.installation_operators.iter().try_for_each(|operator| self.validate_operator(operator))
    }

    fn validate_operator(&self, operator: &str) -> Result<(), AuthError> {
        let parts = operator.strip_prefix("organizations/").and_then(|rest| rest.split_once("/users/"));
        let full = parts.filter(|(organization, user)| {
            validate_id(organization).is_ok() && validate_id_in("users", user).is_ok()
        });
        let Some((organization, _)) = full else {
            return Err(self.wrong(&format!(
                "`installation_operators`: `{operator}` is not the full name of a user: write \
                 `organizations/{INSTALLATION}/users/{{user}}` for an operator who belongs to no organization, else \
                 `organizations/{{organization}}/users/{{user}}`"
            )));
        };
        if !self.speaks_for(organization) {
            return Err(self.wrong(&format!(
                "`installation_operators`: `{operator}` is of an organization that it does not speak for: add it to `organizations`"
            )));
        }
        if self.kinds.contains(&PrincipalKind::User) {
            return Ok(());
        }
        Err(self.wrong("`installation_operators` names users, and `kinds` does not hold `user`"))
    }

    /// Whether its tokens may be of the organization.
    pub(crate) fn speaks_for(&self, organization: &str) -> bool {
        match &self.organization {
            Some(fixed) => fixed == organization,
            None => self.organizations.iter().any(|one| one == organization),
        }
    }

    fn wrong(&self, reason: &str) -> AuthError {
        AuthError::Issuer { issuer: self.issuer.clone(), reason: reason.to_owned() }
    }
}

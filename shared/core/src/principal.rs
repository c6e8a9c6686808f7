//! Who acts.

use serde::{Deserialize, Serialize};

/// The organization id of the installation itself: of the services of the platform, of its operators, and of the log of
/// what belongs to no organization. No organization can have it.
pub const INSTALLATION: &str = "pavior";

/// The role of the gateway.
pub const GATEWAY: &str = "gateway";

/// The services of the platform, by role. A service acts as `organizations/pavior/services/{role}`, in whichever
/// organization.
pub const PLATFORM_SERVICES: [&str; 7] =
    [GATEWAY, "catalog", "provisioning", "policy", "audit", "drivers", "portal"];

/// The resource name of the installation itself.
pub fn installation_name() -> String {
    format!("organizations/{INSTALLATION}")
}

/// The resource name of a service of the platform.
pub fn service_name(role: &str) -> String {
    format!("organizations/{INSTALLATION}/{}/{role}", PrincipalKind::Service.collection())
}

/// What is said about an id of [`is_reserved`].
pub const RESERVED_ID: &str = "is the platform's own name";

/// True for ids that are the platform's own: its services, and whoever looks after it. Nobody from outside is called
/// so, and nobody can be made who would be taken for one of them.
pub fn is_reserved(id: &str) -> bool {
    PLATFORM_SERVICES.contains(&id) || matches!(id, "operator" | "system")
}

/// The id of the group that everybody in an organization belongs to: users, service accounts and agents. Nobody makes it,
/// joins it or leaves it.
pub const EVERYONE: &str = "everyone";

/// The kind of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A service of the platform itself. No issuer speaks for one.
    Service,
    /// A machine identity of an organization, such as CI.
    ServiceAccount,
    /// An automated agent that acts for somebody (see [`Principal::on_behalf_of`]).
    Agent,
}

impl PrincipalKind {
    /// The lower-case name, as it stands in tokens and audit records.
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::User => "user",
            PrincipalKind::Service => "service",
            PrincipalKind::ServiceAccount => "service_account",
            PrincipalKind::Agent => "agent",
        }
    }

    /// The collection of resource names that such principals are called by.
    pub fn collection(self) -> &'static str {
        match self {
            PrincipalKind::User => "users",
            PrincipalKind::Service => "services",
            PrincipalKind::ServiceAccount => "serviceAccounts",
            PrincipalKind::Agent => "agents",
        }
    }
}

impl std::fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An authenticated identity. Only `pavior-auth` makes one from outside input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// User, service, service account or agent.
    pub kind: PrincipalKind,
    /// The resource name, such as `organizations/acme/users/alice`.
    pub name: String,
    /// The organization's id, such as `acme`.
    pub organization: String,
    /// The subject as the identity provider knows it.
    pub subject: String,
    /// Ids of the groups that the identity provider claims.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Personal data: never in the clear in an audit record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Personal data, as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// May operate the whole installation, across organizations.
    #[serde(default)]
    pub installation_operator: bool,
    /// The resource name of the principal for whom this one acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
}

impl Principal {
    /// Whose requests a request id tells apart: those of a name; of an agent, those that it makes for one and the same
    /// principal.
    pub fn asker(&self) -> String {
        match &self.on_behalf_of {
            Some(human) => format!("{} for {human}", self.name),
            None => self.name.clone(),
        }
    }
}

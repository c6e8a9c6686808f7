//! The services of the platform.

use clap::ValueEnum;
use pavior_store::Store;

/// A service of the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Role {
    /// The audit log.
    Audit,
    /// The catalog: what exists, and which golden paths there are.
    Catalog,
    /// Access and guardrail policies, decisions, approvals.
    Policy,
    /// Plans and operations: projects, environments, deployments.
    Provisioning,
    /// The only public listener.
    Gateway,
}

impl Role {
    /// Every role, in the order in which they depend on each other.
    pub const ALL: [Self; 5] = [Self::Audit, Self::Catalog, Self::Policy, Self::Provisioning, Self::Gateway];

    /// The role's name, as it stands in tokens, in configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Catalog => "catalog",
            Self::Policy => "policy",
            Self::Provisioning => "provisioning",
            Self::Gateway => "gateway",
        }
    }

    /// Applies the migrations of the role's database.
    pub(super) async fn migrate(self, store: &Store) -> anyhow::Result<()> {
        match self {
            Self::Audit => pavior_audit::migrate(store).await?,
            Self::Catalog => pavior_catalog::migrate(store).await?,
            Self::Policy => pavior_policy::migrate(store).await?,
            Self::Provisioning => pavior_provisioning::migrate(store).await?,
            Self::Gateway => {}
        }
        Ok(())
    }
}

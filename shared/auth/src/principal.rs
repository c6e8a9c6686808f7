//! Services of the platform as principals.

use pavior_core::principal::{INSTALLATION, Principal, PrincipalKind, service_name};

/// A service of the platform as itself: the same in every organization that it works for.
pub(crate) fn service_principal(role: &str) -> Principal {
    Principal {
        kind: PrincipalKind::Service,
        name: service_name(role),
        organization: INSTALLATION.to_owned(),
        subject: role.to_owned(),
        groups: Vec::new(),
        email: None,
        display_name: None,
        installation_operator: false,
        on_behalf_of: None,
    }
}

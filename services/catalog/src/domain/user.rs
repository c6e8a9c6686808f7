//! Users.

use pavior_core::Fault;

use super::{Fields, Violations, text};
use crate::json::{Json, json};

/// A person.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct UserFields {
    pub(crate) display_name: String,
    pub(crate) email: String,
}

impl Fields for UserFields {
    const SINGULAR: &'static str = "user";
    const TYPE: &'static str = "identity.pavior.dev/User";

    fn name(&self, organization: &str, id: &str) -> String {
        format!("organizations/{organization}/users/{id}")
    }

    fn check(&self, _organization: &str, _id: &str) -> Violations {
        let mut violations = Violations::new();
        if !self.email.is_empty() && !is_email(&self.email) {
            violations.add(
                "email",
                Fault::Pattern,
                format!("`{}` is not an e-mail address", text::shown(&self.email)),
            );
        }
        violations
    }

    fn snapshot(&self) -> Json {
        let Self { display_name, email } = self;
        json!({ "displayName": display_name, "email": email })
    }
}

/// As loosely as RFC 5321 allows without a parser: something, one `@` that divides, something, no spaces.
fn is_email(email: &str) -> bool {
    match email.rsplit_once('@') {
        Some((local, domain)) => {
            !local.is_empty() && !domain.is_empty() && !email.chars().any(char::is_whitespace)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_table() {
        for email in ["a@b", "a.b+c@example.com", "\"a@b\"@c"] {
            assert!(is_email(email), "{email}");
        }
        for email in ["a", "@b", "a@", "a b@c"] {
            assert!(!is_email(email), "{email}");
        }
    }
}

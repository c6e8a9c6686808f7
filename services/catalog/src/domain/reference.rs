//! References from one entity to another, or to a group or user, in the forms that the field writes: `cart`,
//! `component:cart`, `group:default/payments`, and resource names.

use pavior_core::ResourceName;
use pavior_core::principal::EVERYONE;

use super::text::shown;

/// The annotation that keeps the namespace of an imported document, so that its references are read in it.
pub(crate) const NAMESPACE_ANNOTATION: &str = "backstage.io/namespace";
const DEFAULT_NAMESPACE: &str = "default";

/// The kind of references to groups of the organization. They are no entities.
pub(crate) const GROUP: &str = "group";
/// The kind of references to its users, which are no entities either.
pub(crate) const USER: &str = "user";

/// An entity by kind and id; of the kinds [`GROUP`] and [`USER`], a group or user of the organization.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntityKey {
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl EntityKey {
    pub(crate) fn new(kind: impl Into<String>, id: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into() }
    }

    /// The resource name.
    pub(crate) fn name(&self, organization: &str) -> String {
        let Self { kind, id } = self;
        match kind.as_str() {
            GROUP => format!("organizations/{organization}/groups/{id}"),
            USER => format!("organizations/{organization}/users/{id}"),
            _ => format!("organizations/{organization}/kinds/{kind}/entities/{id}"),
        }
    }

    /// Whether it is a group or user. What everybody owned would be open to everybody who may change what is theirs.
    pub(crate) fn may_own(&self) -> bool {
        match self.kind.as_str() {
            GROUP => self.id != EVERYONE,
            kind => kind == USER,
        }
    }
}

/// Where a reference stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) organization: &'a str,
    /// The namespace of the document; `None` for the default one.
    pub(crate) namespace: Option<&'a str>,
    /// The kind that a reference without one points at; empty when there is no such.
    pub(crate) default_kind: &'a str,
}

/// Reads a reference.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn parse(text: &str, origin: Origin<'_>) -> Result<EntityKey, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("a reference must not be empty".to_owned());
    }
    if text.starts_with("organizations/") {
        return parse_name(text, origin.organization);
    }
    let (kind, rest) = match text.split_once(':') {
        Some((kind, rest)) => (kind.to_ascii_lowercase(), rest),
        None => (origin.default_kind.to_owned(), text),
    };
    if kind.is_empty() {
        return Err(format!("`{}` must name its kind, as in `component:cart`", shown(text)));
    }
    pavior_core::validate_id(&kind).map_err(|error| error.to_string())?;
    let (namespace, name) = match rest.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (origin.namespace, rest),
    };
    let id = if kind == USER { user_id(name)? } else { entity_id(namespace, name)? };
    Ok(EntityKey { kind, id })
}

/// Entities, and the groups and users of the organization.
fn parse_name(text: &str, organization: &str) -> Result<EntityKey, String> {
    let name = ResourceName::parse(text).map_err(|error| error.to_string())?;
    if name.organization() != organization {
        return Err(format!("`{}` is not in the same organization", shown(text)));
    }
    let key = if name.matches("organizations/{o}/kinds/{k}/entities/{e}") {
        EntityKey::new(name.get("kinds").unwrap_or_default(), name.id())
    } else if name.matches("organizations/{o}/groups/{g}") {
        EntityKey::new(GROUP, name.id())
    } else if name.matches("organizations/{o}/users/{u}") {
        EntityKey::new(USER, name.id())
    } else {
        return Err(format!("`{}` does not name an entity, a group or a user", shown(text)));
    };
    // There are no entities of the kinds that stand for groups and users.
    if key.name(organization) == text {
        return Ok(key);
    }
    Err(format!("`{}` does not name an entity, a group or a user", shown(text)))
}

/// The id of the user whom other tools call `name`. Users are in no namespace, and names are compared without case.
pub(crate) fn user_id(name: &str) -> Result<String, String> {
    let id = name.to_ascii_lowercase();
    match pavior_core::id::validate_id_in("users", &id) {
        Ok(()) => Ok(id),
        Err(error) => Err(format!("`{}` cannot be a user's name: {error}", shown(name))),
    }
}

/// The id of an entity or group that other tools call `namespace/name`. Names are compared without case there, and may hold
/// `_` and `.`; these become hyphens. A namespace other than the default one is put in front.
pub(crate) fn entity_id(namespace: Option<&str>, name: &str) -> Result<String, String> {
    let mut id = String::new();
    if let Some(namespace) = namespace.map(str::to_ascii_lowercase).filter(|n| n != DEFAULT_NAMESPACE) {
        id.push_str(&namespace);
        id.push('-');
    }
    id.push_str(&name.to_ascii_lowercase());
    let id: String = id.chars().map(|c| if c == '_' || c == '.' || c == '@' { '-' } else { c }).collect();
    match pavior_core::validate_id(&id) {
        Ok(()) => Ok(id),
        Err(error) => Err(format!("`{}` cannot be an entity's name: {error}", shown(name))),
    }
}

/// The namespace that is worth keeping.
pub(crate) fn namespace(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.eq_ignore_ascii_case(DEFAULT_NAMESPACE)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORIGIN: Origin<'static> =
        Origin { organization: "acme", namespace: None, default_kind: "component" };

    #[test]
    fn references_table() {
        for (text, kind, id) in [
            ("cart", "component", "cart"),
            ("api:cart", "api", "cart"),
            ("API:default/Cart_V2", "api", "cart-v2"),
            ("Component:payments/cart", "component", "payments-cart"),
            ("payments/cart", "component", "payments-cart"),
            ("user:frank.tiernan", "user", "frank.tiernan"),
            ("User:payments/Frank.Tiernan", "user", "frank.tiernan"),
            ("group:payments/team_a", "group", "payments-team-a"),
            ("organizations/acme/kinds/system/entities/shop", "system", "shop"),
            ("organizations/acme/groups/team-a", "group", "team-a"),
            ("organizations/acme/users/a.b@c.example", "user", "a.b@c.example"),
        ] {
            assert_eq!(parse(text, ORIGIN), Ok(EntityKey::new(kind, id)), "{text}");
        }
        let origin = Origin { namespace: Some("payments"), ..ORIGIN };
        assert_eq!(parse("cart", origin).unwrap().id, "payments-cart");
        assert_eq!(parse("default/cart", origin).unwrap().id, "cart");
    }

    #[test]
    fn bad_references_are_refused() {
        for text in [
            "",
            "  ",
            ":x",
            "component:",
            "a b",
            "k_k:x",
            "component:a/b/c",
            "organizations/other/kinds/api/entities/x",
            "organizations/acme/projects/x",
            "organizations/acme/kinds/group/entities/payments",
            "organizations/acme/kinds/user/entities/alice",
            "user:_x",
            "organizations/acme",
            "-x",
        ] {
            assert!(parse(text, ORIGIN).is_err(), "{text}");
        }
        assert!(
            parse("cart", Origin { default_kind: "", ..ORIGIN }).unwrap_err().contains("must name its kind")
        );
    }

    proptest! {
        #[test]
        fn what_parses_is_a_resource_name(text in ".{0,40}") {
            if let Ok(key) = parse(&text, ORIGIN) {
                prop_assert!(ResourceName::parse(&key.name("acme")).is_ok());
            }
        }
    }
}

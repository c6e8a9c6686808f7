//! The name of the resource that a call is about.

use pavior_core::Fault;
use pavior_core::name::ResourceName;
use pavior_core::principal::{INSTALLATION, installation_name};

/// All organizations (AIP-159). What is asked about all of them is asked about the installation.
const ALL: &str = "organizations/-";
/// Stands for a wildcard, or for the installation, where a name is checked as if it were that of one thing in an
/// organization.
const SOME_ID: &str = "0a000000-0000-7000-8000-000000000000";

/// A checked name. Ids below the organization may be `-`, which stands for all (AIP-159). Below the installation stands
/// what belongs to no organization, such as decisions about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) name: String,
    pub(crate) organization: String,
}

impl Resource {
    /// The installation itself.
    pub(crate) fn installation() -> Self {
        Self { name: installation_name(), organization: INSTALLATION.to_owned() }
    }

    /// The resource that a request is decided on. All organizations at once are the installation's concern; which methods
    /// take them is for their services to say.
    pub(crate) fn governed(name: &str) -> Result<Self, String> {
        if name == ALL { Ok(Self::installation()) } else { Self::parse(name) }
    }

    /// The one resource, or the resources of one organization, that a name is of.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let mut segments: Vec<&str> = name.split('/').collect();
        if segments.starts_with(&["organizations", "-"]) {
            let installation = installation_name();
            return Err(format!(
                "`{name}` is of all organizations at once: name one of them, or the installation itself as \
                 `{installation}`"
            ));
        }
        let of_installation = segments.get(1) == Some(&INSTALLATION);
        for (at, segment) in segments.iter_mut().enumerate() {
            if (at == 1 && of_installation) || (at > 1 && *segment == "-") {
                *segment = SOME_ID;
            }
        }
        match ResourceName::parse(&segments.join("/")) {
            Ok(_) if of_installation => {
                Ok(Self { name: name.to_owned(), organization: INSTALLATION.to_owned() })
            }
            Ok(parsed) => Ok(Self { name: name.to_owned(), organization: parsed.organization().to_owned() }),
            Err(_) if name.is_empty() => Err("must be set".to_owned()),
            // What is told is what was given.
            Err(error) => {
                let told = error.to_string();
                let told = told.replace(&format!("organizations/{SOME_ID}"), &installation_name());
                Err(told.replace(SOME_ID, "-"))
            }
        }
    }

    /// What is wrong with a name that is none, for programs.
    pub(crate) fn fault(name: &str) -> Fault {
        if name.is_empty() { Fault::Required } else { Fault::Pattern }
    }

    /// What it is in.
    pub(crate) fn parent(&self) -> Result<Self, String> {
        let above = self.name.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once('/'));
        Self::parse(above.map_or("", |(above, _)| above))
    }

    /// Whether it is the installation, or of it.
    pub(crate) fn is_of_installation(&self) -> bool {
        self.organization == INSTALLATION
    }

    /// The name of the organization.
    pub(crate) fn organization_name(&self) -> String {
        format!("organizations/{}", self.organization)
    }

    /// The nearest part of the name without a wildcard.
    pub(crate) fn concrete(&self) -> &str {
        if self.is_of_installation() {
            return &self.name;
        }
        let mut end = 0;
        let mut collection_end = 0;
        for (index, segment) in self.name.split('/').enumerate() {
            let start = collection_end;
            collection_end = start + segment.len() + 1;
            if index % 2 == 1 {
                if segment == "-" {
                    break;
                }
                end = start + segment.len();
            }
        }
        &self.name[..end]
    }

    /// The project that the resource is or belongs to; empty when none.
    pub(crate) fn project(&self) -> String {
        let mut segments = self.name.split('/');
        match (segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some(_), Some(organization), Some("projects"), Some(project)) if project != "-" => {
                format!("organizations/{organization}/projects/{project}")
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_organization_and_may_have_wildcards_below_it() {
        let all = Resource::parse("organizations/acme/kinds/-/entities/a").unwrap();
        assert_eq!((all.organization.as_str(), all.concrete()), ("acme", "organizations/acme"));
        let one = Resource::parse("organizations/acme/projects/hello/environments/dev").unwrap();
        assert_eq!(one.concrete(), one.name);
        assert_eq!(one.project(), "organizations/acme/projects/hello");
        assert_eq!(one.parent().unwrap().name, "organizations/acme/projects/hello");
        assert!(Resource::parse("organizations/acme").unwrap().parent().is_err());
        assert_eq!(one.organization_name(), "organizations/acme");
        assert_eq!(Resource::parse("organizations/pavior").unwrap(), Resource::installation());
        assert_eq!(Resource::governed("organizations/pavior").unwrap(), Resource::installation());
        assert_eq!(Resource::governed("organizations/-").unwrap(), Resource::installation());
        let below = Resource::parse("organizations/pavior/decisions/x").unwrap();
        assert_eq!(
            (below.is_of_installation(), below.concrete()),
            (true, "organizations/pavior/decisions/x")
        );
        assert_eq!(Resource::parse("organizations/acme").unwrap().concrete(), "organizations/acme");
        for bad in [
            "",
            "acme",
            "organizations",
            "organizations/",
            "organizations/-/decisions",
            "organizations/pavior/decisions",
            "organizations/pavior/decisions/A B",
            "organizations/ACME",
            "organizations/acme/",
            "/organizations/acme",
            "organizations/acme/projects",
            "organizations/acme/../a/b",
            "organizations/acme/users/-/../x",
            "users/-",
            "-/-",
        ] {
            assert!(Resource::parse(bad).is_err(), "{bad}");
        }
        for (bad, wanted) in [
            (
                "organizations/-",
                "`organizations/-` is of all organizations at once: name one of them, or the installation itself as \
                 `organizations/pavior`",
            ),
            (
                "organizations/-/decisions/x",
                "`organizations/-/decisions/x` is of all organizations at once: name one of them, or the \
                 installation itself as `organizations/pavior`",
            ),
            (
                "organizations/pavior/decisions",
                "resource name `organizations/pavior/decisions` must be pairs of collection and id, as in \
                 `organizations/acme`",
            ),
        ] {
            assert_eq!(Resource::parse(bad).unwrap_err(), wanted);
        }
    }
}

//! The name of the resource that a call is about.

use pavior_core::name::ResourceName;

/// The name of the installation itself.
pub(crate) const PLATFORM: &str = "organizations/-";
/// The organization id of the installation itself.
pub(crate) use pavior_core::principal::PLATFORM as PLATFORM_ID;

/// A checked name. Ids below the organization may be `-`, which stands for all (AIP-159). Below the installation stands
/// what belongs to no organization, such as decisions about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) name: String,
    pub(crate) organization: String,
}

impl Resource {
    /// The installation itself.
    pub(crate) fn platform() -> Self {
        Self { name: PLATFORM.to_owned(), organization: PLATFORM_ID.to_owned() }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        if name == PLATFORM {
            return Ok(Self::platform());
        }
        // A wildcard is checked as if it were some id; an organization cannot be one.
        let concrete: String;
        let of_platform = name.strip_prefix(PLATFORM).is_some_and(|rest| rest.starts_with('/'));
        let checked = if of_platform || name.ends_with("/-") || name.contains("/-/") {
            let mut segments: Vec<&str> = name.split('/').collect();
            for segment in segments.iter_mut().skip(if of_platform { 1 } else { 2 }) {
                if *segment == "-" {
                    *segment = "0a000000-0000-7000-8000-000000000000";
                }
            }
            concrete = segments.join("/");
            concrete.as_str()
        } else {
            name
        };
        match ResourceName::parse(checked) {
            Ok(_) if of_platform => Ok(Self { name: name.to_owned(), organization: PLATFORM_ID.to_owned() }),
            Ok(parsed) => Ok(Self { name: name.to_owned(), organization: parsed.organization().to_owned() }),
            Err(_) if name.is_empty() => Err("must be set".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn is_platform(&self) -> bool {
        self.organization == PLATFORM_ID
    }

    /// The name of the organization.
    pub(crate) fn organization_name(&self) -> String {
        format!("organizations/{}", self.organization)
    }

    /// The nearest part of the name without a wildcard.
    pub(crate) fn concrete(&self) -> &str {
        if self.is_platform() {
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
        assert_eq!(one.organization_name(), "organizations/acme");
        assert!(Resource::parse(PLATFORM).unwrap().is_platform());
        let below = Resource::parse("organizations/-/decisions/x").unwrap();
        assert_eq!((below.is_platform(), below.concrete()), (true, "organizations/-/decisions/x"));
        assert_eq!(Resource::parse("organizations/acme").unwrap().concrete(), "organizations/acme");
        for bad in [
            "",
            "acme",
            "organizations",
            "organizations/",
            "organizations/-/decisions",
            "organizations/-/decisions/A B",
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
    }
}

//! The names of what provisioning owns.

use pavior_core::ResourceName;
use pavior_core::digest::sha256_hex;
use pavior_core::name::NameError;

/// Pattern of a project.
pub const PROJECT: &str = "organizations/{organization}/projects/{project}";
/// Pattern of an environment.
pub const ENVIRONMENT: &str = "organizations/{organization}/projects/{project}/environments/{environment}";
/// Pattern of a pipeline.
pub const PIPELINE: &str = "organizations/{organization}/projects/{project}/pipelines/{pipeline}";
/// Pattern of a run.
pub const RUN: &str = "organizations/{organization}/projects/{project}/pipelines/{pipeline}/runs/{run}";
/// Pattern of a deployment.
pub const DEPLOYMENT: &str =
    "organizations/{organization}/projects/{project}/environments/{environment}/deployments/{deployment}";
/// Pattern of an operation.
pub const OPERATION: &str = "organizations/{organization}/operations/{operation}";
/// Pattern of a plan.
pub const PLAN: &str = "organizations/{organization}/plans/{plan}";
/// Pattern of an organization.
pub const ORGANIZATION: &str = "organizations/{organization}";

/// The resource that runs an environment's code.
pub const WORKLOAD: &str = "workload";
/// The built-in driver of entries in the catalog.
pub const ENTITY_DRIVER: &str = "catalog-entity";

/// The identity of an entity of the catalog: its name, which another may have later, and its uid. The mark between them
/// comes before everything that a name can have, so that identities are in the order of names.
pub fn entity_identity(name: &str, uid: &str) -> String {
    if uid.is_empty() { name.to_owned() } else { format!("{name}#{uid}") }
}

/// Name and uid in the identity of an entity; of one from before it had the uid, and was recorded without it, that is empty.
pub fn entity_of(identity: &str) -> (&str, &str) {
    identity.split_once('#').unwrap_or((identity, ""))
}

/// The type that runs pipelines.
pub const PIPELINE_TYPE: &str = "ci-pipeline";

/// The name of an operation.
pub fn operation(organization: &str, id: &impl std::fmt::Display) -> String {
    format!("organizations/{organization}/operations/{id}")
}

/// The name of a plan.
pub fn plan(organization: &str, id: &impl std::fmt::Display) -> String {
    format!("organizations/{organization}/plans/{id}")
}

/// The last part of a name.
pub fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The part of a name before its last collection and id.
pub fn parent(name: &str) -> &str {
    let mut cut = name.rmatch_indices('/').map(|(at, _)| at);
    cut.next();
    cut.next().map_or("", |at| &name[..at])
}

/// The id of the organization that a name lies in; empty outside organizations.
pub fn organization_of(name: &str) -> &str {
    name.strip_prefix("organizations/").and_then(|rest| rest.split('/').next()).unwrap_or_default()
}

/// The project that a name lies in; empty outside projects.
pub fn project_of(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').take(4).collect();
    if parts.len() == 4 && parts[2] == "projects" { parts.join("/") } else { String::new() }
}

/// The environment that a name lies in; empty outside environments.
pub fn environment_of(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').take(6).collect();
    if parts.len() == 6 && parts[2] == "projects" && parts[4] == "environments" {
        parts.join("/")
    } else {
        String::new()
    }
}

/// The name under which a thing is recorded for its removal, where that of the resource which it was made for is another
/// thing's by now: below that name, where nothing can be declared.
pub fn orphan(resource: &str, driver: &str, identity: &str) -> String {
    let digest = sha256_hex(format!("{driver}\0{identity}").as_bytes());
    format!("{resource}/orphans/{}", digest.get(..16).unwrap_or_default())
}

/// The resource that a recorded thing was made for, which is how its driver knows it.
pub fn made_for(recorded: &str) -> &str {
    if recorded.rsplit('/').nth(1) == Some("orphans") { parent(recorded) } else { recorded }
}

/// What a list is of: what one parent has, or what all have that a `-` in the place of its last ids stands for (AIP-159).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The part of its name before any `-`.
    named: ResourceName,
    is_one: bool,
    pattern: &'static str,
}

impl Parent {
    /// Parses a name of this pattern.
    pub fn parse(name: &str, pattern: &'static str) -> Result<Self, NameError> {
        let (mut named, mut form) = (name, pattern);
        while let Some((above, collection)) =
            named.strip_suffix("/-").and_then(|collection| collection.rsplit_once('/'))
            && form.rsplit('/').nth(1) == Some(collection)
        {
            (named, form) = (above, parent(form));
        }
        match ResourceName::parse_as(named, form) {
            Ok(named) => Ok(Self { named, is_one: form == pattern, pattern }),
            // What is wrong is said about the whole of what was given.
            Err(error) => Err(ResourceName::parse_as(name, pattern).err().unwrap_or(error)),
        }
    }

    /// The organization's id.
    pub fn organization(&self) -> &str {
        self.named.organization()
    }

    /// Its name, if it is one thing.
    pub fn one(&self) -> Option<&ResourceName> {
        self.is_one.then_some(&self.named)
    }

    /// The project that it is or lies in; nothing for all of the organization.
    pub fn project(&self) -> Option<String> {
        Some(project_of(self.named.as_str())).filter(|project| !project.is_empty())
    }

    /// The pattern of its name.
    pub fn pattern(&self) -> &'static str {
        self.pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_names() {
        let name = "organizations/acme/projects/p/environments/dev/resources/db";
        assert_eq!(last(name), "db");
        assert_eq!(parent(name), "organizations/acme/projects/p/environments/dev");
        assert_eq!(project_of(name), "organizations/acme/projects/p");
        assert_eq!(environment_of(name), "organizations/acme/projects/p/environments/dev");
        assert_eq!(environment_of("organizations/acme/projects/p/resources/db"), "");
        assert_eq!(project_of("organizations/acme"), "");
        assert_eq!(parent("organizations/acme"), "");
    }

    #[test]
    fn what_is_left_behind_has_a_name_below_that_of_its_resource() {
        let resource = "organizations/acme/projects/orphans/environments/orphans/resources/orphans";
        let own = orphan(resource, "fake", "fake-1");
        assert_eq!((made_for(&own), made_for(resource)), (resource, resource));
        assert_eq!(environment_of(&own), environment_of(resource));
        assert_ne!(own, orphan(resource, "fake", "fake-2"));
        assert_ne!(own, orphan(resource, "fak", "e\0fake-1"));
        assert!(ResourceName::parse(&own).is_ok());
    }

    #[test]
    fn a_hyphen_stands_for_all_in_the_place_of_the_last_ids_only() {
        let all = "organizations/acme";
        let one = "organizations/acme/projects/p";
        let pipeline = "organizations/acme/projects/p/pipelines/x";
        for (name, pattern, named, is_one) in [
            (format!("{all}/projects/-"), PROJECT, all, false),
            (one.to_owned(), PROJECT, one, true),
            (format!("{all}/projects/-/pipelines/-"), PIPELINE, all, false),
            (format!("{one}/pipelines/-"), PIPELINE, one, false),
            (pipeline.to_owned(), PIPELINE, pipeline, true),
        ] {
            let parent = Parent::parse(&name, pattern).unwrap();
            assert_eq!((parent.named.as_str(), parent.one().is_some()), (named, is_one), "{name}");
            assert_eq!(parent.project().as_deref(), (named != all).then_some(one), "{name}");
        }
        for (name, pattern) in [
            (format!("{one}/environments/-"), PIPELINE),
            (format!("{all}/projects/-/pipelines/x"), PIPELINE),
            (format!("{all}/projects/-/-"), PROJECT),
            ("organizations/-".to_owned(), ORGANIZATION),
            ("organizations/-/projects/-".to_owned(), PROJECT),
        ] {
            let error = Parent::parse(&name, pattern).unwrap_err();
            assert_eq!(error, ResourceName::parse_as(&name, pattern).unwrap_err(), "{name}");
        }
    }
}

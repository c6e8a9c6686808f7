//! The names of what provisioning owns.

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
}

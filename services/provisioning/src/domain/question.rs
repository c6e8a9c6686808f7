//! Questions to policy about a plan, and the things that they are about.

use std::collections::BTreeMap;

use super::form::form;

/// Makes an environment.
pub const CREATE_ENVIRONMENT: &str = "provisioning.environments.create";
/// Changes an environment.
pub const UPDATE_ENVIRONMENT: &str = "provisioning.environments.update";
/// Takes an environment down.
pub const DELETE_ENVIRONMENT: &str = "provisioning.environments.delete";
/// Runs a pipeline.
pub const RUN_PIPELINE: &str = "provisioning.pipelines.run";
/// Puts an artifact into an environment.
pub const DEPLOY: &str = "provisioning.deployments.create";
/// Puts what runs in one environment into another.
pub const PROMOTE: &str = "provisioning.deployments.promote";

/// Makes an entry of the catalog.
pub const CREATE_ENTITY: &str = "catalog.entities.create";
/// Changes an entry of the catalog.
pub const UPDATE_ENTITY: &str = "catalog.entities.update";
/// Removes an entry of the catalog.
pub const DELETE_ENTITY: &str = "catalog.entities.delete";

/// The kind of a project, as policy knows it.
pub const PROJECT: &str = "provisioning.pavior.dev/Project";
/// The kind of an environment.
pub const ENVIRONMENT: &str = "provisioning.pavior.dev/Environment";
/// The kind of a pipeline.
pub const PIPELINE: &str = "provisioning.pavior.dev/Pipeline";
/// The kind of an entry of the catalog.
pub const ENTITY: &str = "catalog.pavior.dev/Entity";
/// The kind of a kind of entries.
pub const KIND: &str = "catalog.pavior.dev/Kind";
/// The kind of an organization.
pub const ORGANIZATION: &str = "identity.pavior.dev/Organization";

/// Something that an action is done to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// Its resource name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its owner; of what is yet to be made, the one that it will have.
    pub owner: String,
    /// Its project; empty outside projects.
    pub project: String,
    /// The class of its environment; empty outside environments.
    pub environment_class: String,
    /// Its labels, of an entry of the catalog. Within a project they are those of the project, and not kept here.
    pub labels: BTreeMap<String, String>,
}

form!(Subject { name, kind, owner, project, environment_class = "class"; omit labels });

impl Subject {
    /// An organization.
    pub fn organization(name: &str) -> Self {
        Self { name: name.to_owned(), kind: ORGANIZATION.to_owned(), ..Self::default() }
    }

    /// A project, existing or yet to be made.
    pub fn project(name: &str, owner: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: PROJECT.to_owned(),
            owner: owner.to_owned(),
            project: name.to_owned(),
            ..Self::default()
        }
    }

    /// An entry of the catalog.
    pub fn entity(name: &str, owner: &str, labels: BTreeMap<String, String>) -> Self {
        Self {
            name: name.to_owned(),
            kind: ENTITY.to_owned(),
            owner: owner.to_owned(),
            labels,
            ..Self::default()
        }
    }

    /// Something in this project.
    fn within(&self, name: &str, kind: &str, environment_class: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            environment_class: environment_class.to_owned(),
            ..self.clone()
        }
    }

    /// An environment of this project.
    pub fn environment(&self, name: &str, class: &str) -> Self {
        self.within(name, ENVIRONMENT, class)
    }

    /// A pipeline of this project.
    pub fn pipeline(&self, name: &str) -> Self {
        self.within(name, PIPELINE, "")
    }
}

/// What becomes of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Made,
    /// It is changed.
    Changed,
    /// It is removed.
    Removed,
    /// It stays as it is; something is put into it.
    Kept,
}

impl Fate {
    /// The action that would do this and nothing else.
    pub(super) fn action(self) -> Option<&'static str> {
        match self {
            Self::Made => Some(CREATE_ENVIRONMENT),
            Self::Changed => Some(UPDATE_ENVIRONMENT),
            Self::Removed => Some(DELETE_ENVIRONMENT),
            Self::Kept => None,
        }
    }
}

/// An environment that a plan touches, whether or not it has resources that change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Its resource name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// The template version that it is made from.
    pub template_version: String,
    /// What becomes of it.
    pub fate: Fate,
}

impl Touched {
    /// One that is made.
    pub fn made(name: &str, class: &str, template_version: &str) -> Self {
        Self {
            name: name.to_owned(),
            class: class.to_owned(),
            template_version: template_version.to_owned(),
            fate: Fate::Made,
        }
    }
}

/// What a plan works on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorksOn {
    /// The project, as it is or as it will be.
    pub project: Subject,
    /// Every environment that the plan makes, changes or removes, or puts something into.
    pub environments: Vec<Touched>,
    /// The entries of the catalog that its changes are about and that there are, by resource name and by identity.
    pub entities: BTreeMap<String, Subject>,
}

impl WorksOn {
    /// Before anything is known of the catalog.
    pub fn new(project: Subject, environments: Vec<Touched>) -> Self {
        Self { project, environments, entities: BTreeMap::new() }
    }
}

/// One question. The parameters are the plan's; labels and owner are looked up when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// The action.
    pub action: String,
    /// What it is done to.
    pub subject: Subject,
    /// The class of the environment that is meant; empty outside environments.
    pub environment_class: String,
    /// The template version.
    pub template_version: String,
    /// The owner of what is made; empty when nothing with an owner is made.
    pub new_owner: String,
    /// Whether the subject goes from the owner that it has to `new_owner`.
    pub moves_owner: bool,
    /// Resources created, updated, replaced and deleted by that part of the plan.
    pub counts: [usize; 4],
    /// Ids of the types of those resources.
    pub resource_types: Vec<String>,
}

form!(Question {
    action, subject, environment_class, template_version, new_owner, counts, resource_types; omit moves_owner
});

impl Question {
    /// Whether it is about the catalog, and not about what this service owns.
    pub fn is_of_catalog(&self) -> bool {
        [CREATE_ENTITY, UPDATE_ENTITY, DELETE_ENTITY].contains(&self.action.as_str())
    }
}

/// An environment that changes although the plan is not about it: a mistake of ours, and never allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan changes `{0}`, about which nobody was asked")]
pub struct Unasked(pub String);

/// What the verb itself is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verb {
    /// What the request names.
    pub subject: Subject,
    /// The class of the environment that is meant.
    pub environment_class: String,
    /// The owner of what is made.
    pub new_owner: String,
}

impl Verb {
    /// A verb that makes nothing with an owner.
    pub fn on(subject: Subject) -> Self {
        Self { environment_class: subject.environment_class.clone(), subject, new_owner: String::new() }
    }
}

//! The routing and authorization table, made from the descriptors alone.

pub(crate) mod binding;
mod builder;
pub(crate) mod template;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pavior_proto::pavior::governance::v1::{Audience, Audit};
use pavior_rpc::governance::{self, Declared};
use prost_reflect::DescriptorPool;

use crate::error::Error;
pub use binding::Binding;
use builder::Builder;

/// Packages that begin with this are the platform's own.
const OWN: &str = "pavior.";
/// What is said between services of the platform: served to nobody else.
const INTERNAL: &str = ".internal.";
/// The protocol towards drivers: spoken by the platform, not offered by it.
const NOT_OFFERED: &[&str] = &["pavior.driver."];

/// One public method and its governance.
#[derive(Debug, Clone)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: String,
    /// `package.Service`.
    pub service: String,
    /// Full name of the request's message.
    pub input: String,
    /// The role of the service that answers it, for example `catalog`.
    pub role: String,
    /// The action that policy decides on.
    pub action: String,
    /// What the call is about.
    pub target: Target,
    /// Where the request names the group that will own what is made, or that a resource goes to.
    pub owner: Option<Field>,
    /// Where the request holds the labels of what is made, or those that change.
    pub labels: Option<Field>,
    /// Of an update: where the request names the fields that it changes.
    pub update_mask: Option<Field>,
    /// Of an update that can make what is not there.
    pub creates: Option<Creates>,
    /// Further actions that the call amounts to.
    pub amounts_to: Vec<String>,
    /// True when only the service that owns the resource can read from the request whose owners it changes.
    pub owners_within: bool,
    /// The numbers of the fields `request_id` and `validate_only` of a change that can be repeated.
    pub repeatable: Option<Repeatable>,
    /// True when it changes nothing.
    pub reads: bool,
    /// How it is recorded.
    pub audit: Audit,
    /// True when guardrails are decided later, over a plan.
    pub plan_follows: bool,
    /// True when policy is asked; false when a valid token is enough.
    pub governed: bool,
    /// True when the owner of the resource is asked for facts.
    pub facts: bool,
    /// True when the answer is a stream.
    pub streaming: bool,
    /// The type of the resource that the request names, for example `catalog.pavior.dev/Entity`; empty when the
    /// descriptors do not say.
    pub resource_type: String,
    /// The patterns that the resource's name can have; empty when the descriptors do not say.
    pub patterns: Vec<String>,
    /// The last part of a name that has no id, of which there is one in each parent (AIP-156). It is governed with its
    /// parent, whose patterns are given.
    pub singleton: Option<String>,
    /// How it is called over HTTP with JSON; never empty.
    pub http: Vec<Binding>,
}

impl Method {
    /// Where the request names the resource, if it does.
    pub fn resource(&self) -> Option<&Field> {
        match &self.target {
            Target::Resource(field) => Some(field),
            Target::Platform | Target::Caller => None,
        }
    }
}

/// What a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A resource of an organization, or a collection of one; where the request names it.
    Resource(Field),
    /// The installation.
    Platform,
    /// The caller alone; only of calls that any authenticated caller may make.
    Caller,
}

/// How an update makes what is not there (AIP-134).
#[derive(Debug, Clone)]
pub struct Creates {
    /// The number of the flag that asks for it.
    pub allow_missing: u32,
    /// The standard method that makes it, which such a call amounts to.
    pub method: Arc<Method>,
}

/// What a change that can be repeated says about that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeatable {
    /// The number of the field `request_id`.
    pub request_id: u32,
    /// The number of the field `validate_only`, where there is one.
    pub validate_only: Option<u32>,
}

/// A field of a request, maybe inside of other messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As written in the rule, for example `entity.name`.
    pub path: String,
    /// The field numbers, outermost first.
    pub numbers: Vec<u32>,
}

/// A kind of resource.
#[derive(Debug, Clone)]
pub struct ResourceKind {
    /// For example `provisioning.pavior.dev/Project`.
    pub r#type: String,
    /// For example `organizations/{organization}/projects/{project}`.
    pub patterns: Vec<String>,
    /// The role of the service that owns it.
    pub role: String,
}

/// Every public method by its path.
#[derive(Debug)]
pub struct RouteTable {
    methods: HashMap<String, Arc<Method>>,
    kinds: Vec<ResourceKind>,
}

impl RouteTable {
    /// Builds the table from an encoded `google.protobuf.FileDescriptorSet` with its options.
    ///
    /// # Errors
    /// All methods without a rule, with an incomplete one, with a resource field that does not exist or cannot be
    /// read unambiguously, or claimed twice.
    pub fn build(descriptors: &[u8]) -> Result<Self, Error> {
        let pool = DescriptorPool::decode(descriptors).map_err(|e| Error::Descriptors(e.to_string()))?;
        let mut builder = Builder::new(&pool)?;
        for Declared { name, method, rule, http, service } in governance::declared(&pool)? {
            let package = service.parent_file().package_name().to_owned();
            if !package.starts_with(OWN)
                || NOT_OFFERED.iter().any(|other| service.full_name().starts_with(other))
            {
                continue;
            }
            let internal = package.contains(INTERNAL);
            let roles = governance::roles(&service)?;
            let Some(method) = method else {
                builder.offend(&name, "taken over, but there is no such method");
                continue;
            };
            let [role, rest @ ..] = roles.as_slice() else {
                builder.offend(&name, "stands in a service that says of nobody that it answers it");
                continue;
            };
            if !internal && !rest.is_empty() {
                builder.offend(&name, "is public, and several roles answer its service");
            }
            if internal != rule.as_ref().is_some_and(|rule| rule.audience() == Audience::Internal) {
                builder.offend(&name, "is not internal, or stands in a package that is not");
            }
            builder.add(&method, rule, http, role, service.full_name());
        }
        builder.finish()
    }

    /// The method of a path, if it is public.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// Every public method.
    pub fn methods(&self) -> impl Iterator<Item = &Arc<Method>> {
        self.methods.values()
    }

    /// The full names of the services that have public methods, sorted.
    pub fn services(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.methods.values().map(|method| method.service.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The roles that methods are routed to, sorted.
    pub fn roles(&self) -> Vec<String> {
        let roles: BTreeSet<&str> = self.methods.values().map(|method| method.role.as_str()).collect();
        roles.into_iter().map(str::to_owned).collect()
    }

    /// The kind of a resource, by its name.
    pub fn kind(&self, name: &str) -> Option<&ResourceKind> {
        self.kinds.iter().find(|kind| kind.patterns.iter().any(|pattern| matches(name, pattern)))
    }

    /// Every kind of resource.
    pub(crate) fn kinds(&self) -> &[ResourceKind] {
        &self.kinds
    }

    /// The governed actions that can be done to a resource of this name, sorted.
    pub fn actions_on(&self, name: &str) -> Vec<String> {
        let actions: BTreeSet<&str> = self.methods_on(name).map(|method| method.action.as_str()).collect();
        actions.into_iter().map(str::to_owned).collect()
    }

    /// The governed methods that can be called on a resource of this name.
    pub fn methods_on(&self, name: &str) -> impl Iterator<Item = &Arc<Method>> {
        self.methods.values().filter(move |method| {
            method.governed && method.patterns.iter().any(|pattern| matches(name, pattern))
        })
    }
}

/// Whether a name has the form of a pattern, in which `{…}` stands for any id.
fn matches(name: &str, pattern: &str) -> bool {
    let (mut name, mut pattern) = (name.split('/'), pattern.split('/'));
    loop {
        match (name.next(), pattern.next()) {
            (None, None) => return true,
            (Some(segment), Some(wanted)) if wanted == segment || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}

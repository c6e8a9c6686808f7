//! The governance that stands beside each method in the descriptors: one reader for all who need it.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use pavior_proto::google::api::HttpRule;
use pavior_proto::pavior::governance::v1::{Mixin, Rule, Service};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, MethodDescriptor, ServiceDescriptor, Value,
};

use crate::convert;

const RULE: &str = "pavior.governance.v1.rule";
const MIXIN: &str = "pavior.governance.v1.mixin";
const SERVICE: &str = "pavior.governance.v1.service";
const HTTP: &str = "google.api.http";

/// A method as a service declares it.
#[derive(Debug, Clone)]
pub struct Declared {
    /// `package.Service/Method`.
    pub name: String,
    /// The method; `None` when a service takes over one that does not exist.
    pub method: Option<MethodDescriptor>,
    /// Its rule, if it has one.
    pub rule: Option<Rule>,
    /// Where it is served over HTTP with JSON.
    pub http: Option<HttpRule>,
    /// The service that answers it: its own, or the one that takes it over.
    pub service: ServiceDescriptor,
}

/// The descriptors are not those of this API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("extension `{0}` is missing")]
pub struct NoGovernance(String);

/// Every method of a pool, with what services take over from packages that they must not modify.
///
/// # Errors
/// A pool without the governance options.
pub fn declared(pool: &DescriptorPool) -> Result<Vec<Declared>, NoGovernance> {
    let need = |name: &str| pool.get_extension_by_name(name).ok_or_else(|| NoGovernance(name.to_owned()));
    let (rule, mixin, http) = (need(RULE)?, need(MIXIN)?, need(HTTP)?);
    let mut found = Vec::new();
    for service in pool.services() {
        for method in service.methods() {
            found.push(Declared {
                name: format!("{}/{}", service.full_name(), method.name()),
                rule: option(&method.options(), &rule),
                http: option(&method.options(), &http),
                method: Some(method),
                service: service.clone(),
            });
        }
        for Mixin { method: name, rule, http } in mixins(&service.options(), &mixin) {
            let method = find(pool, &name);
            found.push(Declared { name, method, rule, http, service: service.clone() });
        }
    }
    Ok(found)
}

/// The value of an option, if it is set.
pub fn option<T: Message + Default>(options: &DynamicMessage, extension: &ExtensionDescriptor) -> Option<T> {
    if !options.has_extension(extension) {
        return None;
    }
    options.get_extension(extension).as_message()?.transcode_to().ok()
}

fn mixins(options: &DynamicMessage, mixin: &ExtensionDescriptor) -> Vec<Mixin> {
    if !options.has_extension(mixin) {
        return Vec::new();
    }
    let values = options.get_extension(mixin);
    let values = values.as_list().unwrap_or_default();
    values.iter().filter_map(Value::as_message).filter_map(|mixin| mixin.transcode_to().ok()).collect()
}

fn find(pool: &DescriptorPool, name: &str) -> Option<MethodDescriptor> {
    let (service, method) = name.split_once('/')?;
    pool.get_service_by_name(service)?.methods().find(|candidate| candidate.name() == method)
}

/// Immutable once made: the rules of the embedded descriptors by path.
static RULES: LazyLock<HashMap<String, Rule>> = LazyLock::new(|| {
    let declared = declared(convert::pool()).unwrap_or_else(|error| {
        // Without rules nobody is let in anywhere.
        tracing::error!(%error, "the embedded descriptors have no governance");
        Vec::new()
    });
    declared.into_iter().filter_map(|one| Some((format!("/{}", one.name), one.rule?))).collect()
});

/// The rule of an HTTP path such as `/pavior.catalog.v1.CatalogService/GetComponent`.
pub fn rule(path: &str) -> Option<&'static Rule> {
    RULES.get(path)
}

/// The text at the path of a field as rules name them, such as `environment.name`; none when there is none.
pub fn text_at(message: &DynamicMessage, path: &str) -> Option<String> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let value = message.get_field_by_name(first)?;
    match rest {
        Some(rest) => text_at(value.as_message()?, rest),
        None => value.as_str().map(str::to_owned),
    }
}

/// The roles that answer a service, as it declares; none for one that services take over.
///
/// # Errors
/// A pool without the governance options.
pub fn roles(service: &ServiceDescriptor) -> Result<Vec<String>, NoGovernance> {
    let extension = service.parent_pool().get_extension_by_name(SERVICE);
    let extension = extension.ok_or_else(|| NoGovernance(SERVICE.to_owned()))?;
    Ok(option::<Service>(&service.options(), &extension).map(|service| service.roles).unwrap_or_default())
}

/// The full names of the services that a role answers, sorted: those that name it, and what they take over.
pub fn services(role: &str) -> Vec<&'static str> {
    let pool = convert::pool();
    let mut found = BTreeSet::new();
    for one in declared(pool).unwrap_or_default() {
        if roles(&one.service).unwrap_or_default().iter().any(|named| named == role) {
            let name = one.name.split('/').next().unwrap_or_default();
            found.extend(SERVICES.get(name).map(String::as_str));
        }
    }
    found.into_iter().collect()
}

/// Immutable once made: the full name of every service of the embedded descriptors.
static SERVICES: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| convert::pool().services().map(|service| service.full_name().to_owned()).collect());

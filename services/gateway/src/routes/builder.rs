//! Reads the rule of each method, and says all that is wrong with any of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pavior_proto::google::api::{FieldBehavior, HttpRule, ResourceDescriptor, ResourceReference};
use pavior_proto::pavior::governance::v1::{Access, Audience, Audit, Rule, Scope, Stage};
use pavior_rpc::annotations;
use pavior_rpc::governance::{self, option};
use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

use super::binding::Binding;
use super::{Creates, Field, Method, Repeatable, ResourceKind, RouteTable, Target};
use crate::error::Error;

pub(super) struct Builder {
    reference: Option<ExtensionDescriptor>,
    resource: Option<ExtensionDescriptor>,
    kinds: Vec<ResourceKind>,
    methods: BTreeMap<String, Method>,
    /// By the path of an update: the number of its flag `allow_missing`.
    upserts: BTreeMap<String, u32>,
    /// Who declared a path, public or not.
    claims: HashMap<String, String>,
    offenders: Vec<String>,
}

impl Builder {
    pub(super) fn new(pool: &DescriptorPool) -> Result<Self, Error> {
        let mut owners = HashMap::new();
        for service in pool.services() {
            if let Some(role) = governance::roles(&service)?.into_iter().next() {
                owners.entry(service.parent_file().package_name().to_owned()).or_insert(role);
            }
        }
        let mut builder = Self {
            reference: pool.get_extension_by_name("google.api.resource_reference"),
            resource: pool.get_extension_by_name("google.api.resource"),
            kinds: Vec::new(),
            methods: BTreeMap::new(),
            upserts: BTreeMap::new(),
            claims: HashMap::new(),
            offenders: Vec::new(),
        };
        for message in pool.all_messages() {
            if let Some(resource) = builder.declared(&message) {
                let owner = owners.get(message.parent_file().package_name());
                let role = owner.cloned().unwrap_or_default();
                let ResourceDescriptor { r#type, pattern, .. } = resource;
                builder.kinds.push(ResourceKind { r#type, patterns: pattern, role });
            }
        }
        Ok(builder)
    }

    fn declared(&self, message: &MessageDescriptor) -> Option<ResourceDescriptor> {
        option(&message.options(), self.resource.as_ref()?)
    }

    pub(super) fn offend(&mut self, method: &str, what: &str) {
        self.offenders.push(format!("`{method}`: {what}"));
    }

    pub(super) fn add(
        &mut self,
        method: &MethodDescriptor,
        rule: Option<Rule>,
        http: Option<HttpRule>,
        role: &str,
        owner: &str,
    ) {
        let service = method.parent_service().full_name().to_owned();
        let name = format!("{service}/{}", method.name());
        if let Some(other) = self.claims.insert(name.clone(), owner.to_owned()) {
            return self.offend(&name, &format!("claimed by `{other}` and by `{owner}`"));
        }
        let Some(rule) = rule else { return self.offend(&name, "has no governance rule") };
        let audience = Audience::try_from(rule.audience);
        if audience == Ok(Audience::Internal) {
            return;
        }
        let bindings = Binding::all(http.as_ref(), method);
        match self.method(method, &rule, role, &service, &name) {
            Ok(made) => match bindings {
                Ok(http) => {
                    let number = number(&method.input(), "allow_missing", Kind::Bool);
                    let number = number.filter(|_| made.update_mask.is_some());
                    self.upserts.extend(number.map(|number| (made.path.clone(), number)));
                    let patterns = patterns_of(&made, &http);
                    self.methods.insert(made.path.clone(), Method { http, patterns, ..made });
                }
                Err(problems) => problems.iter().for_each(|problem| self.offend(&name, problem)),
            },
            Err(problems) => problems.iter().for_each(|problem| self.offend(&name, problem)),
        }
    }

    fn method(
        &self,
        method: &MethodDescriptor,
        rule: &Rule,
        role: &str,
        service: &str,
        name: &str,
    ) -> Result<Method, Vec<String>> {
        let mut problems = incomplete(method, rule);
        let (access, audit, stage, audience) = (rule.access(), rule.audit(), rule.stage(), rule.audience());
        let governed = audience != Audience::Authenticated;
        let (mut target, mut resource_type, mut patterns, mut singleton) =
            (Target::Caller, String::new(), Vec::new(), None);
        match (rule.scope() == Scope::Platform, rule.resource.as_str()) {
            (true, "") => target = Target::Platform,
            (true, path) => problems.push(format!("is about the platform, and names the field `{path}`")),
            (false, "") if governed => {
                problems.push(
                    "does not say which field names its resource, or that it is the platform".to_owned(),
                );
            }
            (false, "") => {}
            (false, path) => match resolve(&method.input(), path) {
                Ok((field, numbers)) => {
                    (resource_type, patterns) = self.referenced(&field);
                    if let Some((part, parents)) = singleton_of(&patterns) {
                        resource_type = self.only_kind(&parents);
                        (singleton, patterns) = (Some(part), parents);
                    }
                    target = Target::Resource(Field { path: path.to_owned(), numbers });
                }
                Err(problem) => problems.push(problem),
            },
        }
        let mut owner = None;
        if !rule.owner.is_empty() {
            match resolve(&method.input(), &rule.owner) {
                Ok((_, numbers)) => owner = Some(Field { path: rule.owner.clone(), numbers }),
                Err(problem) => problems.push(problem),
            }
        }
        let labels = labels(&method.input(), &rule.labels).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if access == Access::Change {
            problems.extend(unspoken(&method.input(), "owner", &rule.owner));
            problems.extend(unspoken(&method.input(), "labels", &rule.labels));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Method {
            path: format!("/{name}"),
            service: service.to_owned(),
            input: method.input().full_name().to_owned(),
            role: role.to_owned(),
            action: rule.action.clone(),
            target,
            owner,
            labels,
            update_mask: update_mask(&method.input()),
            creates: None,
            amounts_to: rule.amounts_to.clone(),
            owners_within: rule.owners_within,
            repeatable: repeatable(&method.input()),
            reads: access == Access::Read,
            audit,
            plan_follows: stage == Stage::Plan,
            governed,
            facts: rule.facts,
            streaming: method.is_server_streaming(),
            resource_type,
            patterns,
            singleton,
            http: Vec::new(),
        })
    }

    /// The type and the patterns of the resource that a field names: by its reference, or, for the `name` of a
    /// resource itself, by the message that it stands in.
    fn referenced(&self, field: &FieldDescriptor) -> (String, Vec<String>) {
        let reference: Option<ResourceReference> =
            self.reference.as_ref().and_then(|reference| option(&field.options(), reference));
        let patterns = |wanted: &str| -> Vec<String> {
            self.kinds
                .iter()
                .filter(|kind| kind.r#type == wanted)
                .flat_map(|kind| kind.patterns.clone())
                .collect()
        };
        match reference {
            Some(reference) if !reference.child_type.is_empty() => {
                let parents: BTreeSet<String> = patterns(&reference.child_type)
                    .iter()
                    .filter_map(|pattern| Some(pattern.rsplit_once('/')?.0.rsplit_once('/')?.0.to_owned()))
                    .collect();
                let parents: Vec<String> = parents.into_iter().collect();
                (self.only_kind(&parents), parents)
            }
            Some(reference) => {
                let patterns = patterns(&reference.r#type);
                (reference.r#type, patterns)
            }
            None if field.name() == "name" => match self.declared(field.parent_message()) {
                Some(resource) => (resource.r#type, resource.pattern),
                None => Default::default(),
            },
            None => Default::default(),
        }
    }

    /// The type of what has a name of these patterns; empty when there are several.
    fn only_kind(&self, patterns: &[String]) -> String {
        let types: BTreeSet<&str> = self
            .kinds
            .iter()
            .filter(|kind| kind.patterns.iter().any(|pattern| patterns.contains(pattern)))
            .map(|kind| kind.r#type.as_str())
            .collect();
        if types.len() == 1 { types.first().copied().unwrap_or_default().to_owned() } else { String::new() }
    }

    /// Paths over HTTP that lead to two methods.
    fn clashes(&mut self) {
        let routes: Vec<(&str, &Binding)> = self
            .methods
            .values()
            .flat_map(|method| method.http.iter().map(|binding| (method.path.as_str(), binding)))
            .collect();
        let mut found = Vec::new();
        for (at, (name, one)) in routes.iter().enumerate() {
            let others = routes.iter().take(at);
            for (other_name, other) in others.filter(|(_, other)| one.clashes(other)) {
                found.push(format!(
                    "`{}`: served over HTTP where `{}` is: {one}, {other}",
                    shown(name),
                    shown(other_name)
                ));
            }
        }
        self.offenders.extend(found);
    }

    /// Tells each update that can make what is not there by which method that is made: `UpdateGroup` by `CreateGroup`.
    fn pair_upserts(&mut self) {
        for (path, allow_missing) in std::mem::take(&mut self.upserts) {
            let create = path.replacen("/Update", "/Create", 1);
            let create = self.methods.get(&create).filter(|_| create != path);
            // What is asked about a creation is made of the update's request, which has nothing for facts or a plan, nor
            // for what else a creation may amount to.
            let plain = |create: &&Method| {
                let amounts = !create.amounts_to.is_empty() || create.owners_within;
                create.resource().is_some() && !create.facts && !create.plan_follows && !amounts
            };
            let found = create
                .filter(plain)
                .map(|method| Creates { allow_missing, method: Arc::new(method.clone()) });
            match (found, self.methods.get_mut(&path)) {
                (Some(creates), Some(update)) => update.creates = Some(creates),
                _ => self.offend(
                    shown(&path),
                    "has `allow_missing`, and beside it is no creation that is decided without facts or a plan",
                ),
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<RouteTable, Error> {
        self.clashes();
        self.pair_upserts();
        if !self.offenders.is_empty() {
            self.offenders.sort();
            return Err(Error::Ungoverned(self.offenders));
        }
        let methods = self.methods.into_iter().map(|(path, method)| (path, Arc::new(method))).collect();
        Ok(RouteTable { methods, kinds: self.kinds })
    }
}

/// The forms that the name of a method's resource can have. Where no reference says it, as of operations, whose messages
/// are not our own, its paths over HTTP do.
fn patterns_of(method: &Method, http: &[Binding]) -> Vec<String> {
    match &method.target {
        Target::Resource(field) if method.patterns.is_empty() => {
            let patterns: BTreeSet<String> =
                http.iter().filter_map(|binding| binding.template.pattern(&field.path)).collect();
            patterns.into_iter().collect()
        }
        _ => method.patterns.clone(),
    }
}

/// The last part of the names of a singleton, which has no id (AIP-156), and the patterns of its parents.
fn singleton_of(patterns: &[String]) -> Option<(String, Vec<String>)> {
    let parts =
        patterns.iter().map(|pattern| pattern.rsplit_once('/').filter(|(_, last)| !last.starts_with('{')));
    let (parents, parts): (Vec<&str>, BTreeSet<&str>) =
        parts.collect::<Option<Vec<_>>>()?.into_iter().unzip();
    let part = parts.first().filter(|_| parts.len() == 1)?;
    Some(((*part).to_owned(), parents.into_iter().map(str::to_owned).collect()))
}

/// What a rule says wrongly or not at all, whatever its method takes.
fn incomplete(method: &MethodDescriptor, rule: &Rule) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_action(&rule.action) {
        problems.push(format!("action `{}` is not like `catalog.entities.get`", rule.action));
    }
    if rule.access() == Access::Unspecified {
        problems.push("does not say whether it reads or changes".to_owned());
    }
    if rule.audit() == Audit::Unspecified {
        problems.push("does not say how it is recorded".to_owned());
    }
    let known = Stage::try_from(rule.stage).is_ok()
        && Audience::try_from(rule.audience).is_ok()
        && Scope::try_from(rule.scope).is_ok();
    if !known {
        problems.push("has a stage, an audience or a scope that this gateway does not know".to_owned());
    }
    if method.is_client_streaming() {
        problems.push("streams its request, which cannot be governed".to_owned());
    }
    let others = rule.amounts_to.iter().filter(|action| !is_action(action));
    problems.extend(
        others.map(|action| format!("amounts to `{action}`, which is not like `catalog.entities.get`")),
    );
    problems
}

/// An owner or labels that the request can set, and that policy would not be asked about.
fn unspoken(request: &MessageDescriptor, what: &str, spoken: &str) -> Option<String> {
    let found = request.fields().filter(|field| !field.is_list() && !field.is_map()).filter_map(|field| {
        let inner = field.kind().as_message()?.get_field_by_name(what)?;
        let of_its_kind = inner.is_map() || matches!(inner.kind(), Kind::String);
        let settable = of_its_kind && !annotations::behaves(&inner, FieldBehavior::OutputOnly);
        settable.then(|| format!("{}.{what}", field.name()))
    });
    let unspoken = found.into_iter().find(|path| path != spoken)?;
    Some(format!("can set `{unspoken}`, and does not name it as its {what}"))
}

/// The labels in a resource of the request, if the rule names some.
fn labels(request: &MessageDescriptor, path: &str) -> Result<Option<Field>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let found = path.split_once('.').and_then(|(resource, within)| {
        let resource = request.get_field_by_name(resource).filter(|field| !field.is_list())?;
        let map = resource.kind().as_message()?.get_field_by_name(within).filter(FieldDescriptor::is_map)?;
        let value = map.kind().as_message()?.map_entry_value_field().kind();
        matches!(value, Kind::String).then(|| vec![resource.number(), map.number()])
    });
    let numbers = found.ok_or_else(|| format!("names the labels `{path}`, which are no map of texts"))?;
    Ok(Some(Field { path: path.to_owned(), numbers }))
}

/// A method as it is named in messages.
fn shown(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The paths of the request's mask, if it has one.
fn update_mask(request: &MessageDescriptor) -> Option<Field> {
    let field = request.get_field_by_name("update_mask")?;
    let mask = field.kind().as_message()?.get_field_by_name("paths")?;
    let numbers = vec![field.number(), mask.number()];
    Some(Field { path: "update_mask.paths".to_owned(), numbers })
}

/// `service.things.verb`: at least two dots, letters, digits and underscores.
fn is_action(action: &str) -> bool {
    action.split('.').count() >= 3
        && action.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

/// The fields of AIP-155 and AIP-163.
fn repeatable(message: &MessageDescriptor) -> Option<Repeatable> {
    let request_id = number(message, "request_id", Kind::String)?;
    Some(Repeatable { request_id, validate_only: number(message, "validate_only", Kind::Bool) })
}

/// The number of a field of this kind, where there is one.
fn number(message: &MessageDescriptor, name: &str, kind: Kind) -> Option<u32> {
    message.get_field_by_name(name).filter(|field| field.kind() == kind).map(|field| field.number())
}

/// Finds a field by its path. It must be a string that has one value however the message is encoded: neither repeated
/// nor one alternative of several, at any level.
fn resolve(message: &MessageDescriptor, path: &str) -> Result<(FieldDescriptor, Vec<u32>), String> {
    let mut message = message.clone();
    let mut numbers = Vec::new();
    let mut segments = path.split('.').peekable();
    while let Some(segment) = segments.next() {
        let field = message
            .get_field_by_name(segment)
            .ok_or_else(|| format!("names the field `{path}`, which does not exist"))?;
        let alternative = field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic());
        if field.is_list() || field.is_map() || alternative {
            return Err(format!("names the field `{path}`, which can have several values"));
        }
        numbers.push(field.number());
        match (field.kind(), segments.peek()) {
            (Kind::String, None) => return Ok((field, numbers)),
            (Kind::Message(inner), Some(_)) => message = inner,
            _ => return Err(format!("names the field `{path}`, which is not a string")),
        }
    }
    Err(format!("names the field `{path}`, which does not exist"))
}

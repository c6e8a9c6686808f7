//! The routing and authorization table, made from the descriptors alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use pavior_proto::google::api::{HttpRule, ResourceDescriptor, ResourceReference};
use pavior_proto::pavior::governance::v1::{Access, Audience, Audit, Rule, Stage};
use pavior_rpc::governance::{self, Declared, option};
use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

use crate::error::Error;
use crate::web::Binding;

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
    /// Where the request names the resource; `None` only for calls that any authenticated caller may make.
    pub resource: Option<Field>,
    /// Where the request names the group that will own what is made, or that a resource goes to.
    pub owner: Option<Field>,
    /// Of an update: where the request names the fields that it changes.
    pub update_mask: Option<Field>,
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
    /// How it is called over HTTP with JSON; never empty.
    pub http: Vec<Binding>,
}

/// What a change that can be repeated says about that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeatable {
    /// The number of the field `request_id`.
    pub request_id: u32,
    /// The number of the field `validate_only`, where there is one.
    pub validate_only: Option<u32>,
}

/// A string field of a request, maybe inside of other messages.
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
pub struct Table {
    methods: HashMap<String, Arc<Method>>,
    kinds: Vec<ResourceKind>,
}

impl Table {
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

struct Builder {
    reference: Option<ExtensionDescriptor>,
    resource: Option<ExtensionDescriptor>,
    behavior: Option<ExtensionDescriptor>,
    kinds: Vec<ResourceKind>,
    methods: BTreeMap<String, Method>,
    /// Who declared a path, public or not.
    claims: HashMap<String, String>,
    offenders: Vec<String>,
}

impl Builder {
    fn new(pool: &DescriptorPool) -> Result<Self, Error> {
        let mut owners = HashMap::new();
        for service in pool.services() {
            if let Some(role) = governance::roles(&service)?.into_iter().next() {
                owners.entry(service.parent_file().package_name().to_owned()).or_insert(role);
            }
        }
        let mut builder = Self {
            reference: pool.get_extension_by_name("google.api.resource_reference"),
            resource: pool.get_extension_by_name("google.api.resource"),
            behavior: pool.get_extension_by_name("google.api.field_behavior"),
            kinds: Vec::new(),
            methods: BTreeMap::new(),
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

    fn offend(&mut self, method: &str, what: &str) {
        self.offenders.push(format!("`{method}`: {what}"));
    }

    fn add(
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
                Ok(http) => drop(self.methods.insert(made.path.clone(), Method { http, ..made })),
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
        let mut problems = Vec::new();
        if !is_action(&rule.action) {
            problems.push(format!("action `{}` is not like `catalog.entities.get`", rule.action));
        }
        let access = Access::try_from(rule.access).unwrap_or_default();
        if access == Access::Unspecified {
            problems.push("does not say whether it reads or changes".to_owned());
        }
        let audit = Audit::try_from(rule.audit).unwrap_or_default();
        if audit == Audit::Unspecified {
            problems.push("does not say how it is recorded".to_owned());
        }
        let stage = Stage::try_from(rule.stage);
        let audience = Audience::try_from(rule.audience);
        if stage.is_err() || audience.is_err() {
            problems.push("has a stage or an audience that this gateway does not know".to_owned());
        }
        if method.is_client_streaming() {
            problems.push("streams its request, which cannot be governed".to_owned());
        }
        let governed = audience != Ok(Audience::Authenticated);
        let (mut resource, mut resource_type, mut patterns) = (None, String::new(), Vec::new());
        if !rule.resource.is_empty() {
            match resolve(&method.input(), &rule.resource) {
                Ok((field, numbers)) => {
                    (resource_type, patterns) = self.referenced(&field);
                    resource = Some(Field { path: rule.resource.clone(), numbers });
                }
                Err(problem) => problems.push(problem),
            }
        } else if governed {
            problems.push("does not say which field names its resource".to_owned());
        }
        let mut owner = None;
        if !rule.owner.is_empty() {
            match resolve(&method.input(), &rule.owner) {
                Ok((_, numbers)) => owner = Some(Field { path: rule.owner.clone(), numbers }),
                Err(problem) => problems.push(problem),
            }
        }
        problems.extend(
            rule.amounts_to
                .iter()
                .filter(|action| !is_action(action))
                .map(|action| format!("amounts to `{action}`, which is not like `catalog.entities.get`")),
        );
        if access == Access::Change {
            problems.extend(self.unspoken_owner(&method.input(), &rule.owner));
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
            resource,
            owner,
            update_mask: update_mask(&method.input()),
            amounts_to: rule.amounts_to.clone(),
            owners_within: rule.owners_within,
            repeatable: repeatable(&method.input()),
            reads: access == Access::Read,
            audit,
            plan_follows: stage == Ok(Stage::Plan),
            governed,
            facts: rule.facts,
            streaming: method.is_server_streaming(),
            resource_type,
            patterns,
            http: Vec::new(),
        })
    }

    /// An owner that the request can set, and that policy would not be asked about.
    fn unspoken_owner(&self, request: &MessageDescriptor, spoken: &str) -> Option<String> {
        let owners =
            request.fields().filter(|field| !field.is_list() && !field.is_map()).filter_map(|field| {
                let owner = field.kind().as_message()?.get_field_by_name("owner")?;
                let settable = matches!(owner.kind(), Kind::String) && !self.is_output_only(&owner);
                settable.then(|| format!("{}.owner", field.name()))
            });
        let unspoken = owners.into_iter().find(|path| path != spoken)?;
        Some(format!("can set `{unspoken}`, and does not name it as its owner"))
    }

    fn is_output_only(&self, field: &FieldDescriptor) -> bool {
        // google.api.FieldBehavior: OUTPUT_ONLY is 3.
        self.behavior.as_ref().is_some_and(|behavior| {
            let options = field.options();
            let behaviors = options.get_extension(behavior);
            behaviors.as_list().unwrap_or_default().iter().any(|value| value.as_enum_number() == Some(3))
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
                let types: BTreeSet<&str> = self
                    .kinds
                    .iter()
                    .filter(|kind| kind.patterns.iter().any(|pattern| parents.contains(pattern)))
                    .map(|kind| kind.r#type.as_str())
                    .collect();
                let only = if types.len() == 1 { types.first().copied().unwrap_or_default() } else { "" };
                (only.to_owned(), parents.into_iter().collect())
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

    fn finish(mut self) -> Result<Table, Error> {
        self.clashes();
        if !self.offenders.is_empty() {
            self.offenders.sort();
            return Err(Error::Ungoverned(self.offenders));
        }
        let methods = self.methods.into_iter().map(|(path, method)| (path, Arc::new(method))).collect();
        Ok(Table { methods, kinds: self.kinds })
    }
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
    let number = |name: &str, kind: Kind| {
        message.get_field_by_name(name).filter(|field| field.kind() == kind).map(|field| field.number())
    };
    let request_id = number("request_id", Kind::String)?;
    Some(Repeatable { request_id, validate_only: number("validate_only", Kind::Bool) })
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

//! Writes the accessors that the shapes of requests and resources promise (AIP-131 to 136), from the descriptors.

use std::collections::HashMap;
use std::fmt::Write as _;

use heck::ToSnakeCase as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, Kind, MessageDescriptor, Value};

type Written = Result<(), Box<dyn std::error::Error>>;

const RULE: &str = "pavior.governance.v1.rule";
const RESOURCE: &str = "google.api.resource";

/// A method with its request.
struct Method {
    /// `/pavior.identity.v1.IdentityService/CreateGroup`
    path: String,
    name: String,
    action: String,
    facts: bool,
    request: MessageDescriptor,
    response: MessageDescriptor,
}

/// The source of all implementations.
pub(crate) fn write(pool: &DescriptorPool) -> Result<String, Box<dyn std::error::Error>> {
    let extension = |name| pool.get_extension_by_name(name).ok_or_else(|| format!("`{name}` is not there"));
    let (rule, resource) = (extension(RULE)?, extension(RESOURCE)?);
    let mut out = String::new();
    let mut uses = HashMap::new();
    let methods = methods(pool, &rule);
    for method in &methods {
        *uses.entry(method.request.full_name().to_owned()).or_insert(0) += 1;
    }
    for message in pool.all_messages().filter(is_ours) {
        if let Some(options) = options(&message.options(), &resource) {
            write_resource(&mut out, &message, &options)?;
        }
    }
    // A message that several methods take says nothing about which of them is meant.
    for method in methods.iter().filter(|method| uses.get(method.request.full_name()) == Some(&1)) {
        write_request(&mut out, method)?;
        write_shape(&mut out, method)?;
    }
    Ok(out)
}

fn is_ours(message: &MessageDescriptor) -> bool {
    message.package_name().starts_with("pavior.") && message.parent_message().is_none()
}

fn methods(pool: &DescriptorPool, rule: &ExtensionDescriptor) -> Vec<Method> {
    let mut methods = Vec::new();
    for service in pool.services().filter(|service| service.package_name().starts_with("pavior.")) {
        for method in service.methods().filter(|method| is_ours(&method.input())) {
            let rule = options(&method.options(), rule);
            let action = rule.as_ref().map(|rule| text(rule, "action"));
            let facts = rule.and_then(|rule| rule.get_field_by_name("facts")?.as_bool());
            methods.push(Method {
                path: format!("/{}/{}", service.full_name(), method.name()),
                name: method.name().to_owned(),
                action: action.unwrap_or_default(),
                facts: facts.unwrap_or_default(),
                request: method.input(),
                response: method.output(),
            });
        }
    }
    methods
}

fn options(options: &DynamicMessage, extension: &ExtensionDescriptor) -> Option<DynamicMessage> {
    match options.has_extension(extension).then(|| options.get_extension(extension).into_owned()) {
        Some(Value::Message(found)) => Some(found),
        _ => None,
    }
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The Rust path of a message: modules are named after packages.
fn path(message: &MessageDescriptor) -> String {
    if message.full_name() == "google.protobuf.Empty" {
        return "()".to_owned();
    }
    let mut modules = vec!["crate".to_owned()];
    modules.extend(message.package_name().split('.').map(str::to_owned));
    // What is declared within a message stands in a module of that message's name.
    let outer = std::iter::successors(message.parent_message(), MessageDescriptor::parent_message);
    let mut outer: Vec<String> = outer.map(|message| message.name().to_snake_case()).collect();
    outer.reverse();
    modules.extend(outer);
    format!("{}::{}", modules.join("::"), message.name())
}

/// Whether a message has a plain field of this kind.
fn has(message: &MessageDescriptor, field: &str, kind: &Kind) -> bool {
    message.get_field_by_name(field).is_some_and(|found| found.kind() == *kind && !found.is_list())
}

fn write_resource(out: &mut String, message: &MessageDescriptor, options: &DynamicMessage) -> Written {
    if !has(message, "name", &Kind::String) {
        return Ok(());
    }
    let patterns = options.get_field_by_name("pattern");
    let pattern = patterns.as_ref().and_then(|value| value.as_list()?.first()?.as_str()).unwrap_or_default();
    writeln!(out, "impl Resource for {} {{", path(message))?;
    for (constant, value) in [
        ("TYPE", text(options, "type")),
        ("PATTERN", pattern.to_owned()),
        ("SINGULAR", text(options, "singular")),
        ("PLURAL", text(options, "plural")),
    ] {
        writeln!(out, "    const {constant}: &'static str = {value:?};")?;
    }
    accessors(out, message, &["name", "etag", "owner"])?;
    if message.get_field_by_name("labels").is_some_and(|field| field.is_map()) {
        writeln!(out, "    fn labels(&self) -> Option<&HashMap<String, String>> {{ Some(&self.labels) }}")?;
    }
    writeln!(out, "}}")?;
    Ok(())
}

/// A method for each of these fields of text that the message has; the trait says what holds without it.
fn accessors(out: &mut String, message: &MessageDescriptor, fields: &[&str]) -> Written {
    for field in fields.iter().filter(|field| has(message, field, &Kind::String)) {
        writeln!(out, "    fn {field}(&self) -> &str {{ &self.{field} }}")?;
    }
    Ok(())
}

/// A method for a flag that the message may have; the trait says what holds without it.
fn flag(out: &mut String, message: &MessageDescriptor, field: &str) -> Written {
    if has(message, field, &Kind::Bool) {
        writeln!(out, "    fn {field}(&self) -> bool {{ self.{field} }}")?;
    }
    Ok(())
}

fn write_request(out: &mut String, method: &Method) -> Written {
    let Method { path: full, action, facts, request, .. } = method;
    writeln!(out, "impl Request for {} {{", path(request))?;
    writeln!(out, "    const PATH: &'static str = {full:?};")?;
    writeln!(out, "    const ACTION: &'static str = {action:?};")?;
    writeln!(out, "    const FACTS: bool = {facts};")?;
    accessors(out, request, &["request_id", "plan_digest"])?;
    flag(out, request, "validate_only")?;
    if message_field(request, "read_mask").is_some() {
        writeln!(
            out,
            "    fn read_mask(&self) -> Option<&prost_types::FieldMask> {{ self.read_mask.as_ref() }}"
        )?;
    }
    writeln!(out, "}}")?;
    Ok(())
}

fn write_shape(out: &mut String, method: &Method) -> Written {
    let Method { name, request, response, .. } = method;
    let named = has(request, "name", &Kind::String);
    if named && name.starts_with("Get") {
        writeln!(out, "impl GetRequest for {} {{", path(request))?;
        accessors(out, request, &["name"])?;
        writeln!(out, "}}")?;
    } else if named && name.starts_with("Delete") {
        writeln!(out, "impl DeleteRequest for {} {{", path(request))?;
        writeln!(out, "    type Response = {};", path(response))?;
        accessors(out, request, &["name", "etag"])?;
        flag(out, request, "allow_missing")?;
        writeln!(out, "}}")?;
    } else if name.starts_with("List") && has(request, "page_token", &Kind::String) {
        write_list(out, request, response)?;
    } else if let Some(id) = name.strip_prefix("Create").map(str::to_snake_case) {
        write_create(out, request, &id)?;
    } else if let Some(field) = name.strip_prefix("Update").map(str::to_snake_case) {
        write_update(out, request, &field)?;
    }
    Ok(())
}

fn write_list(out: &mut String, request: &MessageDescriptor, response: &MessageDescriptor) -> Written {
    // AIP-132: one repeated field of resources, the token, and maybe how many there are.
    let lists = response.fields().filter(|field| field.is_list());
    let [(field, Kind::Message(item))] =
        &lists.map(|field| (field.name().to_owned(), field.kind())).collect::<Vec<_>>()[..]
    else {
        return Ok(());
    };
    let counted = has(response, "total_size", &Kind::Int32);
    if response.fields().len() != 2 + usize::from(counted) {
        return Ok(());
    }
    writeln!(out, "impl ListRequest for {} {{", path(request))?;
    writeln!(out, "    type Resource = {};\n    type Response = {};", path(item), path(response))?;
    accessors(out, request, &["parent", "page_token", "filter", "order_by"])?;
    writeln!(out, "    fn page_size(&self) -> i32 {{ self.page_size }}")?;
    flag(out, request, "return_total_size")?;
    flag(out, request, "show_deleted")?;
    let (count, total) = if counted { ("total_size", ", total_size") } else { ("_", "") };
    writeln!(
        out,
        "    fn respond({field}: Vec<Self::Resource>, next_page_token: String, {count}: Option<i32>) -> Self::Response {{\n        \
         {} {{ {field}, next_page_token{total} }}\n    }}\n}}",
        path(response)
    )?;
    Ok(())
}

fn write_create(out: &mut String, request: &MessageDescriptor, field: &str) -> Written {
    let Some(resource) = message_field(request, field) else { return Ok(()) };
    let id = format!("{field}_id");
    writeln!(out, "impl CreateRequest for {} {{", path(request))?;
    writeln!(out, "    type Resource = {};", path(&resource))?;
    writeln!(out, "    const FIELD: &'static str = {field:?};\n    const ID_FIELD: &'static str = {id:?};")?;
    accessors(out, request, &["parent"])?;
    if has(request, &id, &Kind::String) {
        writeln!(out, "    fn id(&self) -> &str {{ &self.{id} }}")?;
    }
    writeln!(out, "    fn resource(&self) -> Option<&Self::Resource> {{ self.{field}.as_ref() }}\n}}")?;
    Ok(())
}

fn write_update(out: &mut String, request: &MessageDescriptor, field: &str) -> Written {
    let Some(resource) = message_field(request, field) else { return Ok(()) };
    if message_field(request, "update_mask").is_none() {
        return Ok(());
    }
    writeln!(out, "impl UpdateRequest for {} {{", path(request))?;
    writeln!(out, "    type Resource = {};", path(&resource))?;
    writeln!(out, "    const FIELD: &'static str = {field:?};")?;
    writeln!(out, "    fn resource(&self) -> Option<&Self::Resource> {{ self.{field}.as_ref() }}")?;
    writeln!(
        out,
        "    fn update_mask(&self) -> Option<&prost_types::FieldMask> {{ self.update_mask.as_ref() }}"
    )?;
    writeln!(out, "    fn without_mask(&self) -> Self {{ Self {{ update_mask: None, ..self.clone() }} }}")?;
    flag(out, request, "allow_missing")?;
    writeln!(out, "}}")?;
    Ok(())
}

fn message_field(message: &MessageDescriptor, field: &str) -> Option<MessageDescriptor> {
    let found = message.get_field_by_name(field).filter(|found| !found.is_list())?;
    found.kind().as_message().cloned()
}

//! The reference of the API, `docs/api`: a page for each public service, written from the descriptors. `UPDATE_GOLDEN=1`
//! writes the pages anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use heck::ToSnakeCase as _;
use pavior_gateway::{Method, RouteTable, Target};
use pavior_proto::google::api::FieldBehavior;
use pavior_rpc::comments::Comments;
use pavior_rpc::{annotations, rules};
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use serde_json::{Value, json};

use crate::golden;

/// Says of what every page is made, and how it is made anew.
const MADE: &str =
    "<!-- Written from the protos: UPDATE_GOLDEN=1 cargo nextest run -p pavior-tests --test golden -->";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/api")
}

#[test]
fn reference_of_every_public_service() -> Result<()> {
    let pages = Reference::new()?.pages()?;
    let folder = folder();
    if golden::updating() {
        std::fs::create_dir_all(&folder)?;
    }
    let mut known: BTreeSet<String> = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
        known.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    for stale in known.iter().filter(|name| !pages.contains_key(*name)) {
        ensure!(golden::updating(), "docs/api/{stale} describes nothing: remove it");
        std::fs::remove_file(folder.join(stale))?;
    }
    for (name, text) in &pages {
        let path = folder.join(name);
        if golden::updating() {
            std::fs::write(&path, text)?;
            continue;
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        ensure!(kept == *text, "docs/api/{name} is not what the protos say:\n{}", golden::diff(&kept, text));
    }
    Ok(())
}

struct Reference {
    pool: DescriptorPool,
    table: RouteTable,
    comments: Comments,
}

impl Reference {
    fn new() -> Result<Self> {
        let pool = DescriptorPool::decode(pavior_proto::PUBLISHED)?;
        let table = RouteTable::build(pavior_proto::DESCRIPTORS)?;
        Ok(Self { comments: Comments::of(&pool), pool, table })
    }

    fn pages(&self) -> Result<BTreeMap<String, String>> {
        let mut pages = BTreeMap::new();
        let mut index = format!(
            "{MADE}\n\n# The API\n\nWhat holds for all of it stands in [`proto/README.md`](../../proto/README.md). Each \
             service below is served over gRPC, gRPC-Web, Connect, and HTTP with JSON, by the gateway.\n\n\
             | service | what it is for |\n|---|---|\n"
        );
        for name in self.table.services() {
            let service = self.pool.get_service_by_name(&name).context("a public service is published")?;
            let page = format!("{}.md", service.name().to_snake_case());
            writeln!(index, "| [`{name}`]({page}) | {} |", line(self.comments.above(&service)))?;
            pages.insert(page, self.page(&service)?);
        }
        pages.insert("README.md".to_owned(), index);
        Ok(pages)
    }

    fn page(&self, service: &ServiceDescriptor) -> Result<String> {
        let mut text = format!("{MADE}\n\n# `{}`\n\n{}\n", service.full_name(), self.comments.above(service));
        let mut shown = Shown::default();
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let Some(governed) = self.table.method(&path) else { continue };
            self.method(&mut text, &method, governed, &mut shown)?;
        }
        text.push_str("\n## Messages\n");
        while let Some(message) = shown.next_message() {
            writeln!(text, "\n### `{}`\n\n{}\n", message.full_name(), self.comments.above(&message))?;
            self.fields(&mut text, &message, &mut shown)?;
        }
        if !shown.enums.is_empty() {
            text.push_str("\n## Enums\n");
        }
        for values in shown.enums.values() {
            writeln!(text, "\n### `{}`\n\n{}\n", values.full_name(), self.comments.above(values))?;
            for value in values.values() {
                writeln!(text, "* `{}`: {}", value.name(), line(self.comments.above(&value)))?;
            }
        }
        Ok(text)
    }

    fn method(
        &self,
        text: &mut String,
        method: &MethodDescriptor,
        governed: &Method,
        shown: &mut Shown,
    ) -> Result<()> {
        writeln!(text, "\n## {}\n\n{}\n", method.name(), self.comments.above(method))?;
        for binding in &governed.http {
            writeln!(text, "* `{binding}`")?;
        }
        if governed.governed {
            let on = match &governed.target {
                Target::Resource(field) => format!(" on `{}`", field.path),
                Target::Platform => " on the platform".to_owned(),
                Target::Caller => String::new(),
            };
            writeln!(text, "* needs `{}`{on}", governed.action)?;
        } else {
            text.push_str("* needs a valid token and nothing else\n");
        }
        for action in &governed.amounts_to {
            writeln!(text, "* and `{action}`")?;
        }
        if let Some(creates) = &governed.creates {
            writeln!(text, "* and, to make what is not there, `{}` on what it is in", creates.method.action)?;
        }
        if governed.plan_follows {
            text.push_str("* guardrails and approvals are decided over its plan\n");
        }
        let recorded = match governed.audit.as_str_name() {
            "AUDIT_CHANGE" => "the change is recorded with it",
            "AUDIT_ACCESS" => "every call is recorded",
            _ => "denials are recorded",
        };
        writeln!(text, "* {recorded}")?;
        let stream = if governed.streaming { "a stream of " } else { "" };
        write!(text, "* answers {stream}`{}`", method.output().full_name())?;
        for (what, message) in self.of_operation(method) {
            write!(text, ", with `{}` as its {what}", message.full_name())?;
            shown.see(&Kind::Message(message));
        }
        text.push_str("\n\n");
        self.fields(text, &method.input(), shown)?;
        writeln!(text, "\nErrors: {}.\n", errors(method, governed).join(", "))?;
        let example = serde_json::to_string(&request(method, governed))?;
        writeln!(
            text,
            "```sh\ngrpcurl -plaintext -H \"authorization: Bearer $TOKEN\" -d '{example}' HOST:PORT {}/{}\n```",
            method.parent_service().full_name(),
            method.name()
        )?;
        shown.see(&Kind::Message(method.output()));
        Ok(())
    }

    /// What a long-running method ends with, and what it says until then (AIP-151).
    fn of_operation(&self, method: &MethodDescriptor) -> Vec<(&'static str, MessageDescriptor)> {
        let Some(info) = self.pool.get_extension_by_name("google.longrunning.operation_info") else {
            return Vec::new();
        };
        let options = method.options();
        if !options.has_extension(&info) {
            return Vec::new();
        }
        let info = options.get_extension(&info);
        let package = method.parent_file().package_name().to_owned();
        let named = |field: &str| {
            let value = info.as_message()?.get_field_by_name(field)?;
            let name = value.as_str()?.to_owned();
            let full = if name.contains('.') { name } else { format!("{package}.{name}") };
            self.pool.get_message_by_name(&full)
        };
        let parts = [("response", "response_type"), ("metadata", "metadata_type")];
        parts.into_iter().filter_map(|(what, field)| Some((what, named(field)?))).collect()
    }

    fn fields(&self, text: &mut String, message: &MessageDescriptor, shown: &mut Shown) -> Result<()> {
        if message.fields().len() == 0 {
            text.push_str("No fields.\n");
            return Ok(());
        }
        text.push_str("| field | type | |\n|---|---|---|\n");
        for field in message.fields() {
            let marks = Self::marks(&field);
            writeln!(
                text,
                "| `{}` | {} | {marks}{}{} |",
                field.name(),
                type_of(&field),
                line(self.comments.above(&field)),
                line(&demands(&field))
            )?;
            shown.see(&field.kind());
        }
        Ok(())
    }

    /// Whether a field is required, is only answered, or stands for others.
    fn marks(field: &FieldDescriptor) -> String {
        let said = annotations::behaviors(field).into_iter().filter_map(|behavior| match behavior {
            FieldBehavior::Required => Some("required".to_owned()),
            FieldBehavior::OutputOnly => Some("answers only".to_owned()),
            FieldBehavior::InputOnly => Some("requests only".to_owned()),
            FieldBehavior::Immutable => Some("cannot change".to_owned()),
            _ => None,
        });
        let mut marks: Vec<String> = said.collect();
        if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
            marks.push(format!("one of `{}`", oneof.name()));
        }
        if marks.is_empty() { String::new() } else { format!("*{}.* ", marks.join(", ")) }
    }
}

/// The rules of a field in sentences.
fn demands(field: &FieldDescriptor) -> String {
    let capital = |sentence: String| {
        let mut letters = sentence.chars();
        let first: String = letters.next().iter().flat_map(|first| first.to_uppercase()).collect();
        format!(" {first}{}.", letters.as_str())
    };
    rules::of_field(field).unwrap_or_default().sentences(field).into_iter().map(capital).collect()
}

/// What pages have to explain: ours, each once.
#[derive(Default)]
struct Shown {
    seen: BTreeSet<String>,
    messages: Vec<MessageDescriptor>,
    enums: BTreeMap<String, EnumDescriptor>,
}

impl Shown {
    fn see(&mut self, kind: &Kind) {
        match kind {
            Kind::Message(message)
                if message.full_name().starts_with("pavior.")
                    && self.seen.insert(message.full_name().to_owned())
                    && !message.is_map_entry() =>
            {
                self.messages.push(message.clone());
            }
            Kind::Enum(values) if values.full_name().starts_with("pavior.") => {
                self.enums.insert(values.full_name().to_owned(), values.clone());
            }
            _ => {}
        }
    }

    /// In the order in which they were met.
    fn next_message(&mut self) -> Option<MessageDescriptor> {
        (!self.messages.is_empty()).then(|| self.messages.remove(0))
    }
}

fn type_of(field: &FieldDescriptor) -> String {
    let one = |kind: &Kind| match kind {
        Kind::Message(message) => format!("`{}`", message.full_name()),
        Kind::Enum(values) => format!("`{}`", values.full_name()),
        other => format!("{other:?}"),
    };
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let part = |name: &str| entry.get_field_by_name(name).map(|field| one(&field.kind()));
            format!("map of {} to {}", part("key").unwrap_or_default(), part("value").unwrap_or_default())
        }
        kind if field.is_list() => format!("list of {}", one(&kind)),
        kind => one(&kind),
    }
}

/// The reasons that a call of this shape can be refused for, besides those that any call can.
fn errors(method: &MethodDescriptor, governed: &Method) -> Vec<String> {
    let input = method.input();
    let has = |name: &str| input.get_field_by_name(name).is_some();
    let name = method.name();
    let cases = [
        (true, "UNAUTHENTICATED"),
        (governed.governed, "ACCESS_DENIED"),
        (input.fields().len() > 0, "INVALID_FIELD"),
        (has("page_token"), "INVALID_PAGE_TOKEN"),
        (has("filter"), "INVALID_FILTER"),
        (has("request_id"), "REQUEST_ID_REUSED"),
        (name.starts_with("Create"), "RESOURCE_ALREADY_EXISTS"),
        (!name.starts_with("List") && governed.governed, "RESOURCE_NOT_FOUND"),
        (has("etag") || name.starts_with("Update"), "ETAG_MISMATCH"),
        (governed.plan_follows, "GUARDRAIL_DENIED"),
        (governed.plan_follows, "RESOURCE_BUSY"),
        (!governed.reads, "AUDIT_BACKLOG"),
        (true, "DEPENDENCY_UNAVAILABLE"),
    ];
    cases.iter().filter(|(holds, _)| *holds).map(|(_, reason)| format!("`{reason}`")).collect()
}

/// The smallest request that says something, about a resource of the kind that the method is about.
fn request(method: &MethodDescriptor, governed: &Method) -> Value {
    let mut request = example(&method.input(), 0);
    if let (Target::Resource(field), Some(pattern)) = (&governed.target, governed.patterns.first()) {
        let part = governed.singleton.iter().map(|part| format!("/{part}")).collect::<String>();
        let mut message = Some(method.input());
        let mut at = &mut request;
        for segment in field.path.split('.') {
            let found = message.take().and_then(|message| message.get_field_by_name(segment));
            let Some(found) = found else { return request };
            at = &mut at[found.json_name()];
            message = found.kind().as_message().cloned();
        }
        *at = json!(filled(&format!("{pattern}{part}")));
    }
    request
}

/// A name of a form, in the organization `acme`.
fn filled(pattern: &str) -> String {
    pattern.replace("{organization}", "acme").replace(['{', '}'], "")
}

/// The smallest request that says something: its required fields.
fn example(message: &MessageDescriptor, depth: usize) -> Value {
    let mut fields = serde_json::Map::new();
    for field in message.fields() {
        let required = annotations::behaves(&field, FieldBehavior::Required)
            || matches!(field.name(), "parent" | "name") && depth == 0;
        if !required {
            continue;
        }
        let value = match field.kind() {
            Kind::Message(inner) if depth < 2 && inner.full_name().starts_with("pavior.") => {
                example(&inner, depth + 1)
            }
            Kind::Message(_) => json!({}),
            Kind::Enum(values) => values.values().nth(1).map_or(json!(0), |value| json!(value.name())),
            Kind::String => json!(sample(&field)),
            _ => json!(1),
        };
        fields.insert(field.json_name().to_owned(), if field.is_list() { json!([value]) } else { value });
    }
    Value::Object(fields)
}

/// A name of the kind that a field refers to.
fn sample(field: &FieldDescriptor) -> String {
    let pool = field.parent_pool();
    let text = |option: &str, key: &str| -> String {
        let Some(extension) = pool.get_extension_by_name(option) else { return String::new() };
        let options = field.options();
        let value = options.get_extension(&extension);
        let found = value.as_message().and_then(|message| message.get_field_by_name(key));
        found.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let (of, child) =
        (text("google.api.resource_reference", "type"), text("google.api.resource_reference", "child_type"));
    let pattern = |wanted: &str| {
        let resource = pool.get_extension_by_name("google.api.resource")?;
        pool.all_messages().find_map(|message| {
            let options = message.options();
            let value = options.get_extension(&resource);
            let declared = value.as_message()?;
            let is = declared.get_field_by_name("type")?.as_str()? == wanted;
            let patterns = declared.get_field_by_name("pattern")?.into_owned();
            is.then(|| patterns.as_list()?.first()?.as_str().map(str::to_owned)).flatten()
        })
    };
    let named = match (pattern(&of), pattern(&child)) {
        (Some(name), _) => name,
        (None, Some(name)) => {
            let parent = name.rsplitn(3, '/').nth(2).unwrap_or_default();
            parent.to_owned()
        }
        _ if matches!(field.name(), "parent" | "name") => "organizations/{organization}".to_owned(),
        _ => return "…".to_owned(),
    };
    filled(&named)
}

/// A comment as one line of a table.
fn line(comment: &str) -> String {
    comment.replace('\n', " ").replace('|', "\\|")
}

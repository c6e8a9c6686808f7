//! `pavior apply`: brings the organization to what a set of YAML documents says, through the public API.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, bail};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};
use serde_json::Value as Json;
use tonic::Code;

use super::args::ApplyArgs;
use super::client::{Client, request_id};
pub use super::document::{Change, Source};
use super::dynamic::{self, ResourceKind};
use super::failure::{OrUsage as _, wrong_usage};
use super::output::{self, Printer};
use super::{document, publication};

/// The channel that a version is published to when none is named.
const STABLE: &str = "stable";

/// `pavior apply`.
pub(super) async fn files(client: &Client, printer: Printer, args: &ApplyArgs) -> anyhow::Result<()> {
    let sources = document::read(&args.paths)?;
    if sources.is_empty() {
        return Err(wrong_usage("there is no YAML file there"));
    }
    let mut changes = Vec::new();
    let mut written = Ok(());
    let counts = apply(client, &sources, |name, change| {
        if printer.is_json() {
            changes.push(serde_json::json!({"name": name, "change": change.to_string()}));
        } else if written.is_ok() {
            written = output::say(&format!("{name}: {change}"));
        }
    })
    .await;
    if printer.is_json() {
        // What was done before something was refused is told as well.
        printer.value(&Json::Array(changes))?;
    }
    written?;
    let summary: Vec<String> = counts?.iter().map(|(change, n)| format!("{n} {change}")).collect();
    eprintln!("{}", summary.join(", "));
    Ok(())
}

/// Applies every document, telling `report` of each; stops at the first that is refused.
pub async fn apply(
    client: &Client,
    sources: &[Source],
    mut report: impl FnMut(&str, Change),
) -> anyhow::Result<BTreeMap<Change, usize>> {
    let kinds = dynamic::kinds()?;
    let (mut counts, mut restored) = (BTreeMap::new(), BTreeSet::new());
    for source in sources {
        let documents = pavior_expr::yaml::parse_documents(&source.text)
            .with_context(|| format!("in `{}`", source.origin))
            .or_usage()?;
        for document in documents {
            if document.is_null() {
                continue;
            }
            let (name, change) = apply_document(client, &kinds, source, document, &mut restored)
                .await
                .with_context(|| format!("in `{}`", source.origin))?;
            report(&name, change);
            *counts.entry(change).or_default() += 1;
        }
    }
    Ok(counts)
}

async fn apply_document(
    client: &Client,
    kinds: &HashMap<String, ResourceKind>,
    source: &Source,
    document: Json,
    restored: &mut BTreeSet<String>,
) -> anyhow::Result<(String, Change)> {
    let Json::Object(mut fields) = document else { return Err(wrong_usage("a document must be a mapping")) };
    if let (Some(Json::String(template)), true) = (fields.get("template"), fields.contains_key("version")) {
        let version = fields.get("version").map(text_of).unwrap_or_default();
        return apply_version(client, template, &version, &source.text, restored).await;
    }
    let Some(Json::String(kind)) = fields.shift_remove("type") else {
        return Err(wrong_usage("a document must say its `type`, for example identity.pavior.dev/Group"));
    };
    let Some(kind) = kinds.get(&kind) else {
        let mut known: Vec<&str> = kinds.keys().map(String::as_str).collect();
        known.sort_unstable();
        let known = known.join(", ");
        return Err(wrong_usage(format!("`{kind}` is not a type that can be applied; there are {known}")));
    };
    let Some(Json::String(name)) = fields.get("name").cloned() else {
        return Err(wrong_usage("a document must say its `name`"));
    };
    if let Some(unknown) = fields.keys().find_map(|field| unknown(&kind.message, field)) {
        return Err(wrong_usage(format!("`{name}`: {unknown}")));
    }
    written_as_text(&kind.message, &mut fields).with_context(|| format!("`{name}`"))?;
    let desired = DynamicMessage::deserialize(kind.message.clone(), Json::Object(fields))
        .with_context(|| format!("`{name}`"))
        .or_usage()?;
    let change = apply_resource(client, kind, &name, desired).await.with_context(|| format!("`{name}`"))?;
    Ok((name, change))
}

/// What is wrong with a field that the type has not, empty or not, with those that may have been meant.
fn unknown(message: &MessageDescriptor, field: &str) -> Option<String> {
    let names = |field: FieldDescriptor| as_value(&field).into_iter().chain([field.json_name().to_owned()]);
    let known: Vec<String> = message.fields().flat_map(names).collect();
    if known.iter().any(|known| known == field) || message.get_field_by_name(field).is_some() {
        return None;
    }
    let (mut all, asked) = (known.clone(), field.to_lowercase());
    let near = |known: &String| {
        let known = known.to_lowercase();
        !asked.is_empty() && (known.contains(&asked) || asked.contains(&known))
    };
    let meant: Vec<String> = known.into_iter().filter(near).collect();
    all.sort_unstable();
    let named =
        |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Some(match meant.as_slice() {
        [] => format!("there is no field `{field}`; there are {}", named(&all)),
        meant => format!("there is no field `{field}`; {} may be meant", named(meant)),
    })
}

/// What a field is called in a document that says as YAML what the field holds as JSON text: `specSchema` for
/// `spec_schema_json`.
fn as_value(field: &FieldDescriptor) -> Option<String> {
    let name = field.json_name().strip_suffix("Json").filter(|_| field.kind() == Kind::String);
    name.filter(|_| !field.is_list() && !field.is_map()).map(str::to_owned)
}

/// A document may say as a value what a field holds as JSON text; the text is made of that, with its keys in the order
/// of the document.
fn written_as_text(
    message: &MessageDescriptor,
    fields: &mut serde_json::Map<String, Json>,
) -> anyhow::Result<()> {
    for text in message.fields() {
        let Some(value_name) = as_value(&text) else { continue };
        let Some(value) = fields.shift_remove(&value_name).filter(|value| !value.is_null()) else { continue };
        if [text.json_name(), text.name()].into_iter().any(|name| fields.contains_key(name)) {
            let other = text.json_name();
            return Err(wrong_usage(format!("`{value_name}` and `{other}` say the same: give one of them")));
        }
        fields.insert(text.json_name().to_owned(), Json::String(value.to_string()));
    }
    Ok(())
}

fn text_of(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn apply_resource(
    client: &Client,
    kind: &ResourceKind,
    name: &str,
    desired: DynamicMessage,
) -> anyhow::Result<Change> {
    let get = dynamic::request(&kind.get, vec![("name", Value::String(name.to_owned()))]);
    match dynamic::call(client.channel(), &kind.get, get).await? {
        Ok(existing) => update(client, kind, name, &existing, desired).await,
        Err(status) if status.code() == Code::NotFound => create(client, kind, name, desired).await,
        Err(status) => Err(status.into()),
    }
}

async fn create(
    client: &Client,
    kind: &ResourceKind,
    name: &str,
    desired: DynamicMessage,
) -> anyhow::Result<Change> {
    let (parent, id) = split(name)?;
    let id_field = format!("{}_id", kind.field);
    let request = dynamic::request(
        &kind.create,
        vec![
            ("parent", Value::String(parent)),
            (id_field.as_str(), Value::String(id)),
            (kind.field.as_str(), Value::Message(desired)),
            ("request_id", Value::String(request_id())),
        ],
    );
    dynamic::call(client.channel(), &kind.create, request).await??;
    Ok(Change::Created)
}

async fn update(
    client: &Client,
    kind: &ResourceKind,
    name: &str,
    existing: &DynamicMessage,
    desired: DynamicMessage,
) -> anyhow::Result<Change> {
    let before = json(existing)?;
    let after = json(&desired)?;
    let differs: Vec<String> = desired
        .descriptor()
        .fields()
        .filter(|field| field.name() != "name" && desired.has_field(field))
        .filter(|field| before.get(field.json_name()) != after.get(field.json_name()))
        .map(|field| field.name().to_owned())
        .collect();
    if differs.is_empty() {
        return Ok(Change::Unchanged);
    }
    let Some(method) = &kind.update else {
        bail!("`{name}` exists and differs in {}, and cannot be changed", differs.join(", "));
    };
    let mut desired = desired;
    // Written against what was read: somebody else's change in between is refused, not lost.
    if let Some(etag) = existing.get_field_by_name("etag") {
        desired.set_field_by_name("etag", etag.into_owned());
    }
    let mut request = dynamic::request(
        method,
        vec![(kind.field.as_str(), Value::Message(desired)), ("request_id", Value::String(request_id()))],
    );
    let mask = method.input().get_field_by_name("update_mask").context("the update takes no mask")?;
    let mut paths =
        DynamicMessage::new(mask.kind().as_message().context("the update mask is not a message")?.clone());
    paths.set_field_by_name("paths", Value::List(differs.into_iter().map(Value::String).collect()));
    request.set_field(&mask, Value::Message(paths));
    dynamic::call(client.channel(), method, request).await??;
    Ok(Change::Updated)
}

fn split(name: &str) -> anyhow::Result<(String, String)> {
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() < 2 || !parts.len().is_multiple_of(2) {
        return Err(wrong_usage(format!("`{name}` is not a resource name")));
    }
    let id = parts.pop().unwrap_or_default().to_owned();
    parts.pop();
    Ok((parts.join("/"), id))
}

fn json(message: &DynamicMessage) -> anyhow::Result<Json> {
    let options = SerializeOptions::new().skip_default_fields(false);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Publishes a version unless it is there already. A channel stays where somebody has moved it; only where `stable` is
/// gone altogether it is made again, at the newest version of the files: `restored` names the golden paths of which this
/// run has done so.
async fn apply_version(
    client: &Client,
    template: &str,
    version: &str,
    document: &str,
    restored: &mut BTreeSet<String>,
) -> anyhow::Result<(String, Change)> {
    let parent = client.full_name(template, &["templates"])?;
    let name = format!("{parent}/versions/{version}");
    let published = publication::version(client, &name).await?;
    if published.is_some_and(|published| published.document == document) && !restored.contains(&parent) {
        let known = publication::template(client, &parent).await?.unwrap_or_default();
        if known.channels.contains_key(STABLE) {
            return Ok((name, Change::Unchanged));
        }
        restored.insert(parent);
    }
    let done = publication::publish(client, template, version, document, &[STABLE.to_owned()]).await?;
    Ok((done.name, done.change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_there_names_those_that_may_be_meant() {
        let kinds = dynamic::kinds().unwrap();
        let kind = &kinds["catalog.pavior.dev/Kind"].message;
        assert_eq!(unknown(kind, "specSchema"), None);
        let meant = "there is no field `schema`; `specSchema`, `specSchemaJson` may be meant";
        assert_eq!(unknown(kind, "schema").as_deref(), Some(meant));
        assert_eq!(unknown(kind, "specSchemaJson"), None);
        assert_eq!(unknown(kind, "spec_schema_json"), None);
        // What is text and no JSON has one name only.
        assert!(unknown(kind, "displayNameJson").is_some());
        assert!(unknown(kind, "colour").is_some_and(|all| all.contains("`description`, `displayName`")));
    }

    #[test]
    fn schemas_keep_the_order_of_the_document() {
        let kind = &dynamic::kinds().unwrap()["catalog.pavior.dev/Kind"].message;
        let text =
            "specSchema: { type: object, properties: { size: {}, name: {}, area: {} } }\ndisplayName: X\n";
        let Json::Object(mut fields) = pavior_expr::yaml::parse(text).unwrap() else { panic!() };
        written_as_text(kind, &mut fields).unwrap();
        let wanted = r#"{"type":"object","properties":{"size":{},"name":{},"area":{}}}"#;
        assert_eq!(fields["specSchemaJson"], wanted);
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["displayName", "specSchemaJson"]);
        fields.insert("specSchema".to_owned(), serde_json::json!({}));
        let refused = written_as_text(kind, &mut fields).unwrap_err().to_string();
        assert_eq!(refused, "`specSchema` and `specSchemaJson` say the same: give one of them");
    }
}

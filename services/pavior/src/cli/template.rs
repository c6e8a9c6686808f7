//! Commands about golden paths.

use std::path::Path;

use anyhow::Context as _;
use pavior_proto::pavior::catalog::v1 as catalog;
use serde_json::{Value, json};

use super::args::{ListArgs, TemplateCommand};
use super::client::{Client, request_id};
use super::failure::{self, OrUsage as _};
use super::output::{self, Printer};
use super::page::list_all;
use super::publication::{self, Pointing};
use super::{document, requests};

/// `pavior template`.
pub(super) async fn template(
    client: &Client,
    printer: Printer,
    command: TemplateCommand,
) -> anyhow::Result<()> {
    match command {
        TemplateCommand::List(list) => templates(client, printer, &list).await,
        TemplateCommand::Show { template } => {
            show(client, printer, requests::template_version(client, &template)?).await
        }
        TemplateCommand::Channel { template, channel } => point(client, printer, &template, &channel).await,
        TemplateCommand::RemoveChannel { template, channel, allow_missing } => {
            remove_channel(client, printer, &template, &channel, allow_missing).await
        }
        TemplateCommand::Publish { file, channel } => publish(client, printer, &file, &channel).await,
    }
}

/// Lists golden paths.
async fn templates(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let all =
        list_all!(list, parent, client.templates(), list_templates, catalog::ListTemplatesRequest, templates);
    printer.list(&all, &["template", "latest", "channels", "description"], |t| {
        let mut channels: Vec<String> =
            t.channels.iter().map(|(c, at)| format!("{c}={}", output::id(&at.template_version))).collect();
        channels.sort();
        vec![
            output::id(&t.name),
            output::id(&t.latest_version).to_owned(),
            channels.join(" "),
            t.description.clone(),
        ]
    })
}

/// Shows a version of a golden path.
async fn show(client: &Client, printer: Printer, name: String) -> anyhow::Result<()> {
    let version = client
        .templates()
        .get_template_version(catalog::GetTemplateVersionRequest { name, ..Default::default() })
        .await?
        .into_inner();
    printer.one(
        &version,
        &[
            ("version", version.name.clone()),
            ("digest", version.digest.clone()),
            ("environments", version.environment_class_ids.join(", ")),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    // The text has the order of the document, which the value has not.
    let schema = match version.parameter_schema_json.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text).context("the schema of the parameters is not JSON")?,
    };
    let rows = parameter_rows(&schema);
    if rows.is_empty() {
        return output::say("parameters    none");
    }
    output::say("")?;
    printer.rows(&["parameter", "type", "default", "values", "description"], rows)
}

/// The parameters at the top of a schema; what is nested is in the JSON form.
fn parameter_rows(schema: &Value) -> Vec<Vec<String>> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let required = list(schema.get("required"));
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let row = |(name, property): (&String, &Value)| {
        let default = match property.get("default") {
            Some(default) => text(default),
            None if required.iter().any(|r| r.as_str() == Some(name)) => "(required)".to_owned(),
            None => String::new(),
        };
        vec![
            name.clone(),
            property.get("type").map(text).unwrap_or_default(),
            default,
            list(property.get("enum")).iter().map(text).collect::<Vec<_>>().join(", "),
            property.get("description").map(text).unwrap_or_default(),
        ]
    };
    properties.iter().map(row).collect()
}

async fn publish(client: &Client, printer: Printer, file: &Path, channels: &[String]) -> anyhow::Result<()> {
    let text = document::read_file(file)?.text;
    let fields =
        pavior_expr::yaml::parse(&text).with_context(|| format!("in `{}`", file.display())).or_usage()?;
    let field = |key: &str| {
        let value = fields.get(key).and_then(|v| v.as_str());
        value.ok_or_else(|| failure::wrong_usage(format!("`{}` has no `{key}`", file.display())))
    };
    let (template, version) = (field("template")?, field("version")?);
    let done = publication::publish(client, template, version, &text, channels).await?;
    if printer.is_json() {
        let channels = done.channels.iter().map(|(channel, pointing)| {
            let at = if let Pointing::Stays { at } = pointing { at } else { version };
            let moved = matches!(pointing, Pointing::Moved { .. });
            (channel.clone(), json!({ "version": at, "moved": moved }))
        });
        let channels: serde_json::Map<_, _> = channels.collect();
        return printer
            .value(&json!({"name": done.name, "change": done.change.to_string(), "channels": channels}));
    }
    output::say(&format!("{}: {}", done.name, done.change))?;
    for (channel, pointing) in &done.channels {
        output::say(&pointed(&format!("{template}@{version}"), channel, pointing))?;
    }
    Ok(())
}

/// What became of a channel, for people.
fn pointed(version: &str, channel: &str, pointing: &Pointing) -> String {
    match pointing {
        Pointing::Moved { before: None } => format!("{channel}: points at {version}"),
        Pointing::Moved { before: Some(before) } => {
            format!("{channel}: points at {version}, before at {before}")
        }
        Pointing::There => format!("{channel}: pointed at {version} already"),
        Pointing::Stays { at } => format!(
            "{channel}: stays at {at}, which is newer; to point it back: pavior template channel {version} {channel}"
        ),
    }
}

async fn point(client: &Client, printer: Printer, template: &str, channel: &str) -> anyhow::Result<()> {
    let Some((template, version)) = template.split_once('@').filter(|(_, version)| !version.is_empty())
    else {
        let message = format!("say which version, as in `{}@1.0.0`", template.trim_end_matches('@'));
        return Err(failure::wrong_usage(message));
    };
    let name = client.full_name(template, &["templates"])?;
    let version = format!("{name}/versions/{version}");
    let changed = publication::move_channel(client, &name, channel, &version, "").await?;
    if printer.is_json() {
        return printer.one(&changed, &[]);
    }
    output::say(&format!("{channel}: {}", output::within(&version)))
}

async fn remove_channel(
    client: &Client,
    printer: Printer,
    template: &str,
    channel: &str,
    allow_missing: bool,
) -> anyhow::Result<()> {
    let name = client.full_name(template, &["templates"])?;
    let before = publication::template(client, &name).await?.unwrap_or_default();
    let request = catalog::RemoveTemplateChannelRequest {
        name,
        channel_id: channel.to_owned(),
        allow_missing,
        request_id: request_id(),
        ..Default::default()
    };
    let changed = client.templates().remove_template_channel(request).await?.into_inner();
    if printer.is_json() {
        return printer.one(&changed, &[]);
    }
    let was_there = before.channels.contains_key(channel);
    output::say(&format!("{channel}: {}", if was_there { "removed" } else { "there was none" }))
}

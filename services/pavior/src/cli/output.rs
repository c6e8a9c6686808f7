//! Tables for people, JSON for scripts.

use comfy_table::{ContentArrangement, Table, presets};
use pavior_rpc::convert;
use prost::{Message, Name};
use serde_json::Value;

use super::args::Format;

/// Prints what a command has to say, in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    format: Format,
}

impl Printer {
    /// A printer for a form.
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// True when scripts read the answer.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints one message: as JSON, or as the pairs given.
    pub fn one<M: Message + Name>(self, message: &M, pairs: &[(&str, String)]) -> anyhow::Result<()> {
        if self.is_json() {
            return self.value(&convert::to_json(message)?);
        }
        let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            println!("{key:width$}  {}", value.replace('\n', &format!("\n{:width$}  ", "")));
        }
        Ok(())
    }

    /// Prints a list: as a JSON array, or as rows.
    pub fn list<M: Message + Name>(
        self,
        messages: &[M],
        header: &[&str],
        row: impl Fn(&M) -> Vec<String>,
    ) -> anyhow::Result<()> {
        if self.is_json() {
            let values = messages.iter().map(convert::to_json).collect::<Result<Vec<_>, _>>()?;
            return self.value(&Value::Array(values));
        }
        if messages.is_empty() {
            eprintln!("nothing to show");
            return Ok(());
        }
        println!("{}", table(header, messages.iter().map(row)));
        Ok(())
    }

    /// Prints a JSON value.
    pub fn value(self, value: &Value) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string_pretty(value)?);
        Ok(())
    }
}

/// Renders rows below a header.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    table
        .to_string()
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The last part of a resource name.
pub fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A time as RFC 3339, to the second.
pub fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|t| convert::from_timestamp(t).ok())
        .and_then(|t| t.replace_nanosecond(0).ok())
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

/// A monthly cost, before and after.
pub fn cost(before: &str, after: &str) -> String {
    let shown = |cost: &str| if cost.is_empty() { "0.00".to_owned() } else { cost.to_owned() };
    format!("{} (now {})", shown(after), shown(before))
}

/// An enum's value without its prefix, in lower case: `STATE_ACTIVE` becomes `active`.
pub fn state(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

//! Tables for people, JSON for scripts.

use std::io::Write as _;

use anyhow::Context as _;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use pavior_proto::google::r#type::Money;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::convert::{self, from_money};
use prost::{Message, Name};
use serde_json::Value;

use super::args::Format;

/// Prints the answers of commands as a table or as JSON.
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
            say(&format!("{key:width$}  {}", value.replace('\n', &format!("\n{:width$}  ", ""))))?;
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
        self.rows(header, messages.iter().map(row))
    }

    /// Prints rows below a header, or says that there are none.
    pub fn rows(self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> anyhow::Result<()> {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            eprintln!("nothing to show");
            return Ok(());
        }
        say(&table(header, rows))
    }

    /// Prints a JSON value.
    pub fn value(self, value: &Value) -> anyhow::Result<()> {
        say(&serde_json::to_string_pretty(value)?)
    }
}

/// Prints a line. Whoever reads may have seen enough, as `head` has: that is not a failure.
pub fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// The narrowest that a last column is wrapped to.
const LAST_COLUMN: usize = 24;

/// Renders rows below a header, as wide as the terminal allows.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let width = Table::new().width().map(usize::from);
    render(header, &rows.into_iter().collect::<Vec<_>>(), width)
}

/// Rows below a header. Where they are too wide, the last column is wrapped; where that is not enough, each row becomes
/// a block of lines, because a name that is broken in the middle cannot be copied.
fn render(header: &[&str], rows: &[Vec<String>], width: Option<usize>) -> String {
    let lines = |wrapped: Option<usize>| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.iter().map(|h| h.to_uppercase())).add_rows(rows);
        if let (Some(width), Some(last)) = (wrapped, header.len().checked_sub(1)) {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
            table.set_constraints(vec![ColumnConstraint::ContentWidth; last]);
        }
        let text = table.to_string();
        text.lines()
            .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
            .collect::<Vec<String>>()
    };
    let natural = lines(None);
    let Some(width) = width.filter(|width| natural.iter().any(|line| line.chars().count() > *width)) else {
        return natural.join("\n");
    };
    let fixed: usize = (0..header.len().saturating_sub(1))
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([header.get(column).map_or(0, |h| h.len())]).max().unwrap_or(0) + 2
        })
        .sum();
    if fixed + LAST_COLUMN <= width {
        // The margin of one at either side is cut off again.
        return lines(Some(width)).join("\n");
    }
    let keys = header.iter().map(|h| h.len()).max().unwrap_or(0);
    let block = |row: &Vec<String>| {
        let cells = header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        cells.map(|(key, cell)| format!("{key:keys$}  {cell}")).collect::<Vec<_>>().join("\n")
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
}

/// A resource name as commands take it: `organizations/acme/projects/hello/environments/dev` becomes `hello/dev`.
pub fn short(name: &str) -> String {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        ["organizations", _, _, id] => (*id).to_owned(),
        ["organizations", _, "projects", project, "environments" | "pipelines", id] => {
            format!("{project}/{id}")
        }
        _ => name.to_owned(),
    }
}

/// A resource name within its organization: `organizations/acme/groups/platform` becomes `groups/platform`.
pub fn within(name: &str) -> String {
    let rest = name.strip_prefix("organizations/").and_then(|rest| rest.split_once('/'));
    rest.map_or(name, |(_, rest)| rest).to_owned()
}

/// A resource name from its project on, without the names of collections: `hello/pipeline/run-3`.
pub fn below_project(name: &str) -> String {
    name.split('/').skip(3).step_by(2).collect::<Vec<_>>().join("/")
}

/// The last part of a resource name.
pub fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// Where its workloads answer.
pub(crate) fn urls(environment: &pb::Environment) -> String {
    environment.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect::<Vec<_>>().join(", ")
}

/// A time as RFC 3339, to the second.
pub fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|t| convert::from_timestamp(t).ok())
        .and_then(|t| t.replace_nanosecond(0).ok())
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}

/// A monthly cost, before and after, as far as they are known.
pub fn cost(before: Option<&Money>, after: Option<&Money>) -> String {
    let after = match money(after) {
        cost if cost.is_empty() => "not known".to_owned(),
        cost => cost,
    };
    match money(before) {
        cost if cost.is_empty() => after,
        cost => format!("{after} (now {cost})"),
    }
}

/// An amount; empty when it is not known.
pub fn money(amount: Option<&Money>) -> String {
    amount.and_then(|amount| from_money(amount).ok()).map(|amount| amount.to_string()).unwrap_or_default()
}

/// An enum's value without its prefix, in lower case: `STATE_ACTIVE` becomes `active`.
pub fn state(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![
            row([
                "01a204b0-1136-76ae-b4e1-5a61c5420537",
                "succeeded",
                "a text of several words that goes on",
            ]),
            row(["01a204b0-1136-76ae-b4e1-5a61c5420538", "", "short"]),
        ]
    }

    #[test]
    fn a_table_is_as_wide_as_it_is_where_nobody_limits_it() {
        let text = render(&["operation", "state", "why"], &rows(), None);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.starts_with("OPERATION "), "{text}");
    }

    #[test]
    fn the_last_column_is_wrapped_and_no_other() {
        let text = render(&["operation", "state", "why"], &rows(), Some(76));
        assert!(text.lines().count() > 3 && text.lines().all(|line| line.chars().count() <= 76), "{text}");
        assert!(text.contains("01a204b0-1136-76ae-b4e1-5a61c5420537  succeeded  a text"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_blocks_without_empty_lines() {
        let text = render(&["operation", "state", "why"], &rows(), Some(60));
        assert!(
            text.starts_with("operation  01a204b0-1136-76ae-b4e1-5a61c5420537\nstate      succeeded\n"),
            "{text}"
        );
        assert!(text.ends_with("5420538\nwhy        short"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_said_to_cost_nothing() {
        let money = |units| Money { currency_code: "EUR".to_owned(), units, nanos: 0 };
        assert_eq!(cost(Some(&money(5)), Some(&money(0))), "0.00 EUR (now 5.00 EUR)");
        assert_eq!(cost(None, Some(&money(5))), "5.00 EUR");
        assert_eq!(cost(Some(&money(0)), None), "not known (now 0.00 EUR)");
        assert_eq!(cost(None, None), "not known");
    }

    #[test]
    fn short_names_are_what_commands_take() {
        for (name, expected) in [
            ("organizations/acme/projects/hello", "hello"),
            ("organizations/acme/projects/hello/environments/dev", "hello/dev"),
            ("organizations/acme/projects/hello/pipelines/pipeline", "hello/pipeline"),
            ("organizations/acme", "organizations/acme"),
        ] {
            assert_eq!(short(name), expected);
        }
        let run = "organizations/acme/projects/hello/pipelines/pipeline/runs/run-3";
        assert_eq!(below_project(run), "hello/pipeline/run-3");
    }
}

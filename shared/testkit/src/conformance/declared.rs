//! The resources of a service as the descriptors have them, and the parts of the suite that apply to each.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pavior_rpc::{convert, governance};
use prost_reflect::{MessageDescriptor, MethodDescriptor};

/// The services that keep resources.
const ROLES: [&str; 4] = ["catalog", "provisioning", "policy", "audit"];
/// A resource that is not ours, and has no annotation: its type is the one that its service gives it.
const OPERATION: (&str, &str) = ("google.longrunning.Operation", "provisioning.pavior.dev/Operation");

/// What no call adds one more of to a list that exists: decisions are written by a task, some time after the call, and a
/// project has the pipelines of its template.
const NOT_INSERTED: [&str; 2] = ["Decision", "Pipeline"];

/// A part of the suite. A resource passes those that its methods call for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Get: what is missing is NOT_FOUND with its type and name.
    NotFound,
    /// Get: a malformed name is INVALID_FIELD at `name`.
    BadNames,
    /// Get: another organization learns nothing, not even whether it exists.
    ForeignGet,
    /// List: page by page everything comes once.
    Pages,
    /// List: the default, the largest and negative page sizes.
    PageSizes,
    /// List: a token is good for the list that gave it.
    PageTokens,
    /// List: unknown fields and broken text in `filter`.
    Filters,
    /// List: unknown fields and broken text in `order_by`.
    Orders,
    /// List: another organization is shown nothing.
    ForeignList,
    /// Get, or list: `read_mask` leaves out what it does not name, and an unknown path is an error.
    ReadMasks,
    /// List: how many there are on all pages is said when it is asked for.
    Totals,
    /// An update that comes without a creation, because operations make the resource: dry runs, etags, masks, replays and
    /// audit records.
    Updates,
    /// List: what is made between two pages neither hides nor repeats anything.
    PageInserts,
    /// Fields whose number a message does not have are ignored.
    UnknownFields,
    /// All parts of creating, updating and deleting: ids, dry runs, etags, masks, names to show, paging under inserts,
    /// unknown fields, audit records, and other organizations.
    Changes,
    /// Update: what is not there is made where `allow_missing` says so.
    AllowMissing,
    /// Delete, and List with `show_deleted`: what is deleted is kept and told of, and its name is free.
    Deleted,
}

/// A resource with the methods that it has.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) message: String,
    pub(super) r#type: String,
    pub(super) singular: String,
    pub(super) plural: String,
    pub(super) get: Option<MethodDescriptor>,
    pub(super) list: Option<MethodDescriptor>,
    /// The field of a list that holds them, as JSON has it.
    pub(super) items: String,
    pub(super) changes: bool,
    /// Whether there is an update of it that answers at once.
    updates: bool,
    /// Whether its update can make what is not there.
    upserts: bool,
    singleton: bool,
}

impl Declared {
    /// The field of the list's request that says where to look, as JSON has it.
    pub(super) fn parent_field(&self) -> &'static str {
        let input = self.list.as_ref().unwrap().input();
        let has = |name: &str| input.get_field_by_name(name).is_some();
        if has("parent") {
            "parent"
        } else if has("name") {
            "name"
        } else {
            ""
        }
    }

    pub(super) fn lists_by(&self, field: &str) -> bool {
        self.list.as_ref().is_some_and(|list| list.input().get_field_by_name(field).is_some())
    }

    /// A filter that the list takes.
    pub(super) fn some_filter(&self, name: &str) -> String {
        match self.message.as_str() {
            "AuditRecord" => "index >= 0".to_owned(),
            "Operation" => "done = true".to_owned(),
            _ => format!("name = \"{name}\""),
        }
    }

    /// A filter that nothing matches.
    pub(super) fn no_filter(&self) -> &'static str {
        match self.message.as_str() {
            "AuditRecord" => "receive_time < \"1970-01-02T00:00:00Z\"",
            _ => "create_time < \"1970-01-02T00:00:00Z\"",
        }
    }

    /// The parts that apply to it.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        if self.get.is_some() {
            parts.extend([Part::NotFound, Part::BadNames, Part::ForeignGet]);
        }
        if self.list.is_some() {
            parts.extend([Part::Pages, Part::PageSizes, Part::PageTokens, Part::ForeignList]);
        }
        let more = [(Part::Filters, "filter"), (Part::Orders, "order_by")];
        parts.extend(more.into_iter().filter(|(_, field)| self.lists_by(field)).map(|(part, _)| part));
        parts.push(Part::UnknownFields);
        if self.list.is_some() && !self.changes && !NOT_INSERTED.contains(&self.message.as_str()) {
            parts.push(Part::PageInserts);
        }
        let takes = |method: &Option<MethodDescriptor>, field: &str| {
            method.as_ref().is_some_and(|method| method.input().get_field_by_name(field).is_some())
        };
        if takes(&self.get, "read_mask") || takes(&self.list, "read_mask") {
            parts.push(Part::ReadMasks);
        }
        if takes(&self.list, "return_total_size") {
            parts.push(Part::Totals);
        }
        match (self.changes, self.updates) {
            (true, _) => parts.push(Part::Changes),
            (false, true) => parts.push(Part::Updates),
            (false, false) => {}
        }
        if self.upserts {
            parts.push(Part::AllowMissing);
        }
        if self.changes && takes(&self.list, "show_deleted") {
            parts.push(Part::Deleted);
        }
        // One that always exists is never missing, and nobody learns whether another organization exists.
        if self.singleton || self.list.is_some() && self.parent_field().is_empty() {
            parts.retain(|part| *part != Part::NotFound);
        }
        parts
    }
}

fn text(message: &MessageDescriptor, field: &str) -> Option<String> {
    let option = convert::pool().get_extension_by_name("google.api.resource").unwrap();
    if !message.options().has_extension(&option) {
        return None;
    }
    let value = message.options().get_extension(&option).into_owned();
    let value = value.as_message()?.get_field_by_name(field)?.into_owned();
    let list = value.as_list().and_then(|list| list.first()).cloned();
    Some(list.as_ref().unwrap_or(&value).as_str()?.to_owned())
}

/// Every resource of a role, by the name of its message.
pub(super) fn resources(role: &str) -> BTreeMap<String, Declared> {
    let declared = governance::declared(convert::pool()).unwrap();
    let mut methods = BTreeMap::new();
    for one in declared {
        if governance::roles(&one.service).is_ok_and(|roles| roles == [role]) {
            methods.extend(one.method.map(|method| (method.name().to_owned(), method)));
        }
    }
    let mut found = BTreeMap::new();
    for method in methods.values() {
        let message = method.output();
        let name = message.name().to_owned();
        let r#type = match message.full_name() {
            full_name if full_name == OPERATION.0 => Some(OPERATION.1.to_owned()),
            _ => text(&message, "type"),
        };
        let Some(r#type) = r#type.filter(|_| method.name() == format!("Get{name}")) else { continue };
        let lists = methods.values().filter(|method| method.name().starts_with("List"));
        let list = lists.flat_map(|list| {
            let items = list.output().fields().find(|field| {
                field.is_list()
                    && field.kind().as_message().is_some_and(|item| item.full_name() == message.full_name())
            });
            items.map(|items| (list.clone(), items.json_name().to_owned()))
        });
        let (list, items) = list.last().unzip();
        let answers = |verb: &str| {
            methods
                .get(&format!("{verb}{name}"))
                .is_some_and(|method| method.output().full_name() == message.full_name())
        };
        let changes = ["Create", "Update", "Delete"].into_iter().all(answers);
        let updates = answers("Update");
        let upserts = methods
            .get(&format!("Update{name}"))
            .is_some_and(|update| update.input().get_field_by_name("allow_missing").is_some());
        let [singular, plural] =
            ["singular", "plural"].map(|field| text(&message, field).unwrap_or_default());
        let singleton = text(&message, "pattern").is_some_and(|pattern| !pattern.ends_with('}'));
        let get = Some(method.clone());
        let items = items.unwrap_or_default();
        let one = Declared {
            message: name.clone(),
            r#type,
            singular,
            plural,
            get,
            list,
            items,
            changes,
            updates,
            upserts,
            singleton,
        };
        found.insert(name, one);
    }
    found
}

/// Every resource with the parts of the suite that it passes, a line each.
pub fn table() -> String {
    let mut text = String::new();
    for role in ROLES {
        for one in resources(role).values() {
            let parts: Vec<String> = one.parts().iter().map(|part| format!("{part:?}")).collect();
            writeln!(text, "{role} {}: {}", one.message, parts.join(" ")).unwrap();
        }
    }
    text
}

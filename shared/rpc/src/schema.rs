//! What the descriptors demand of each field, read once into plain tables: kinds, and annotations of `google.api` and
//! `buf.validate`.

use std::collections::HashMap;
use std::sync::LazyLock;

use pavior_proto::google::api::FieldBehavior;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::rules::{self, Rules};
use crate::{annotations, convert};

/// What a field of a message may hold.
#[derive(Debug)]
pub(crate) enum Shape {
    Text,
    /// Of 32 or 64 bits, with a sign, as a varint.
    Integer,
    /// The legal numbers, sorted.
    Enum(Vec<i32>),
    /// The place of the message's plan.
    Message(usize),
    Other,
}

/// One field.
#[derive(Debug)]
pub(crate) struct FieldPlan {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) list: bool,
    pub(crate) map: bool,
    pub(crate) required: bool,
    pub(crate) output_only: bool,
    pub(crate) immutable: bool,
    pub(crate) identifier: bool,
    pub(crate) uuid4: bool,
    pub(crate) rules: Option<Box<Rules>>,
}

/// One message.
#[derive(Debug, Default)]
pub(crate) struct MessagePlan {
    /// Sorted by number.
    pub(crate) fields: Vec<FieldPlan>,
    /// The oneofs of which a field must be set, with the places of their fields.
    pub(crate) oneofs: Vec<(String, Vec<usize>)>,
    /// False when no value of the message could be wrong, so that it need not be looked at.
    pub(crate) constrained: bool,
    /// The number of the field `update_mask` of an update request.
    pub(crate) update_mask: Option<u32>,
    /// Which part of a value it is, if it is one.
    pub(crate) value: Option<ValueKind>,
    /// True when it is such a value, or may hold one.
    pub(crate) holds_values: bool,
    /// True for the entry of a map.
    pub(crate) map_entry: bool,
}

/// The messages that values are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Struct,
    List,
    Value,
}

impl MessagePlan {
    /// True for a list or an object.
    pub(crate) fn nests(&self) -> bool {
        matches!(self.value, Some(ValueKind::Struct | ValueKind::List))
    }

    /// The field of this number and its place.
    pub(crate) fn field(&self, number: u32) -> Option<(usize, &FieldPlan)> {
        let at = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(at).map(|field| (at, field))
    }
}

/// All messages.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    messages: Vec<MessagePlan>,
    by_name: HashMap<String, usize>,
}

/// Immutable once made: read from the embedded descriptors.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new(convert::pool()));

/// The tables of the embedded descriptors.
pub(crate) fn schema() -> &'static Schema {
    &SCHEMA
}

impl Schema {
    pub(crate) fn plan(&self, at: usize) -> Option<&MessagePlan> {
        self.messages.get(at)
    }

    /// The plan of the message that a field holds.
    pub(crate) fn of(&self, field: &FieldPlan) -> Option<&MessagePlan> {
        match field.shape {
            Shape::Message(at) => self.plan(at),
            _ => None,
        }
    }

    pub(crate) fn plan_of(&self, full_name: &str) -> Option<&MessagePlan> {
        self.by_name.get(full_name).and_then(|at| self.messages.get(*at))
    }

    fn new(pool: &DescriptorPool) -> Self {
        let descriptors: Vec<_> = pool.all_messages().collect();
        let by_name: HashMap<String, usize> =
            descriptors.iter().enumerate().map(|(at, m)| (m.full_name().to_owned(), at)).collect();
        let annotations = Annotations::new(pool);
        let messages = descriptors.iter().map(|m| annotations.plan(m, &by_name)).collect();
        let mut schema = Self { messages, by_name };
        schema.spread(|m| m.constrained, |m| m.constrained = true, |field| !field.output_only);
        // What callers should not send is decoded all the same.
        schema.spread(|m| m.holds_values, |m| m.holds_values = true, |_| true);
        schema
    }

    /// A message that holds one with a property has it too, over the fields that count; repeated until nothing changes.
    fn spread(
        &mut self,
        has: impl Fn(&MessagePlan) -> bool,
        give: impl Fn(&mut MessagePlan),
        counts: impl Fn(&FieldPlan) -> bool,
    ) {
        loop {
            let known: Vec<bool> = self.messages.iter().map(&has).collect();
            let mut changed = false;
            for message in self.messages.iter_mut().filter(|message| !has(message)) {
                let holds = |field: &FieldPlan| match field.shape {
                    Shape::Message(at) => known.get(at).copied().unwrap_or_default(),
                    _ => false,
                };
                if message.fields.iter().any(|field| counts(field) && holds(field)) {
                    give(message);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }
}

/// The extensions of `google.api` in a pool.
struct Annotations {
    info: Option<prost_reflect::ExtensionDescriptor>,
}

impl Annotations {
    fn new(pool: &DescriptorPool) -> Self {
        Self { info: pool.get_extension_by_name("google.api.field_info") }
    }

    fn plan(&self, message: &MessageDescriptor, by_name: &HashMap<String, usize>) -> MessagePlan {
        let mut fields: Vec<FieldPlan> = message.fields().map(|f| self.field(&f, by_name)).collect();
        fields.sort_by_key(|field| field.number);
        let oneofs: Vec<(String, Vec<usize>)> = message
            .oneofs()
            .filter(rules::is_required)
            .map(|oneof| {
                let place =
                    |field: FieldDescriptor| fields.iter().position(|one| one.number == field.number());
                (oneof.name().to_owned(), oneof.fields().filter_map(place).collect())
            })
            .collect();
        let constrained = !oneofs.is_empty()
            || fields.iter().any(|field| {
                !field.output_only
                    && (field.required
                        || field.list
                        || field.map
                        || matches!(field.shape, Shape::Text | Shape::Enum(_))
                        || field.rules.is_some())
            });
        let update_mask = fields.iter().find(|field| field.name == "update_mask").map(|field| field.number);
        let value = match message.full_name() {
            "google.protobuf.Struct" => Some(ValueKind::Struct),
            "google.protobuf.ListValue" => Some(ValueKind::List),
            "google.protobuf.Value" => Some(ValueKind::Value),
            _ => None,
        };
        let holds_values = value.is_some();
        let map_entry = message.is_map_entry();
        MessagePlan { fields, oneofs, constrained, update_mask, value, holds_values, map_entry }
    }

    fn field(&self, field: &FieldDescriptor, by_name: &HashMap<String, usize>) -> FieldPlan {
        let options = field.options();
        let behaviors = annotations::behaviors(field);
        let mut uuid4 = false;
        if let Some(extension) = &self.info
            && options.has_extension(extension)
            && let Value::Message(info) = options.get_extension(extension).as_ref()
        {
            let format = info.get_field_by_name("format").and_then(|value| value.as_enum_number());
            // google.api.FieldInfo.Format: 1 is UUID4.
            uuid4 = format == Some(1);
        }
        let shape = match field.kind() {
            Kind::String => Shape::Text,
            Kind::Int32 | Kind::Int64 => Shape::Integer,
            Kind::Enum(values) => {
                let mut numbers: Vec<i32> = values.values().map(|value| value.number()).collect();
                numbers.sort_unstable();
                Shape::Enum(numbers)
            }
            Kind::Message(message) => {
                by_name.get(message.full_name()).map_or(Shape::Other, |at| Shape::Message(*at))
            }
            _ => Shape::Other,
        };
        let rules = rules::of_field(field).map(Box::new);
        FieldPlan {
            number: field.number(),
            name: field.name().to_owned(),
            shape,
            list: field.is_list(),
            map: field.is_map(),
            required: behaviors.contains(&FieldBehavior::Required)
                || rules.as_ref().is_some_and(|rules| rules.required),
            output_only: behaviors.contains(&FieldBehavior::OutputOnly),
            immutable: behaviors.contains(&FieldBehavior::Immutable),
            identifier: behaviors.contains(&FieldBehavior::Identifier),
            uuid4,
            rules,
        }
    }
}

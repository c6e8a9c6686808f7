//! Messages and enums as JSON Schema, in the JSON form of protobuf, with the comments of the protos.

use std::collections::BTreeMap;

use pavior_proto::google::api::FieldBehavior;
use pavior_rpc::comments::Comments;
use pavior_rpc::rules::ValueRules;
use pavior_rpc::{annotations, rules};
use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

/// The schemas of a document: those that were asked for, and all that they lead to.
pub(crate) struct Schemas {
    comments: Comments,
    made: BTreeMap<String, Value>,
}

impl Schemas {
    pub(crate) fn new(pool: &DescriptorPool) -> Self {
        Self { comments: Comments::of(pool), made: BTreeMap::new() }
    }

    pub(crate) fn comments(&self) -> &Comments {
        &self.comments
    }

    /// All of them by name, sorted.
    pub(crate) fn into_all(self) -> Map<String, Value> {
        self.made.into_iter().collect()
    }

    /// Where a message is described; well-known types in place.
    pub(crate) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(known) = well_known(message.full_name()) {
            return known;
        }
        let name = message.full_name();
        if !self.made.contains_key(name) {
            // Before its fields, which may lead back to it.
            self.made.insert(name.to_owned(), Value::Null);
            let schema = self.object(message, &[], true);
            self.made.insert(name.to_owned(), schema);
        }
        reference(name)
    }

    /// The description of a message without some of its fields, in place; `demands` says what must be set.
    pub(crate) fn object(&mut self, message: &MessageDescriptor, without: &[String], demands: bool) -> Value {
        let mut properties = Map::new();
        let mut required: Vec<Value> = Vec::new();
        for field in message.fields().filter(|field| !without.iter().any(|name| name == field.name())) {
            if demands && annotations::behaves(&field, FieldBehavior::Required) {
                required.push(json!(field.json_name()));
            }
            let schema = self.described(&field);
            properties.insert(field.json_name().to_owned(), schema);
        }
        let comment = self.comments.above(message);
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        if !comment.is_empty() {
            schema.insert("description".to_owned(), json!(comment));
        }
        schema.insert("properties".to_owned(), Value::Object(properties));
        if !required.is_empty() {
            schema.insert("required".to_owned(), Value::Array(required));
        }
        Value::Object(schema)
    }

    /// A field with what is said about it.
    pub(crate) fn described(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.field(field);
        let comment = self.comment_of(field);
        if let Some(schema) = schema.as_object_mut() {
            if !comment.is_empty() {
                schema.insert("description".to_owned(), json!(comment));
            }
            if annotations::behaves(field, FieldBehavior::OutputOnly) {
                schema.insert("readOnly".to_owned(), json!(true));
            }
            if annotations::behaves(field, FieldBehavior::InputOnly) {
                schema.insert("writeOnly".to_owned(), json!(true));
            }
        }
        schema
    }

    /// What the protos say about a field, and which others it excludes.
    pub(crate) fn comment_of(&self, field: &FieldDescriptor) -> String {
        let comment = self.comments.above(field);
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let others = oneof.map(|oneof| {
            let names: Vec<String> = oneof.fields().map(|field| format!("`{}`", field.json_name())).collect();
            format!("At most one of {} is set.", names.join(", "))
        });
        [Some(comment.to_owned()), others]
            .into_iter()
            .flatten()
            .filter(|text| !text.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The form of a field's values, with the rules of the protos that JSON Schema can state.
    pub(crate) fn field(&mut self, field: &FieldDescriptor) -> Value {
        let rules = rules::of_field(field).unwrap_or_default();
        if field.is_map()
            && let Kind::Message(entry) = field.kind()
        {
            let mut values = self.kind(&entry.map_entry_value_field().kind());
            limit(&mut values, &rules.value);
            let mut map = json!({ "type": "object", "additionalProperties": values });
            let mut keys = json!({});
            limit(&mut keys, &rules.key);
            if let Some(most) = rules.max_items {
                map["maxProperties"] = json!(most);
            }
            if keys != json!({}) {
                map["propertyNames"] = keys;
            }
            return map;
        }
        let mut one = self.kind(&field.kind());
        limit(&mut one, &rules.value);
        if field.cardinality() != Cardinality::Repeated {
            if rules.unset_allowed {
                allow_empty(&mut one);
            }
            if rules.required && field.kind() == Kind::String {
                one["minLength"] = json!(1);
            }
            return one;
        }
        let mut list = json!({ "type": "array", "items": one });
        if rules.required {
            list["minItems"] = json!(1);
        }
        if let Some(most) = rules.max_items {
            list["maxItems"] = json!(most);
        }
        list
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Double => json!({ "type": "number", "format": "double" }),
            Kind::Float => json!({ "type": "number", "format": "float" }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({ "type": "integer", "format": "int32" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0 }),
            // As text, because many readers of JSON round numbers of this size.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "string", "format": "int64" }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "string", "format": "uint64" }),
            Kind::Enum(values) => self.choice(values),
            Kind::Message(inner) => self.message(inner),
        }
    }

    fn choice(&mut self, values: &EnumDescriptor) -> Value {
        let name = values.full_name();
        if name == "google.protobuf.NullValue" {
            return json!({ "type": "null" });
        }
        if !self.made.contains_key(name) {
            let mut lines = vec![self.comments.above(values).to_owned()];
            for value in values.values() {
                lines.push(format!("* `{}`: {}", value.name(), self.comments.above(&value)));
            }
            let names: Vec<Value> = values.values().map(|value| json!(value.name())).collect();
            let text = lines.join("\n").trim().to_owned();
            let schema = json!({ "type": "string", "description": text, "enum": names });
            self.made.insert(name.to_owned(), schema);
        }
        reference(name)
    }
}

/// Adds the rules of a value to its schema. 64-bit numbers and durations are texts in JSON, whose range no schema can
/// state.
fn limit(schema: &mut Value, rules: &ValueRules) {
    let is_integer = schema["type"] == "integer";
    // There are at most as many characters as bytes.
    let longest = rules.max_len.into_iter().chain(rules.max_bytes).min();
    let stated = [
        ("minLength", rules.min_len.map(Value::from)),
        ("maxLength", longest.map(Value::from)),
        ("pattern", rules.pattern.map(|pattern| Value::from(pattern.portable()))),
        ("minimum", rules.min.filter(|_| is_integer).map(Value::from)),
        ("maximum", rules.max.filter(|_| is_integer).map(Value::from)),
    ];
    for (keyword, value) in stated.into_iter().filter_map(|(keyword, value)| Some((keyword, value?))) {
        schema[keyword] = value;
    }
}

/// Lets a text be empty, which is as good as not set.
fn allow_empty(schema: &mut Value) {
    if let Some(pattern) = schema["pattern"].as_str() {
        schema["pattern"] = json!(format!("^$|{pattern}"));
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The messages that JSON writes in a form of their own.
fn well_known(name: &str) -> Option<Value> {
    let any = "A message of any type, whose name stands in `@type`.";
    Some(match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!({ "type": "string", "format": "date-time" }),
        "Duration" => json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$" }),
        "FieldMask" => json!({ "type": "string" }),
        "Struct" => json!({ "type": "object", "additionalProperties": true }),
        "ListValue" => json!({ "type": "array", "items": {} }),
        "Value" => json!({}),
        "Empty" => json!({ "type": "object" }),
        "Any" => json!({
            "type": "object",
            "description": any,
            "properties": { "@type": { "type": "string" } },
            "additionalProperties": true,
        }),
        "BoolValue" => json!({ "type": "boolean" }),
        "StringValue" => json!({ "type": "string" }),
        "BytesValue" => json!({ "type": "string", "contentEncoding": "base64" }),
        "Int32Value" | "UInt32Value" => json!({ "type": "integer" }),
        "Int64Value" | "UInt64Value" => json!({ "type": "string" }),
        "FloatValue" | "DoubleValue" => json!({ "type": "number" }),
        _ => return None,
    })
}

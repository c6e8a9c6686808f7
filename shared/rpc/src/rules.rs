//! The rules of `buf.validate` in the protos, as far as the platform uses them. The walker ([`crate::validate`]), the
//! OpenAPI document and the reference of the API read them here; [`unknown`] names every other rule, so that none is
//! written that nobody enforces.

use pavior_core::Fault;
use pavior_proto::buf::validate::{
    DurationRules, FieldRules, Ignore, Int32Rules, Int64Rules, OneofRules, StringRules, duration_rules,
    field_rules, int32_rules, int64_rules,
};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, OneofDescriptor, ReflectMessage as _, Value};

mod pattern;

use self::pattern::COMPILED;
pub use self::pattern::Pattern;

/// The rules that are enforced.
const KNOWN: &[&str] = &[
    "required",
    "ignore",
    "string.min_len",
    "string.max_len",
    "string.max_bytes",
    "string.pattern",
    "int32.gte",
    "int32.lte",
    "int64.gte",
    "int64.lte",
    "duration.gte",
    "duration.lte",
    // Holds for every enum, annotated or not.
    "enum.defined_only",
    "repeated.max_items",
    "repeated.items.string.min_len",
    "repeated.items.string.max_len",
    "repeated.items.string.max_bytes",
    "repeated.items.string.pattern",
    "map.max_pairs",
    "map.keys.string.min_len",
    "map.keys.string.max_len",
    "map.keys.string.max_bytes",
    "map.keys.string.pattern",
    "map.values.string.min_len",
    "map.values.string.max_len",
    "map.values.string.max_bytes",
    "map.values.string.pattern",
];

/// What one value may be.
#[derive(Debug, Default, Clone)]
pub struct ValueRules {
    /// The fewest characters of a text.
    pub min_len: Option<u64>,
    /// The most characters of a text.
    pub max_len: Option<u64>,
    /// The most bytes of a text.
    pub max_bytes: Option<u64>,
    /// What a text matches.
    pub pattern: Option<&'static Pattern>,
    /// The smallest whole number.
    pub min: Option<i64>,
    /// The largest whole number.
    pub max: Option<i64>,
    /// The shortest duration.
    pub shortest: Option<prost_types::Duration>,
    /// The longest duration.
    pub longest: Option<prost_types::Duration>,
}

/// What a field may hold.
#[derive(Debug, Default, Clone)]
pub struct Rules {
    /// It must be set.
    pub required: bool,
    /// The other rules hold only for what is not at its default value.
    pub unset_allowed: bool,
    /// The most elements of a list, or entries of a map.
    pub max_items: Option<u32>,
    /// The value; each element of a list and each value of a map.
    pub value: ValueRules,
    /// Each key of a map.
    pub key: ValueRules,
}

/// The rules of a field.
pub fn of_field(field: &FieldDescriptor) -> Option<Rules> {
    let rules = field_rules_of(field)?.transcode_to::<FieldRules>().ok()?;
    let mut read = Rules {
        required: rules.required(),
        unset_allowed: rules.ignore() == Ignore::IfZeroValue,
        ..Rules::default()
    };
    let count = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok());
    match rules.r#type {
        Some(field_rules::Type::Repeated(list)) => {
            read.max_items = count(list.max_items);
            read.value = ValueRules::nested(list.items.as_deref());
        }
        Some(field_rules::Type::Map(map)) => {
            read.max_items = count(map.max_pairs);
            read.key = ValueRules::nested(map.keys.as_deref());
            read.value = ValueRules::nested(map.values.as_deref());
        }
        other => read.value = ValueRules::of(other.as_ref()),
    }
    Some(read)
}

/// Whether one field of a oneof must be set.
pub fn is_required(oneof: &OneofDescriptor) -> bool {
    let rules = extension(&oneof.options(), "buf.validate.oneof");
    rules.and_then(|rules| rules.transcode_to::<OneofRules>().ok()).is_some_and(|rules| rules.required())
}

/// The rules of a field that are not enforced, as paths within `buf.validate.FieldRules`.
pub fn unknown(field: &FieldDescriptor) -> Vec<String> {
    let Some(rules) = field_rules_of(field) else { return Vec::new() };
    let mut stated = Vec::new();
    leaves(&rules, "", &mut stated);
    let is_known = |(path, value): &(String, Value)| {
        let compiled = |text: &str| COMPILED.iter().any(|pattern| pattern.text == text);
        KNOWN.contains(&path.as_str())
            && (!path.ends_with(".pattern") || value.as_str().is_some_and(compiled))
            && (path != "ignore" || value.as_enum_number() == Some(Ignore::IfZeroValue.into()))
    };
    stated
        .into_iter()
        .filter(|rule| !is_known(rule))
        .map(|(path, value)| format!("{path} = {value}"))
        .collect()
}

impl Rules {
    /// What the rules demand of a field, a sentence each, without the full stop.
    pub fn sentences(&self, field: &FieldDescriptor) -> Vec<String> {
        let mut said: Vec<String> = self.max_items.iter().map(|most| too_many(*most)).collect();
        let subject = match () {
            () if field.is_map() => "each value ",
            () if field.is_list() => "each entry ",
            () if self.unset_allowed => "if set, it ",
            () => "",
        };
        said.extend(self.key.sentences().into_iter().map(|sentence| format!("each key {sentence}")));
        said.extend(self.value.sentences().into_iter().map(|sentence| format!("{subject}{sentence}")));
        said
    }
}

impl ValueRules {
    fn nested(rules: Option<&FieldRules>) -> Self {
        rules.map(|rules| Self::of(rules.r#type.as_ref())).unwrap_or_default()
    }

    fn of(rules: Option<&field_rules::Type>) -> Self {
        match rules {
            Some(field_rules::Type::String(StringRules { min_len, max_len, max_bytes, pattern, .. })) => {
                let text = pattern.as_deref();
                let pattern = text.and_then(|text| COMPILED.iter().find(|pattern| pattern.text == text));
                Self {
                    min_len: *min_len,
                    max_len: *max_len,
                    max_bytes: *max_bytes,
                    pattern,
                    ..Self::default()
                }
            }
            Some(field_rules::Type::Int32(Int32Rules { greater_than, less_than, .. })) => Self {
                min: match greater_than {
                    Some(int32_rules::GreaterThan::Gte(min)) => Some(i64::from(*min)),
                    _ => None,
                },
                max: match less_than {
                    Some(int32_rules::LessThan::Lte(max)) => Some(i64::from(*max)),
                    _ => None,
                },
                ..Self::default()
            },
            Some(field_rules::Type::Int64(Int64Rules { greater_than, less_than, .. })) => Self {
                min: match greater_than {
                    Some(int64_rules::GreaterThan::Gte(min)) => Some(*min),
                    _ => None,
                },
                max: match less_than {
                    Some(int64_rules::LessThan::Lte(max)) => Some(*max),
                    _ => None,
                },
                ..Self::default()
            },
            Some(field_rules::Type::Duration(DurationRules { greater_than, less_than, .. })) => Self {
                shortest: match greater_than {
                    Some(duration_rules::GreaterThan::Gte(shortest)) => Some(*shortest),
                    _ => None,
                },
                longest: match less_than {
                    Some(duration_rules::LessThan::Lte(longest)) => Some(*longest),
                    _ => None,
                },
                ..Self::default()
            },
            _ => Self::default(),
        }
    }

    /// What is wrong with a text.
    pub(crate) fn text_faults(&self, text: &str) -> Vec<(Fault, String)> {
        let mut faults = Vec::new();
        // A text has at most as many characters as bytes, so most need not be counted.
        let count = || text.chars().count() as u64;
        if let Some(least) = self.min_len.filter(|least| count() < *least) {
            let fault = if text.is_empty() { Fault::Required } else { Fault::Pattern };
            faults.push((fault, too_short(least)));
        }
        if let Some(most) = self.max_len.filter(|most| text.len() as u64 > *most && count() > *most) {
            faults.push((Fault::TooLong, too_long(most, "characters")));
        }
        if let Some(most) = self.max_bytes.filter(|most| text.len() as u64 > *most) {
            faults.push((Fault::TooLong, too_long(most, "bytes")));
        }
        if let Some(pattern) = self.pattern.filter(|pattern| !pattern.regex.is_match(text)) {
            faults.push((Fault::Pattern, pattern.words.to_owned()));
        }
        faults
    }

    /// What is wrong with a whole number.
    pub(crate) fn integer_fault(&self, number: i64) -> Option<(Fault, String)> {
        let fits = self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max);
        (!fits).then(|| (Fault::OutOfRange, self.range()))
    }

    /// What is wrong with a duration, as it is encoded; `None` too for what is none.
    pub(crate) fn duration_fault(&self, data: &[u8]) -> Option<(Fault, String)> {
        if self.shortest.is_none() && self.longest.is_none() {
            return None;
        }
        let nanos = |duration: prost_types::Duration| {
            i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
        };
        let given = prost_types::Duration::decode(data).ok()?;
        let one_sign = given.seconds.signum() * i64::from(given.nanos.signum()) >= 0;
        let is_duration = one_sign && (-999_999_999..=999_999_999).contains(&given.nanos);
        let given = nanos(given);
        let fits = is_duration
            && self.shortest.is_none_or(|least| given >= nanos(least))
            && self.longest.is_none_or(|most| given <= nanos(most));
        (!fits).then(|| (Fault::OutOfRange, self.span()))
    }

    fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        said.extend(self.min_len.map(too_short));
        said.extend(self.max_len.map(|most| too_long(most, "characters")));
        said.extend(self.max_bytes.map(|most| too_long(most, "bytes")));
        said.extend(self.pattern.map(|pattern| pattern.words.to_owned()));
        if self.min.is_some() || self.max.is_some() {
            said.push(self.range());
        }
        if self.shortest.is_some() || self.longest.is_some() {
            said.push(self.span());
        }
        said
    }

    fn range(&self) -> String {
        match (self.min, self.max) {
            (Some(0), None) => "must not be negative".to_owned(),
            (min, max) => between(min.map(|min| min.to_string()), max.map(|max| max.to_string())),
        }
    }

    fn span(&self) -> String {
        let text = |duration: prost_types::Duration| duration.to_string();
        between(self.shortest.map(text), self.longest.map(text))
    }
}

/// Told about a list or map with more elements than it may have.
pub(crate) fn too_many(most: u32) -> String {
    format!("must have at most {most} entries")
}

fn too_short(least: u64) -> String {
    if least == 1 { "must not be empty".to_owned() } else { format!("must have at least {least} characters") }
}

pub(crate) fn too_long(most: u64, of: &str) -> String {
    format!("must have at most {most} {of}")
}

fn between(least: Option<String>, most: Option<String>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("must be between {least} and {most}"),
        (Some(least), None) => format!("must be at least {least}"),
        (None, most) => format!("must be at most {}", most.unwrap_or_default()),
    }
}

fn field_rules_of(field: &FieldDescriptor) -> Option<DynamicMessage> {
    extension(&field.options(), "buf.validate.field")
}

fn extension(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let extension = options.descriptor().parent_pool().get_extension_by_name(name)?;
    match options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())? {
        Value::Message(found) => Some(found),
        _ => None,
    }
}

/// Every rule that is stated, with its path. Durations count as one.
fn leaves(message: &DynamicMessage, prefix: &str, found: &mut Vec<(String, Value)>) {
    for (field, value) in message.fields() {
        let path =
            if prefix.is_empty() { field.name().to_owned() } else { format!("{prefix}.{}", field.name()) };
        match value {
            Value::Message(inner) if inner.descriptor().full_name().starts_with("buf.") => {
                leaves(inner, &path, found);
            }
            value => found.push((path, value.clone())),
        }
    }
    for (extension, value) in message.extensions() {
        found.push((extension.full_name().to_owned(), value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use pavior_core::text::is_hidden;

    use super::*;

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(COMPILED.len(), pattern::PATTERNS.len());
    }

    #[test]
    fn texts_are_told_all_that_is_wrong() {
        let line = ValueRules { max_len: Some(3), pattern: COMPILED.first(), ..ValueRules::default() };
        let faults =
            |text: &str| line.text_faults(text).into_iter().map(|(fault, _)| fault).collect::<Vec<_>>();
        assert_eq!(faults("äöü"), []);
        assert_eq!(faults("äöüß"), [Fault::TooLong]);
        assert_eq!(faults("a\u{85}b\n"), [Fault::TooLong, Fault::Pattern]);
        assert_eq!(faults("a\u{202e}b"), [Fault::Pattern], "what follows would be shown in another order");
        let key = ValueRules { min_len: Some(1), max_bytes: Some(2), ..ValueRules::default() };
        assert_eq!(key.text_faults(""), [(Fault::Required, "must not be empty".to_owned())]);
        assert_eq!(key.text_faults("aä"), [(Fault::TooLong, "must have at most 2 bytes".to_owned())]);
    }

    #[test]
    fn a_line_is_the_same_to_the_protos_and_to_documents() {
        let line = &COMPILED[0];
        let other = |c: &char| line.regex.is_match(c.encode_utf8(&mut [0; 4])) == is_hidden(*c);
        let others: Vec<char> = ('\0'..=char::MAX).filter(other).collect();
        assert_eq!(others, Vec::<char>::new());
        // The same in the first plane.
        let portable = line.portable();
        assert!(!portable.contains(r"\p") && portable.ends_with(r"|[\u200C\u200D])*$"), "{portable}");
        let portable = regex::Regex::new(&portable).unwrap();
        let other = |c: &char| portable.is_match(c.encode_utf8(&mut [0; 4])) == is_hidden(*c);
        assert_eq!(('\0'..='\u{ffff}').filter(other).collect::<String>(), "");
    }

    #[test]
    fn numbers_and_durations_are_told_their_range() {
        let told = |min, max, number| {
            ValueRules { min, max, ..ValueRules::default() }.integer_fault(number).map(|(_, text)| text)
        };
        assert_eq!(told(Some(0), None, -1).as_deref(), Some("must not be negative"));
        assert_eq!(told(Some(1), Some(9), 0).as_deref(), Some("must be between 1 and 9"));
        assert_eq!(told(None, Some(9), 10).as_deref(), Some("must be at most 9"));
        assert_eq!(told(Some(1), Some(9), 9), None);
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        let minute = ValueRules { shortest: Some(seconds(60)), ..ValueRules::default() };
        assert_eq!(minute.duration_fault(&seconds(60).encode_to_vec()), None);
        let (fault, text) =
            minute.duration_fault(&seconds(59).encode_to_vec()).unwrap_or((Fault::Type, String::new()));
        assert_eq!((fault, text.as_str()), (Fault::OutOfRange, "must be at least 60s"));
        // One of two signs is no duration, whatever it comes to.
        let mixed = prost_types::Duration { seconds: 100, nanos: -1 };
        assert_eq!(
            minute.duration_fault(&mixed.encode_to_vec()).map(|(fault, _)| fault),
            Some(Fault::OutOfRange)
        );
    }

    #[test]
    fn every_rule_of_the_protos_is_enforced() {
        let mut offences = Vec::new();
        for message in crate::convert::pool().all_messages() {
            for field in message.fields() {
                offences
                    .extend(unknown(&field).into_iter().map(|rule| format!("{}: {rule}", field.full_name())));
                // The walker sees only what is set. What other libraries would say about an unset field is the same
                // when the field is required, or when its rules hold only once it is set.
                if let Some(rules) = of_field(&field)
                    && !field.is_list()
                    && !field.is_map()
                    && !rules.required
                    && !rules.unset_allowed
                    && (!rules.value.text_faults("").is_empty() || rules.value.integer_fault(0).is_some())
                    && field.kind().as_message().is_none()
                    && field.containing_oneof().is_none()
                {
                    offences
                        .push(format!("{}: refuses what is not set, and is not required", field.full_name()));
                }
            }
        }
        assert_eq!(offences, Vec::<String>::new());
    }

    #[test]
    fn what_is_required_of_requests_is_told_to_both_kinds_of_readers() {
        let pool = crate::convert::pool();
        let resource = pool.get_extension_by_name("google.api.resource");
        let mut offences = Vec::new();
        for message in pool.all_messages() {
            let package = message.package_name();
            // A resource is also part of updates, where only what the mask names is required.
            let is_resource =
                resource.as_ref().is_some_and(|resource| message.options().has_extension(resource));
            if !package.starts_with("pavior.")
                || package.contains("internal")
                || package == "pavior.driver.v1"
                || is_resource
            {
                continue;
            }
            for field in message.fields() {
                let behaves =
                    crate::annotations::behaves(&field, pavior_proto::google::api::FieldBehavior::Required);
                if behaves != of_field(&field).is_some_and(|rules| rules.required) {
                    offences.push(field.full_name().to_owned());
                }
            }
        }
        let wanted = "(google.api.field_behavior) = REQUIRED and (buf.validate.field).required go together";
        assert_eq!(offences, Vec::<String>::new(), "{wanted}");
    }
}

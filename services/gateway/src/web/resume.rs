//! Where a stream that broke off goes on.

use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};

/// The field of an answer that says where to go on, and that of the request which takes it.
const PAIRS: [(&str, &str); 2] = [("resume_token", "resume_token"), ("resume_index", "from_index")];

/// The fields of a stream that can be resumed.
#[derive(Debug, Clone)]
pub(crate) struct Resume {
    told: FieldDescriptor,
    /// The field of the request.
    pub(crate) from: FieldDescriptor,
}

impl Resume {
    /// The fields of a method, if it has them.
    pub(crate) fn of(input: &MessageDescriptor, output: &MessageDescriptor) -> Option<Self> {
        PAIRS.iter().find_map(|(told, from)| {
            Some(Self { told: output.get_field_by_name(told)?, from: input.get_field_by_name(from)? })
        })
    }

    /// Where to go on behind this answer; `None` when it does not say, or in a form that has no place in a line.
    pub(crate) fn token(&self, answer: &DynamicMessage) -> Option<String> {
        let token = match answer.get_field(&self.told).as_ref() {
            Value::String(text) => text.clone(),
            Value::I64(number) => number.to_string(),
            _ => return None,
        };
        (!token.is_empty() && !token.contains(char::is_control)).then_some(token)
    }
}

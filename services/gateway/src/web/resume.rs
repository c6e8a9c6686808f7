//! Where a stream that broke off goes on.

use prost::Name as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};

use pavior_proto::pavior::r#type::v1::StreamStart;

/// The field of an answer that says where to go on, and that of a start which takes it.
const TOKEN: &str = "resume_token";

/// The fields of a stream that can be resumed.
#[derive(Debug, Clone)]
pub(crate) struct Resume {
    told: FieldDescriptor,
    /// The field of the request that says where the stream begins.
    start: FieldDescriptor,
}

impl Resume {
    /// The fields of a method, if it has them.
    pub(crate) fn of(input: &MessageDescriptor, output: &MessageDescriptor) -> Option<Self> {
        let is_start = |field: &FieldDescriptor| {
            field.kind().as_message().is_some_and(|kind| kind.full_name() == StreamStart::full_name())
        };
        Some(Self { told: output.get_field_by_name(TOKEN)?, start: input.fields().find(is_start)? })
    }

    /// Where to go on behind this answer; `None` when it does not say, or in a form that has no place in a line.
    pub(crate) fn token(&self, answer: &DynamicMessage) -> Option<String> {
        let token = answer.get_field(&self.told).as_str()?.to_owned();
        (!token.is_empty() && !token.contains(char::is_control)).then_some(token)
    }

    /// The parameter that goes on behind a token.
    pub(crate) fn parameter(&self) -> String {
        format!("{}.{TOKEN}", self.start.name())
    }

    /// Whether a parameter says where to begin.
    pub(crate) fn is_start(&self, parameter: &str) -> bool {
        let first = parameter.split('.').next().unwrap_or_default();
        first == self.start.name() || first == self.start.json_name()
    }
}

//! What `google.api` says of fields.

use pavior_proto::google::api::FieldBehavior;
use prost_reflect::FieldDescriptor;

/// How a field behaves, as it is annotated (AIP-203).
pub fn behaviors(field: &FieldDescriptor) -> Vec<FieldBehavior> {
    let Some(extension) = field.parent_pool().get_extension_by_name("google.api.field_behavior") else {
        return Vec::new();
    };
    let options = field.options();
    let said = options.get_extension(&extension);
    let numbers = said.as_list().unwrap_or_default().iter().filter_map(|value| value.as_enum_number());
    numbers.filter_map(|number| FieldBehavior::try_from(number).ok()).collect()
}

/// Whether a field is annotated so.
pub fn behaves(field: &FieldDescriptor, wanted: FieldBehavior) -> bool {
    behaviors(field).contains(&wanted)
}

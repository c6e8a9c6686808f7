//! A field that holds a resource name says of which type, so that every client can follow it.

use anyhow::{Context as _, Result, ensure};
use pavior_rpc::comments::Comments;
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};

/// Who reads a comment that says so reads a name.
const SAYS: [&str; 2] = ["by resource name", "resource names"];
/// What is said in other words than a type.
const OTHERWISE: [&str; 2] = [
    // References in the form of other catalogs as well.
    "pavior.catalog.v1.Kind.RelationRule.field",
    // A name, or two.
    "pavior.governance.internal.v1.GetResourceFactsRequest.principal",
];

#[test]
fn every_field_that_holds_a_name_says_of_which_type() -> Result<()> {
    let pool = DescriptorPool::decode(pavior_proto::DESCRIPTORS)?;
    let comments = Comments::of(&pool);
    let option = pool.get_extension_by_name("google.api.resource_reference").context("the option")?;
    let own = pool.all_messages().filter(|message| message.package_name().starts_with("pavior."));
    let fields: Vec<FieldDescriptor> = own.flat_map(|message| message.fields().collect::<Vec<_>>()).collect();
    let says = |field: &FieldDescriptor| SAYS.iter().any(|words| comments.above(field).contains(words));
    let silent: Vec<String> = fields
        .iter()
        .filter(|field| field.kind() == Kind::String || field.is_map())
        .filter(|field| says(field) && !field.options().has_extension(&option))
        .map(|field| field.full_name().to_owned())
        .filter(|field| !OTHERWISE.contains(&field.as_str()))
        .collect();
    ensure!(silent.is_empty(), "fields that hold names without saying of which type: {silent:#?}");
    ensure!(fields.iter().filter(|field| says(field)).count() > 50, "the comments are not there");
    Ok(())
}

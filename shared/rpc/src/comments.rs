//! The comments of the protos, which the descriptors keep.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor};
use prost_reflect::{EnumValueDescriptor, FileDescriptor, ServiceDescriptor};

/// The comments of a pool, by file and place in it.
#[derive(Debug)]
pub struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    /// All of them, without the marks of comments and without spaces around lines.
    pub fn of(pool: &DescriptorPool) -> Self {
        let mut found = HashMap::new();
        for file in pool.files() {
            let Some(info) = &file.file_descriptor_proto().source_code_info else { continue };
            for location in &info.location {
                let Some(comment) = &location.leading_comments else { continue };
                let text: Vec<&str> = comment.lines().map(str::trim).collect();
                found.insert(
                    (file.name().to_owned(), location.path.clone()),
                    text.join("\n").trim().to_owned(),
                );
            }
        }
        Self(found)
    }

    /// What stands above something; empty when nothing does.
    pub fn above(&self, thing: &impl Commented) -> &str {
        let (file, path) = thing.place();
        self.0.get(&(file.name().to_owned(), path)).map_or("", String::as_str)
    }
}

/// What can have a comment.
pub trait Commented {
    /// Its file, and its place in it as `google.protobuf.SourceCodeInfo.Location.path` has it.
    fn place(&self) -> (FileDescriptor, Vec<i32>);
}

macro_rules! commented {
    ($($kind:ty),*) => {$(
        impl Commented for $kind {
            fn place(&self) -> (FileDescriptor, Vec<i32>) {
                (self.parent_file().clone(), self.path().to_vec())
            }
        }
    )*};
}

commented!(ServiceDescriptor, MethodDescriptor, MessageDescriptor, FieldDescriptor, EnumDescriptor);

impl Commented for EnumValueDescriptor {
    fn place(&self) -> (FileDescriptor, Vec<i32>) {
        (self.parent_enum().parent_file().clone(), self.path().to_vec())
    }
}

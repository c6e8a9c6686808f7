//! Partial answers (AIP-157): which fields of a resource a caller wants.

use std::collections::BTreeSet;

use pavior_core::Fault;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use prost_types::FieldMask;

use super::path::{Admits, apply_key, is_struct, locate, near, split};
use crate::convert;
use crate::problem::{Problem, Violations};

/// The path by which errors name the mask.
const FIELD: &str = "read_mask";

/// Most paths of a mask: each of them costs a copy of what it names.
const MAX_PATHS: usize = 100;

/// Every field can be read.
const ANY: Admits = |_, _| true;

/// The fields of a resource that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadMask {
    /// `None` for all of them.
    paths: Option<Vec<Vec<String>>>,
}

impl ReadMask {
    /// Reads a mask for answers of `M`. None, an empty one, and `*` are for all fields.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with every path that names no field, and what it may have meant.
    pub fn of<M: Name>(mask: Option<&FieldMask>) -> Result<Self, Problem> {
        let named = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
        match named {
            [] => return Ok(Self::default()),
            [all] if all == "*" => return Ok(Self::default()),
            _ => {}
        }
        if named.len() > MAX_PATHS {
            let what = format!("must have at most {MAX_PATHS} paths");
            return Err(Problem::invalid_field(FIELD, Fault::TooMany, what));
        }
        let descriptor = convert::descriptor::<M>().map_err(Problem::internal)?;
        let mut violations = Violations::new();
        let mut paths = BTreeSet::new();
        for text in named {
            if text == "*" {
                violations.add(FIELD, Fault::Conflict, "path `*` must stand alone");
                continue;
            }
            match split(text).filter(|path| locate(&descriptor, path, ANY).is_some()) {
                Some(path) => drop(paths.insert(path)),
                None => {
                    let near = near(&descriptor, text, ANY);
                    let what =
                        format!("path `{text}` does not name a field that can be read; what can is {near}");
                    violations.add(FIELD, Fault::Unknown, what);
                }
            }
        }
        violations.into_result()?;
        // In order, a path comes right behind those that it is a part of.
        let mut apart: Vec<Vec<String>> = Vec::new();
        for path in paths {
            if !apart.last().is_some_and(|above| path.starts_with(above)) {
                apart.push(path);
            }
        }
        Ok(Self { paths: Some(apart) })
    }

    /// The message with no other fields than those that are wanted.
    ///
    /// # Errors
    /// INTERNAL for a message without a descriptor.
    pub fn select<M: Message + Name + Default>(&self, message: M) -> Result<M, Problem> {
        let Some(paths) = &self.paths else { return Ok(message) };
        let whole = convert::to_dynamic(&message).map_err(Problem::internal)?;
        let mut wanted = DynamicMessage::new(whole.descriptor());
        for path in paths {
            take(&mut wanted, &whole, path);
        }
        wanted.transcode_to().map_err(Problem::internal)
    }
}

/// Takes what stands at a path, if anything does.
fn take(wanted: &mut DynamicMessage, whole: &DynamicMessage, path: &[String]) {
    let [first, rest @ ..] = path else { return };
    let descriptor = whole.descriptor();
    if is_struct(&descriptor) {
        if let Some(fields) = descriptor.get_field_by_name("fields") {
            apply_key(wanted, whole, &fields, first);
        }
        return;
    }
    let Some(field) = descriptor.get_field_by_name(first).filter(|field| whole.has_field(field)) else {
        return;
    };
    match rest {
        [] => wanted.set_field(&field, whole.get_field(&field).into_owned()),
        [key, ..] if field.is_map() => apply_key(wanted, whole, &field, key),
        _ => {
            if let (Value::Message(to), Value::Message(from)) =
                (wanted.get_field_mut(&field), whole.get_field(&field).as_ref())
            {
                take(to, from, rest);
            }
        }
    }
}

//! Partial updates (AIP-134, AIP-161): which fields of a resource a request changes, and the result. Partial answers
//! (AIP-157) are [`ReadMask`]'s.
//!
//! Without a mask, all populated fields; `*` replaces everything. Paths are in snake_case, keys of maps may stand in
//! backticks. Paths of OUTPUT_ONLY fields are ignored, unknown ones are an error, and so is a changed IMMUTABLE field.

mod path;
mod read;

use std::collections::HashMap;

use pavior_core::Fault;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, ReflectMessage, Value};
use prost_types::FieldMask;

use self::path::{apply_key, is_struct, locate, near, split};
pub use self::read::ReadMask;
use crate::convert;
use crate::problem::{Problem, Violations};
use crate::schema::{FieldPlan, schema};

/// Most paths of the mask of an update: labels and annotations are named one by one.
const MAX_PATHS: usize = 1000;
/// The path by which errors name the mask.
const FIELD: &str = "update_mask";

/// The fields that an update touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    paths: Vec<Vec<String>>,
}

impl Mask {
    /// Reads the mask of an update of `M`; without one, the populated fields of `patch`.
    pub fn resolve<M: Message + Name>(mask: Option<&FieldMask>, patch: &M) -> Result<Self, Problem> {
        let patch = convert::to_dynamic(patch).map_err(Problem::internal)?;
        resolve(mask, &patch)
    }

    /// True when the update touches the field, a part of it, or something that holds it.
    pub fn covers(&self, path: &str) -> bool {
        let Some(path) = split(path) else { return false };
        self.paths.iter().any(|own| own.iter().zip(&path).all(|(a, b)| a == b))
    }

    /// The paths, sorted, in their textual form.
    pub fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.paths.iter().map(|path| path.join(".")).collect();
        paths.sort();
        paths
    }
}

/// Refuses a mask of too many paths, or that names everything and something beside it: which of them counts, nobody can
/// say.
pub fn unambiguous<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<(), Problem> {
    let (all, others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| *path == "*");
    if all.len() + others.len() > MAX_PATHS {
        let what = format!("must have at most {MAX_PATHS} paths");
        return Err(Problem::invalid_field(FIELD, Fault::TooMany, what));
    }
    match all.len() {
        0 => Ok(()),
        1 if others.is_empty() => Ok(()),
        _ => Err(Problem::invalid_field(FIELD, Fault::Conflict, "path `*` must stand alone")),
    }
}

/// True when a mask of these paths touches the field, a part of it, or something that holds it. Without any path it is
/// up to what the patch populates.
pub fn touches<'a>(paths: impl IntoIterator<Item = &'a str>, field: &str) -> bool {
    let Some(field) = split(field) else { return false };
    let within = |path: &[String]| path.iter().zip(&field).all(|(a, b)| a == b);
    paths.into_iter().any(|path| path == "*" || split(path).is_some_and(|path| within(&path)))
}

/// A map of texts after an update with a mask of these paths. The map is the field `field` of the resource.
pub fn map_after(
    before: &HashMap<String, String>,
    patch: HashMap<String, String>,
    paths: &[&str],
    field: &str,
) -> HashMap<String, String> {
    if paths.is_empty() {
        return if patch.is_empty() { before.clone() } else { patch };
    }
    let mut after = before.clone();
    for path in paths {
        match split(path).as_deref() {
            Some([all]) if all == "*" || all == field => after.clone_from(&patch),
            Some([map, key]) if map == field => match patch.get(key) {
                Some(value) => drop(after.insert(key.clone(), value.clone())),
                None => drop(after.remove(key)),
            },
            // Of another field, or of none: then the service refuses the update.
            _ => {}
        }
    }
    after
}

/// The resource after the update: `current` with the fields that the mask names taken from `patch`. Names every
/// unknown path and every changed immutable field.
pub fn merge<M: Message + Name + Default>(
    current: &M,
    patch: &M,
    mask: Option<&FieldMask>,
) -> Result<M, Problem> {
    let mut result = convert::to_dynamic(current).map_err(Problem::internal)?;
    let patch = convert::to_dynamic(patch).map_err(Problem::internal)?;
    let mask = resolve(mask, &patch)?;
    let before = result.clone();
    let mut violations = Violations::new();
    for path in &mask.paths {
        apply(&mut result, &patch, path);
    }
    keep_fixed(&mut result, &before, "", &mut violations);
    violations.into_result()?;
    result.transcode_to().map_err(Problem::internal)
}

fn resolve(mask: Option<&FieldMask>, patch: &DynamicMessage) -> Result<Mask, Problem> {
    let descriptor = patch.descriptor();
    let named = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    let writable = |field: &FieldDescriptor| is_writable(&descriptor, field);
    let single = |field: FieldDescriptor| vec![field.name().to_owned()];
    if named.is_empty() {
        let populated = descriptor.fields().filter(|field| patch.has_field(field));
        return Ok(Mask { paths: populated.filter(writable).map(single).collect() });
    }
    unambiguous(named.iter().map(String::as_str))?;
    if named.iter().any(|path| path == "*") {
        return Ok(Mask { paths: descriptor.fields().filter(writable).map(single).collect() });
    }
    let mut violations = Violations::new();
    let mut paths = Vec::new();
    for text in named {
        match split(text)
            .and_then(|path| locate(&descriptor, &path, is_writable).map(|writable| (path, writable)))
        {
            Some((path, true)) => paths.push(path),
            Some((_, false)) => {}
            None => violations.add(
                FIELD,
                Fault::Unknown,
                format!(
                    "path `{text}` does not name a field that can be updated; what can is {}",
                    near(&descriptor, text, is_writable)
                ),
            ),
        }
    }
    violations.into_result()?;
    Ok(Mask { paths })
}

fn plan(descriptor: &MessageDescriptor, field: &FieldDescriptor) -> Option<&'static FieldPlan> {
    schema().plan_of(descriptor.full_name())?.field(field.number()).map(|(_, plan)| plan)
}

/// The name and the etag say what is updated and do not change themselves.
fn is_writable(descriptor: &MessageDescriptor, field: &FieldDescriptor) -> bool {
    field.name() != "etag"
        && plan(descriptor, field).is_some_and(|plan| !plan.output_only && !plan.identifier)
}

fn apply(target: &mut DynamicMessage, patch: &DynamicMessage, path: &[String]) {
    let [first, rest @ ..] = path else { return };
    let descriptor = target.descriptor();
    if is_struct(&descriptor) {
        if let Some(fields) = descriptor.get_field_by_name("fields") {
            apply_key(target, patch, &fields, first);
        }
        return;
    }
    let Some(field) = descriptor.get_field_by_name(first) else { return };
    match rest {
        [] if patch.has_field(&field) => target.set_field(&field, patch.get_field(&field).into_owned()),
        [] => target.clear_field(&field),
        [key, ..] if field.is_map() => apply_key(target, patch, &field, key),
        _ => {
            let from = patch.get_field(&field).into_owned();
            if let (Value::Message(to), Value::Message(from)) = (target.get_field_mut(&field), from) {
                apply(to, &from, rest);
            }
        }
    }
}

/// Restores what the server alone sets, at every depth, and reports immutable fields that differ.
fn keep_fixed(
    result: &mut DynamicMessage,
    before: &DynamicMessage,
    prefix: &str,
    violations: &mut Violations,
) {
    let descriptor = result.descriptor();
    for field in descriptor.fields() {
        let Some(plan) = plan(&descriptor, &field) else { continue };
        if plan.output_only || (prefix.is_empty() && plan.identifier) {
            match before.has_field(&field) {
                true => result.set_field(&field, before.get_field(&field).into_owned()),
                false => result.clear_field(&field),
            }
        } else if plan.immutable && result.get_field(&field) != before.get_field(&field) {
            let path = format!("{prefix}{}", field.name());
            violations.add(path, Fault::Immutable, "cannot change once it is set");
        } else if field.kind().as_message().is_some() && !field.is_list() && !field.is_map() {
            let old = before.get_field(&field).into_owned();
            if result.has_field(&field)
                && let (Value::Message(new), Value::Message(old)) = (result.get_field_mut(&field), &old)
            {
                keep_fixed(new, old, &format!("{prefix}{}.", field.name()), violations);
            }
        }
    }
}

//! How deep the values in a request may nest: bounded where a request comes in, before anything decodes it, so that
//! what is accepted can be passed on, stored, recorded and read again by everybody.
//!
//! The bytes are walked, because what nests too deep cannot be decoded. Bytes that are no message at all are left to the
//! decoder, which refuses them.

use pavior_core::Fault;
use pavior_core::value::MAX_DEPTH;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::problem::{Problem, Violations};
use crate::schema::{MessagePlan, Schema, schema};

/// More messages in one another than this are refused by the decoder.
const MAX_MESSAGES: u32 = 100;

/// Whether requests of this message may hold values.
pub fn concerns(message: &str) -> bool {
    schema().plan_of(message).is_some_and(|plan| plan.holds_values)
}

/// Refuses bytes of `message` (a full name) in which a value nests deeper than [`MAX_DEPTH`], with the field that
/// holds it.
pub fn check(message: &str, bytes: &[u8]) -> Result<(), Problem> {
    let schema = schema();
    let Some(plan) = schema.plan_of(message).filter(|plan| plan.holds_values) else { return Ok(()) };
    let walk = Walk { schema, path: Vec::new(), levels: 0, messages: 0 };
    match walk.message(plan, bytes) {
        Err(Stop::TooDeep(field)) => {
            let mut violations = Violations::new();
            let description = format!("nests deeper than {MAX_DEPTH} levels");
            violations.add(field, Fault::TooDeep, description);
            Err(Problem::invalid(violations.into_vec()).with("limitLevels", MAX_DEPTH.to_string()))
        }
        Ok(()) | Err(Stop::Malformed) => Ok(()),
    }
}

enum Stop {
    /// The field that holds the value.
    TooDeep(String),
    Malformed,
}

/// Where the walk is. Copied for each message that it goes into.
#[derive(Clone)]
struct Walk<'s> {
    schema: &'s Schema,
    /// The fields down to the outermost value.
    path: Vec<&'s str>,
    /// Lists and objects around.
    levels: u32,
    messages: u32,
}

impl<'s> Walk<'s> {
    fn message(&self, plan: &'s MessagePlan, mut bytes: &[u8]) -> Result<(), Stop> {
        let malformed = |_| Stop::Malformed;
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).map_err(malformed)?;
            let inner = plan.field(number).and_then(|(_, field)| Some((field, self.schema.of(field)?)));
            match inner.filter(|(_, inner)| wire == WireType::LengthDelimited && inner.holds_values) {
                Some((field, inner)) => {
                    let length = decode_varint(&mut bytes).map_err(malformed)?;
                    let length = usize::try_from(length).map_err(|_| Stop::Malformed)?;
                    let (data, rest) = bytes.split_at_checked(length).ok_or(Stop::Malformed)?;
                    bytes = rest;
                    self.enter(&field.name, inner)?.message(inner, data)?;
                }
                None => skip_field(wire, number, &mut bytes, DecodeContext::default()).map_err(malformed)?,
            }
        }
        Ok(())
    }

    fn enter(&self, field: &'s str, plan: &MessagePlan) -> Result<Self, Stop> {
        let mut inner = self.clone();
        // What is inside of the outermost value has names that the caller made up.
        if self.levels == 0 && !plan.map_entry {
            inner.path.push(field);
        }
        inner.levels += u32::from(plan.nests);
        inner.messages += 1;
        if inner.levels > MAX_DEPTH {
            return Err(Stop::TooDeep(inner.path.join(".")));
        }
        if inner.messages > MAX_MESSAGES {
            return Err(Stop::Malformed);
        }
        Ok(inner)
    }
}

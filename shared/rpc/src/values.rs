//! What values in a request (`google.protobuf.Struct`, `Value`, `ListValue`) may hold: checked where a request comes in,
//! before anything decodes it, so that what is accepted can be passed on, stored, recorded and read again by everybody,
//! and is still what was sent.
//!
//! They nest no deeper than decoders can read, and hold no whole number that a double cannot tell from its neighbours.
//!
//! The bytes are walked, because what nests too deep cannot be decoded. Bytes that are no message at all are left to the
//! decoder, which refuses them.

use pavior_core::Fault;
use pavior_core::value::{INEXACT, MAX_DEPTH, MAX_EXACT, inexact_paths, is_exact_double};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{ListValue, Struct, Value};

use crate::convert::{from_list, from_struct, from_value};
use crate::problem::{Problem, Violations};
use crate::schema::{MessagePlan, Schema, ValueKind, schema};

/// More messages in one another than this are refused by the decoder.
const MAX_MESSAGES: u32 = 100;
/// So many numbers are named at once.
const MAX_NAMED: usize = 20;
/// The number of `google.protobuf.Value.number_value`.
const NUMBER: u32 = 2;

/// Whether requests of this message may hold values.
pub fn concerns(message: &str) -> bool {
    schema().plan_of(message).is_some_and(|plan| plan.holds_values)
}

/// Refuses bytes of `message` (a full name) in which a value nests deeper than [`MAX_DEPTH`], or holds a number beyond
/// [`MAX_EXACT`], with the field.
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
        Err(Stop::Inexact(fields)) => {
            let mut violations = Violations::new();
            for field in fields {
                violations.add(field, Fault::OutOfRange, INEXACT);
            }
            Err(Problem::invalid(violations.into_vec()).with("limitNumber", MAX_EXACT.to_string()))
        }
        Ok(()) | Err(Stop::Malformed) => Ok(()),
    }
}

enum Stop {
    /// The field that holds the value.
    TooDeep(String),
    /// The numbers; while it is looked for, nothing.
    Inexact(Vec<String>),
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
                    let below = self.enter(&field.name, inner)?;
                    let outermost = inner.value.filter(|_| self.levels == 0 && plan.value.is_none());
                    let walked = below.message(inner, data);
                    walked.map_err(|stop| below.named(outermost, data, stop))?;
                }
                None if plan.value == Some(ValueKind::Value) && number == NUMBER => {
                    exact(wire, &mut bytes)?;
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
        inner.levels += u32::from(plan.nests());
        inner.messages += 1;
        if inner.levels > MAX_DEPTH {
            return Err(Stop::TooDeep(inner.path.join(".")));
        }
        if inner.messages > MAX_MESSAGES {
            return Err(Stop::Malformed);
        }
        Ok(inner)
    }

    /// Names the numbers, once the outermost value is reached: it is decoded for that.
    fn named(&self, outermost: Option<ValueKind>, data: &[u8], stop: Stop) -> Stop {
        let (Stop::Inexact(_), Some(kind)) = (&stop, outermost) else { return stop };
        let decoded = match kind {
            ValueKind::Struct => Struct::decode(data).map(|value| from_struct(&value)),
            ValueKind::List => ListValue::decode(data).map(|value| from_list(&value)),
            ValueKind::Value => Value::decode(data).map(|value| from_value(&value)),
        };
        let at = self.path.join(".");
        let inside = decoded.map(|decoded| inexact_paths(&decoded, MAX_NAMED)).unwrap_or_default();
        let fields: Vec<String> = inside.into_iter().map(|path| format!("{at}{path}")).collect();
        // What is no number at all has no place as JSON.
        Stop::Inexact(if fields.is_empty() { vec![at] } else { fields })
    }
}

/// Reads a number of a value.
fn exact(wire: WireType, bytes: &mut &[u8]) -> Result<(), Stop> {
    if wire != WireType::SixtyFourBit {
        return skip_field(wire, NUMBER, bytes, DecodeContext::default()).map_err(|_| Stop::Malformed);
    }
    let (number, rest) = bytes.split_first_chunk().ok_or(Stop::Malformed)?;
    *bytes = rest;
    if is_exact_double(f64::from_le_bytes(*number)) { Ok(()) } else { Err(Stop::Inexact(Vec::new())) }
}

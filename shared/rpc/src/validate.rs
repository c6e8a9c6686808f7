//! Checks the shape of a request against the annotations in its descriptors and names *all* violations.
//!
//! Looked for: fields annotated REQUIRED that are empty; what the rules of `buf.validate` refuse ([`crate::rules`]);
//! `field_info.format = UUID4`; enum numbers that the enum does not have; text with NUL (which PostgreSQL cannot keep);
//! text and collections over the limits below. OUTPUT_ONLY fields are skipped, as AIP-203 wants. In a request with an
//! `update_mask`, what the mask does not name of the resource is neither required nor held to rules.
//!
//! The encoded message is walked, not a reflected copy: one buffer, no other allocation unless something is wrong.

use pavior_core::Fault;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};

use crate::problem::{Problem, Violations};
use crate::rules::{ValueRules, too_long, too_many};
use crate::schema::{FieldPlan, MessagePlan, Schema, Shape, schema};

/// The longest text field, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// The most elements of a repeated field or a map.
pub const MAX_ITEMS: u32 = 10_000;
/// After so many violations the rest is not looked for.
const MAX_VIOLATIONS: usize = 100;

/// Fails with every violation of `request`.
pub fn request<M: Message + Name>(request: &M) -> Result<(), Problem> {
    violations(request)?.into_result()
}

/// The violations of a request or of a resource, to be joined with those that only the service knows.
pub fn violations<M: Message + Name>(request: &M) -> Result<Violations, Problem> {
    let name = M::full_name();
    let schema = schema();
    let Some(plan) = schema.plan_of(&name) else {
        return Err(Problem::internal(format!("message `{name}` has no descriptor")));
    };
    if !plan.constrained {
        return Ok(Violations::new());
    }
    let bytes = request.encode_to_vec();
    let mut walk = Walk { schema, found: Violations::new(), count: 0, mask: None };
    if let Some(number) = plan.update_mask {
        walk.mask = Some(Mask { paths: mask_paths(&bytes, number) });
    }
    walk.message(plan, &bytes, None, 0)
        .ok_or_else(|| Problem::internal(format!("`{name}` does not encode to what its descriptor says")))?;
    Ok(walk.found)
}

/// One step from the request down to a field. Lives on the stack; becomes text only for a violation.
struct Step<'a> {
    parent: Option<&'a Step<'a>>,
    field: &'a str,
    at: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Whole,
    Index(u32),
    Key(&'a [u8]),
}

impl Step<'_> {
    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
            out.push('.');
        }
        out.push_str(self.field);
        match self.at {
            Place::Whole => {}
            Place::Index(index) => out.push_str(&format!("[{index}]")),
            Place::Key(key) => {
                let key = String::from_utf8_lossy(key);
                let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                out.push_str(&if plain { format!(".{key}") } else { format!(".`{}`", key.escape_debug()) });
            }
        }
    }

    fn path(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

/// The update mask of a request.
struct Mask {
    paths: Vec<String>,
}

struct Walk<'s> {
    schema: &'s Schema,
    found: Violations,
    count: usize,
    mask: Option<Mask>,
}

/// Which fields of a message were there; room for 128 without allocation.
#[derive(Default)]
struct Seen {
    low: u128,
    high: Vec<usize>,
}

impl Seen {
    fn add(&mut self, at: usize) {
        match u32::try_from(at).ok().and_then(|at| 1u128.checked_shl(at)) {
            Some(bit) => self.low |= bit,
            None => self.high.push(at),
        }
    }

    fn has(&self, at: usize) -> bool {
        match u32::try_from(at).ok().and_then(|at| 1u128.checked_shl(at)) {
            Some(bit) => self.low & bit != 0,
            None => self.high.contains(&at),
        }
    }
}

impl Walk<'_> {
    fn violation(&mut self, path: String, fault: Fault, description: impl Into<String>) {
        self.count += 1;
        if self.count <= MAX_VIOLATIONS {
            self.found.add(path, fault, description);
        }
    }

    /// Walks one message. `None` when the bytes are not what prost would have written.
    fn message(
        &mut self,
        plan: &MessagePlan,
        mut bytes: &[u8],
        up: Option<&Step<'_>>,
        depth: u32,
    ) -> Option<()> {
        let mut seen = Seen::default();
        let mut counts: Vec<(usize, u32)> = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).ok()?;
            let (varint, data) = value(wire, &mut bytes)?;
            let Some((at, field)) = plan.field(number) else { continue };
            seen.add(at);
            if field.output_only {
                continue;
            }
            let index = if field.list || field.map { Some(count(&mut counts, at)) } else { None };
            let most = field.rules.as_ref().and_then(|rules| rules.max_items).unwrap_or(MAX_ITEMS);
            if index.is_some_and(|index| index == most) {
                let step = Step { parent: up, field: &field.name, at: Place::Whole };
                self.broken(&step, depth, vec![(Fault::TooMany, too_many(most))]);
            }
            if index.is_some_and(|index| index >= most) {
                continue;
            }
            let place = index.filter(|_| field.list).map_or(Place::Whole, Place::Index);
            let step = Step { parent: up, field: &field.name, at: place };
            let rules = field.rules.as_ref().map(|rules| &rules.value);
            self.field(field, rules, varint, data, &step, depth)?;
        }
        self.missing(plan, &seen, up, depth);
        Some(())
    }

    fn field(
        &mut self,
        field: &FieldPlan,
        rules: Option<&ValueRules>,
        varint: u64,
        data: &[u8],
        step: &Step<'_>,
        depth: u32,
    ) -> Option<()> {
        match &field.shape {
            Shape::Text => self.text(field, rules, data, step, depth),
            Shape::Integer => {
                let fault = rules.and_then(|rules| rules.integer_fault(varint as i64));
                self.broken(step, depth, fault.into_iter().collect());
            }
            Shape::Enum(numbers) if data.is_empty() => self.enum_number(numbers, varint, step),
            Shape::Enum(numbers) => {
                let mut packed = data;
                while !packed.is_empty() {
                    self.enum_number(numbers, decode_varint(&mut packed).ok()?, step);
                }
            }
            Shape::Message(at) => {
                let plan = self.schema.plan(*at)?;
                if field.map {
                    return self.entry(field, plan, data, step, depth);
                }
                let fault = rules.and_then(|rules| rules.duration_fault(data));
                self.broken(step, depth, fault.into_iter().collect());
                if plan.constrained {
                    return self.message(plan, data, Some(step), depth + 1);
                }
            }
            Shape::Other => {}
        }
        Some(())
    }

    /// Walks one entry of a map: its value is named by its key.
    fn entry(
        &mut self,
        map: &FieldPlan,
        plan: &MessagePlan,
        data: &[u8],
        step: &Step<'_>,
        depth: u32,
    ) -> Option<()> {
        let mut rest = data;
        let mut key: &[u8] = &[];
        let mut values: Vec<(u64, &[u8])> = Vec::new();
        while !rest.is_empty() {
            let (number, wire) = decode_key(&mut rest).ok()?;
            let (varint, data) = value(wire, &mut rest)?;
            match number {
                1 => key = data,
                _ => values.push((varint, data)),
            }
        }
        let step = Step { parent: step.parent, field: step.field, at: Place::Key(key) };
        if let Some((_, field)) = plan.field(1)
            && matches!(field.shape, Shape::Text)
        {
            self.text(field, map.rules.as_ref().map(|rules| &rules.key), key, &step, depth);
        }
        let (_, field) = plan.field(2)?;
        let rules = map.rules.as_ref().map(|rules| &rules.value);
        values.into_iter().try_for_each(|(varint, data)| self.field(field, rules, varint, data, &step, depth))
    }

    fn text(
        &mut self,
        field: &FieldPlan,
        rules: Option<&ValueRules>,
        data: &[u8],
        step: &Step<'_>,
        depth: u32,
    ) {
        if data.len() > MAX_TEXT_BYTES {
            self.violation(step.path(), Fault::TooLong, too_long(MAX_TEXT_BYTES as u64, "bytes"));
        } else if data.contains(&0) {
            self.violation(step.path(), Fault::Pattern, "must not contain the NUL character");
        } else if let Some(rules) = rules
            && let Ok(text) = std::str::from_utf8(data)
        {
            self.broken(step, depth, rules.text_faults(text));
        }
        if field.uuid4 && !is_uuid4(data) {
            self.violation(step.path(), Fault::Pattern, "is not a UUID of version 4 in its usual form");
        }
    }

    fn enum_number(&mut self, numbers: &[i32], varint: u64, step: &Step<'_>) {
        let number = varint as i32;
        if numbers.binary_search(&number).is_err() {
            self.violation(step.path(), Fault::Unknown, format!("has no value of number `{number}`"));
        }
    }

    /// Names the rules that a value breaks, unless the field is part of a resource that is updated and the mask does not
    /// name it.
    fn broken(&mut self, step: &Step<'_>, depth: u32, faults: Vec<(Fault, String)>) {
        if faults.is_empty() {
            return;
        }
        let path = step.path();
        if depth == 0 || self.in_mask(&path) {
            for (fault, description) in faults {
                self.violation(path.clone(), fault, description);
            }
        }
    }

    /// Names required fields that are empty.
    fn missing(&mut self, plan: &MessagePlan, seen: &Seen, up: Option<&Step<'_>>, depth: u32) {
        for (at, field) in plan.fields.iter().enumerate() {
            let resource_name = depth == 1 && field.identifier && self.in_updated_resource(up);
            if (!field.required && !resource_name) || seen.has(at) {
                continue;
            }
            let path = Step { parent: up, field: &field.name, at: Place::Whole }.path();
            if resource_name || self.demanded(&path, depth) {
                self.violation(path, Fault::Required, "is required");
            }
        }
        for (name, members) in
            plan.oneofs.iter().filter(|(_, members)| !members.iter().any(|at| seen.has(*at)))
        {
            let path = Step { parent: up, field: name, at: Place::Whole }.path();
            if self.demanded(&path, depth) {
                let names =
                    members.iter().filter_map(|at| plan.fields.get(*at)).map(|field| field.name.as_str());
                let names: Vec<&str> = names.collect();
                self.violation(path, Fault::Required, format!("must be one of {}", names.join(", ")));
            }
        }
    }

    fn in_updated_resource(&self, up: Option<&Step<'_>>) -> bool {
        self.mask.is_some() && up.is_some_and(|step| step.field != "update_mask")
    }

    /// True unless the field is part of a resource that is updated and the mask does not name it.
    fn demanded(&self, path: &str, depth: u32) -> bool {
        let Some(mask) = self.mask.as_ref().filter(|_| depth > 0) else { return true };
        // Without paths, populated fields are taken whole, so what is inside of them must be complete.
        if mask.paths.is_empty() { depth >= 2 } else { self.in_mask(path) }
    }

    /// Whether the field is taken from the request; without paths, every field that is populated is.
    fn in_mask(&self, path: &str) -> bool {
        let Some(mask) = self.mask.as_ref().filter(|mask| !mask.paths.is_empty()) else { return true };
        let within = path.split_once('.').map_or("", |(_, within)| within);
        mask.paths.iter().any(|named| {
            named == "*"
                || named == within
                || within.strip_prefix(named.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        })
    }
}

/// Reads a value: a number, or the bytes of a length-delimited one.
pub(crate) fn value<'b>(wire: WireType, bytes: &mut &'b [u8]) -> Option<(u64, &'b [u8])> {
    let length = match wire {
        WireType::Varint => return Some((decode_varint(bytes).ok()?, &[])),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => usize::try_from(decode_varint(bytes).ok()?).ok()?,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    let (data, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((0, data))
}

/// The number of elements before this one.
fn count(counts: &mut Vec<(usize, u32)>, at: usize) -> u32 {
    if let Some((_, count)) = counts.iter_mut().find(|(field, _)| *field == at) {
        *count += 1;
        return *count;
    }
    counts.push((at, 0));
    0
}

fn mask_paths(mut bytes: &[u8], mask: u32) -> Vec<String> {
    while !bytes.is_empty() {
        let Ok((number, wire)) = decode_key(&mut bytes) else { return Vec::new() };
        let Some((_, data)) = value(wire, &mut bytes) else { return Vec::new() };
        if number == mask {
            return prost_types::FieldMask::decode(data).map(|mask| mask.paths).unwrap_or_default();
        }
    }
    Vec::new()
}

/// Whether the text is a UUID of version 4 in its usual form, in either case.
pub fn is_uuid4(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            14 => *byte == b'4',
            19 => matches!(byte.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
            _ => byte.is_ascii_hexdigit(),
        })
}

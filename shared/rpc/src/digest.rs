//! What makes two requests the same request.

use pavior_core::digest::sha256;
use prost::encoding::{WireType, decode_key, encode_key, encode_varint};
use prost::{Message, Name};

use crate::schema::{MessagePlan, Schema, Shape, schema};
use crate::validate::value;

/// The field that names a repetition, and is no part of what is repeated.
const REQUEST_ID: &str = "request_id";

/// The digest of what a request asks: the same in whatever order its maps come, and however its request id is written.
pub fn of<M: Message + Name>(request: &M) -> [u8; 32] {
    let bytes = request.encode_to_vec();
    let schema = schema();
    // A message without a descriptor is refused by validation; here it is only not put in order.
    let ordered = schema.plan_of(&M::full_name()).and_then(|plan| ordered(schema, plan, &bytes, true));
    sha256(ordered.as_deref().unwrap_or(&bytes))
}

/// The encoded message with the entries of each map sorted; prost keeps the order of everything else.
fn ordered(schema: &Schema, plan: &MessagePlan, mut bytes: &[u8], top: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut entries: Vec<(u32, Vec<u8>)> = Vec::new();
    while !bytes.is_empty() {
        let start = bytes;
        let (number, wire) = decode_key(&mut bytes).ok()?;
        let (_, data) = value(wire, &mut bytes)?;
        let whole = &start[..start.len() - bytes.len()];
        let Some((_, field)) = plan.field(number) else {
            out.extend_from_slice(whole);
            continue;
        };
        match field.shape {
            _ if top && field.name == REQUEST_ID => {}
            Shape::Message(at) => {
                let inner = ordered(schema, schema.plan(at)?, data, false)?;
                let mut item = Vec::with_capacity(inner.len() + 6);
                encode_key(number, WireType::LengthDelimited, &mut item);
                encode_varint(u64::try_from(inner.len()).ok()?, &mut item);
                item.extend(inner);
                match field.map {
                    true => entries.push((number, item)),
                    false => out.extend(item),
                }
            }
            _ => out.extend_from_slice(whole),
        }
    }
    entries.sort();
    entries.into_iter().for_each(|(_, entry)| out.extend(entry));
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use pavior_proto::pavior::catalog::v1::{CreateEntityRequest, Entity};

    use super::*;

    fn request(id: &str, labels: impl Iterator<Item = u32>) -> CreateEntityRequest {
        let labels: HashMap<String, String> = labels.map(|n| (format!("l{n}"), n.to_string())).collect();
        let entity = Entity { labels, ..Entity::default() };
        CreateEntityRequest {
            entity_id: "a".to_owned(),
            entity: Some(entity),
            request_id: id.to_owned(),
            ..CreateEntityRequest::default()
        }
    }

    #[test]
    fn neither_the_order_of_maps_nor_the_request_id_matters() {
        let first = of(&request("A", 0..50));
        for _ in 0..10 {
            // Each `HashMap` has an order of its own.
            assert_eq!(of(&request("a", (0..50).rev())), first);
        }
        assert_ne!(of(&request("A", 0..49)), first);
        let other = CreateEntityRequest { entity_id: "b".to_owned(), ..request("A", 0..50) };
        assert_ne!(of(&other), first);
    }
}

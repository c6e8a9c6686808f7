//! Facts of a resource: those that were kept with the first answer to a request id, and those that were decided on.

use std::collections::BTreeMap;

use pavior_core::Fault;
use pavior_core::digest::sha256;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use prost::Message as _;

use crate::problem::{ErrorReason, Problem};

/// Reads what was kept. Nothing where nothing was, or where it is about something else than `name` and what is above
/// it: whoever uses a request id again for another resource is not let in by the first one's facts.
pub fn recall(kept: Option<Vec<u8>>, name: &str) -> Result<Option<ResourceFacts>, Problem> {
    let Some(kept) = kept.filter(|kept| !kept.is_empty()) else { return Ok(None) };
    let facts = ResourceFacts::decode(kept.as_slice()).map_err(Problem::internal)?;
    let rest = name.strip_prefix(facts.name.as_str()).filter(|_| !facts.name.is_empty());
    Ok(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')).then_some(facts))
}

/// What stands for facts in the gateway's token: 128 bits in hexadecimal, the same for the same facts.
pub fn fingerprint(facts: &ResourceFacts) -> String {
    let mut facts = facts.clone();
    // A map has no order on the wire.
    let labels: BTreeMap<String, String> = std::mem::take(&mut facts.labels).into_iter().collect();
    let mut bytes = facts.encode_length_delimited_to_vec();
    for text in labels.iter().flat_map(|(key, value)| [key, value]) {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.bytes());
    }
    hex::encode(&sha256(&bytes)[..16])
}

/// Refuses to change what is no longer as it was decided on. `decided` is from the gateway's token; empty where nothing
/// was.
///
/// # Errors
/// ABORTED with FACTS_CHANGED.
pub fn still_hold(decided: &str, now: &ResourceFacts) -> Result<(), Problem> {
    if decided.is_empty() || decided == fingerprint(now) {
        return Ok(());
    }
    let text = "what policy decided on has changed before the call could change it: make the call again";
    Err(Problem::aborted(ErrorReason::FactsChanged, text))
}

/// Refuses a change that is to be looked through for owners, in a service none of whose changes have any within: what
/// nobody reads, nobody would be asked about.
pub fn no_owners_within(message: &[u8]) -> Result<(), Problem> {
    match message {
        [] => Ok(()),
        _ => Err(Problem::invalid_field(
            "message",
            Fault::Unknown,
            "no method of this service has owners within its request",
        )),
    }
}

#[cfg(test)]
mod tests {
    use pavior_proto::pavior::governance::internal::v1::OwnerChange;

    use super::*;

    #[test]
    fn facts_that_differ_in_anything_no_longer_hold() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let decided = ResourceFacts {
            name: "organizations/acme/kinds/component/entities/a".to_owned(),
            exists: true,
            owner: "organizations/acme/groups/a".to_owned(),
            labels: labels(&[("tier", "1"), ("zone", "b"), ("x", "y")]),
            ..Default::default()
        };
        let token = fingerprint(&decided);
        let same =
            ResourceFacts { labels: labels(&[("x", "y"), ("zone", "b"), ("tier", "1")]), ..decided.clone() };
        still_hold(&token, &same).unwrap();
        still_hold("", &ResourceFacts::default()).unwrap();
        let change = OwnerChange { moves: true, ..Default::default() };
        for other in [
            ResourceFacts { owner: "organizations/acme/groups/b".to_owned(), ..decided.clone() },
            ResourceFacts { exists: false, ..decided.clone() },
            ResourceFacts { labels: labels(&[("tier", "1"), ("zone", "bx"), ("", "y")]), ..decided.clone() },
            ResourceFacts { labels: labels(&[("tier", "1"), ("zone", "b")]), ..decided.clone() },
            ResourceFacts { owner_changes: vec![change], ..decided.clone() },
        ] {
            let refused = still_hold(&token, &other).unwrap_err();
            assert_eq!(refused.reason, ErrorReason::FactsChanged, "{other:?}");
        }
    }

    #[test]
    fn only_facts_of_the_same_name_or_of_what_is_above_it_are_recalled() {
        let facts = ResourceFacts { name: "organizations/acme/groups/a".to_owned(), ..Default::default() };
        let kept = || Some(facts.encode_to_vec());
        let recalled = |name: &str| recall(kept(), name).unwrap();
        assert_eq!(recalled("organizations/acme/groups/a"), Some(facts.clone()));
        assert_eq!(recalled("organizations/acme/groups/a/b/c"), Some(facts.clone()));
        for other in ["organizations/acme/groups/ab", "organizations/acme/groups/b", "organizations/acme"] {
            assert_eq!(recalled(other), None, "{other}");
        }
        assert_eq!(recall(None, "organizations/acme").unwrap(), None);
        assert_eq!(recall(Some(Vec::new()), "organizations/acme").unwrap(), None);
    }
}

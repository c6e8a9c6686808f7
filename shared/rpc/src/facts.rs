//! Facts of a resource that were kept with the first answer to a request id.

use pavior_core::Fault;
use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
use prost::Message as _;

use crate::problem::Problem;

/// Reads what was kept. Nothing where nothing was, or where it is about something else than `name` and what is above
/// it: whoever uses a request id again for another resource is not let in by the first one's facts.
pub fn recall(kept: Option<Vec<u8>>, name: &str) -> Result<Option<ResourceFacts>, Problem> {
    let Some(kept) = kept.filter(|kept| !kept.is_empty()) else { return Ok(None) };
    let facts = ResourceFacts::decode(kept.as_slice()).map_err(Problem::internal)?;
    let rest = name.strip_prefix(facts.name.as_str()).filter(|_| !facts.name.is_empty());
    Ok(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')).then_some(facts))
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
    use super::*;

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

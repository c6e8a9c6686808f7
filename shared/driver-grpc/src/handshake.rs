use pavior_proto::pavior::driver::v1::Capability;

/// Revisions of the contract that this crate speaks.
pub const REVISIONS: &[i32] = &[1];

/// What both ends of this crate can do.
pub(crate) const CAPABILITIES: &[Capability] = &[
    Capability::Cancel,
    Capability::Acknowledge,
    Capability::Invoke,
    Capability::List,
    Capability::Pin,
    Capability::ReadArtifact,
];

/// What two sides agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Agreement {
    pub(crate) revision: i32,
    pub(crate) capabilities: Vec<Capability>,
}

impl Agreement {
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }
}

/// The highest revision that both speak.
pub(crate) fn common_revision(theirs: &[i32]) -> Option<i32> {
    REVISIONS.iter().copied().filter(|revision| theirs.contains(revision)).max()
}

/// Ours that the other side has too.
pub(crate) fn common_capabilities(theirs: &[i32]) -> Vec<Capability> {
    CAPABILITIES.iter().copied().filter(|ours| theirs.contains(&i32::from(*ours))).collect()
}

/// What the other side requires and this one lacks, for people; `None` when nothing is missing.
pub(crate) fn missing(required: &[i32]) -> Option<String> {
    let lacking: Vec<String> = required
        .iter()
        .filter(|number| !CAPABILITIES.iter().any(|ours| i32::from(*ours) == **number))
        .map(|number| match Capability::try_from(*number) {
            Ok(known) => format!("`{}`", known.as_str_name()),
            Err(_) => format!("number {number}"),
        })
        .collect();
    (!lacking.is_empty()).then(|| lacking.join(", "))
}

pub(crate) fn numbers(capabilities: &[Capability]) -> Vec<i32> {
    capabilities.iter().map(|capability| i32::from(*capability)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_revision_is_chosen() {
        assert_eq!(common_revision(&[3, 1, 2]), Some(1));
        assert_eq!(common_revision(&[2, 3]), None);
        assert_eq!(common_revision(&[]), None);
    }

    #[test]
    fn unknown_capabilities_matter_only_when_required() {
        assert_eq!(common_capabilities(&[99, 1]), [Capability::Cancel]);
        assert_eq!(missing(&[1, 2]), None);
        assert_eq!(missing(&[1, 99]).unwrap(), "number 99");
        assert_eq!(missing(&[0]).unwrap(), "`CAPABILITY_UNSPECIFIED`");
    }
}

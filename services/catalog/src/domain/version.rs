//! Semantic versions: which is newer, and a text that sorts as they do.

/// True when the id is a version rather than the name of a channel.
pub(crate) fn is_version(id: &str) -> bool {
    parse(id).is_some()
}

fn parse(id: &str) -> Option<semver::Version> {
    // Build metadata does not take part in precedence, so two versions could be one.
    semver::Version::parse(id).ok().filter(|version| version.build.is_empty())
}

/// True for `1.2.0-rc.1`.
pub(crate) fn is_pre_release(id: &str) -> bool {
    parse(id).is_some_and(|version| !version.pre.is_empty())
}

/// A text whose order by bytes is the precedence of semantic versions (semver.org, section 11), so that a database
/// can sort by it. `None` for what is no version.
pub(crate) fn sort_key(id: &str) -> Option<String> {
    let version = parse(id)?;
    let mut key = format!("{:020}.{:020}.{:020}", version.major, version.minor, version.patch);
    if version.pre.is_empty() {
        // A release comes after its pre-releases.
        key.push('~');
        return Some(key);
    }
    for part in version.pre.split('.') {
        key.push('!');
        match part.parse::<u64>() {
            Ok(number) => key.push_str(&format!("0{number:020}")),
            Err(_) => {
                key.push('1');
                key.push_str(part);
            }
        }
    }
    Some(key)
}

/// The newest of some versions that is not a pre-release.
pub(crate) fn latest<'a>(ids: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    ids.into_iter()
        .filter(|id| !is_pre_release(id))
        .filter_map(|id| Some((parse(id)?, id)))
        .max()
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_sort_as_the_specification_says() {
        let ordered = [
            "0.9.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.0",
            "1.10.0",
            "10.0.0",
        ];
        let keys: Vec<String> = ordered.iter().map(|id| sort_key(id).unwrap()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{keys:#?}");
        assert_eq!(latest(["1.0.0", "1.10.0", "1.2.0", "2.0.0-rc.1"]), Some("1.10.0"));
        assert_eq!(latest(["2.0.0-rc.1"]), None);
    }

    #[test]
    fn what_is_no_version() {
        for id in ["", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0+build", "stable", "latest"] {
            assert!(!is_version(id), "{id}");
        }
    }

    proptest! {
        #[test]
        fn keys_agree_with_semver(
            a in "(0|[1-9][0-9]{0,2})\\.(0|[1-9][0-9]{0,2})\\.(0|[1-9])(-(0|[1-9][0-9]?|[a-z][a-z0-9-]{0,3})(\\.(0|[1-9]|[a-z]{1,2})){0,2})?",
            b in "(0|[1-9][0-9]{0,2})\\.(0|[1-9][0-9]{0,2})\\.(0|[1-9])(-(0|[1-9][0-9]?|[a-z][a-z0-9-]{0,3})(\\.(0|[1-9]|[a-z]{1,2})){0,2})?",
        ) {
            let order = parse(&a).unwrap().cmp(&parse(&b).unwrap());
            prop_assert_eq!(sort_key(&a).unwrap().cmp(&sort_key(&b).unwrap()), order, "{} {}", a, b);
        }
    }
}

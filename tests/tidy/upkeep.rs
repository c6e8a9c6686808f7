//! What is written without an audit event: each with what it is, in a list that may only shrink.

use crate::sources::sources;
use std::collections::BTreeSet;

/// Where, and the text that says what it is.
const ALLOWED: &str = include_str!("../golden/upkeep.txt");
/// The two ways to write without an event.
const CALLS: [&str; 2] = [".upkeep", "Recorded::upkeep"];

/// The first text in quotes after a call, if it is one of the two.
fn what(text: &str, at: usize) -> Option<String> {
    let rest = text.get(at..)?;
    let from = rest.find('"')? + 1;
    let to = rest.get(from..)?.find('"')? + from;
    rest.get(from..to).map(str::to_owned)
}

fn found() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let code = source.code().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        for call in CALLS {
            for (at, _) in code.match_indices(call) {
                let after = code[at + call.len()..].chars().next();
                if matches!(after, Some('(' | ':')) {
                    let what = what(&code, at).unwrap_or_else(|| "does not say what".to_owned());
                    lines.insert(format!("{}: {what}", source.path));
                }
            }
        }
    }
    lines
}

#[test]
fn what_is_written_without_an_event_is_in_the_list() {
    let found = found();
    assert!(found.len() > 5, "the calls were not found: {found:?}");
    crate::assert_shrinks(
        "upkeep.txt",
        ALLOWED,
        &found,
        "is written without an audit event; use `Store::change`",
    );
}

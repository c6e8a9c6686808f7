//! Which service of the platform may call which method, and what it must bring: each has as few as it needs.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use pavior_auth::{Brings, CallRules};

use crate::golden;

const FILE: &str = "callers.txt";

/// Every service that another one may call.
fn services() -> Vec<&'static str> {
    let roles = [
        pavior_audit::ROLE,
        pavior_catalog::ROLE,
        pavior_policy::ROLE,
        pavior_provisioning::ROLE,
        "platform",
    ];
    let mut services: Vec<&str> = roles.into_iter().flat_map(pavior_rpc::governance::services).collect();
    services.sort_unstable();
    services.dedup();
    services
}

#[test]
fn callers_of_every_method() -> Result<()> {
    let rules = CallRules::of(&services())?;
    let mut text = "# Which service may call which method, and what it must bring. It may only shrink: see callers.rs.\n".to_owned();
    let mut before = "";
    for (path, role, brings) in rules.callers() {
        if path != before {
            writeln!(text, "{path}")?;
            before = path;
        }
        let brings = match brings {
            Brings::Nothing => "by itself",
            Brings::Word => "by itself, or for whom it says",
            Brings::Caller => "with a caller",
            Brings::Decision => "with a decision",
        };
        writeln!(text, "    {role} {brings}")?;
    }
    if let Some(kept) = golden::read(FILE) {
        let grown = grown(&kept, &text);
        ensure!(
            grown.is_empty(),
            "a service may call more than tests/golden/{FILE} says:\n  {}\n\
             This is a security list: it may only shrink, and UPDATE_GOLDEN=1 does not make it grow.\n\
             If more is truly wanted, write it into the file by hand, so that a review sees it.",
            grown.join("\n  ")
        );
    }
    golden::assert_same(FILE, &text);
    Ok(())
}

/// What stands in `now` and did not before, except that a caller with a decision is no more than one without.
fn grown(before: &str, now: &str) -> Vec<String> {
    let before = pairs(before);
    let known = |pair: &(String, String)| {
        let milder = pair.1.replace(" with a decision", " by itself");
        before.contains(pair) || before.contains(&(pair.0.clone(), milder))
    };
    pairs(now).into_iter().filter(|pair| !known(pair)).map(|(path, who)| format!("{who}: {path}")).collect()
}

fn pairs(text: &str) -> BTreeSet<(String, String)> {
    let mut path = "";
    let mut pairs = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            Some(who) => drop(pairs.insert((path.to_owned(), who.to_owned()))),
            None => path = line,
        }
    }
    pairs
}

#[test]
fn a_caller_that_is_new_is_found_and_one_that_is_gone_is_not() {
    let before = "/a.B/C\n    gateway with a decision\n    policy by itself\n";
    assert_eq!(grown(before, "/a.B/C\n    policy with a decision\n"), Vec::<String>::new());
    let more = "/a.B/C\n    gateway by itself\n    catalog with a decision\n/a.B/D\n    policy by itself\n";
    assert_eq!(
        grown(before, more),
        ["catalog with a decision: /a.B/C", "gateway by itself: /a.B/C", "policy by itself: /a.B/D"]
    );
}

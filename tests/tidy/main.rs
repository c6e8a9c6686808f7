//! Polices the repository: who may import whom, what stands where, and what must never be written. Each rule is a
//! function over text, so that the tests below can show that it bites.

mod circles;
mod crates;
mod permits;
mod rules;
mod sources;
mod upkeep;

use std::collections::BTreeSet;

use sources::{Source, sources};

fn assert_clean(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// Compares what is found with a list beside the golden files, which may only shrink. `what` says what is wrong.
fn assert_shrinks(file: &str, allowed: &str, found: &BTreeSet<String>, what: &str) {
    let lines = allowed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let allowed: BTreeSet<String> = lines.map(str::to_owned).collect();
    let more = found.difference(&allowed).map(|line| format!("{line} {what}"));
    let less = allowed
        .difference(found)
        .map(|line| format!("{line}: remove it from tests/golden/{file}, which may only shrink"));
    assert_clean(file, more.chain(less).collect());
}

fn all(check: fn(&Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(check).collect()
}

#[test]
fn only_what_is_for_tests_is_left_out() {
    let text = "a();\n#[cfg(test)]\nmod tests;\nb();\n#[cfg(test)]\n#[allow(x)]\nuse {\n    y,\n};\nfn c() {\n    d(); // e\n}\n\
                #[cfg(test)]\nmod more {\n    fn f() {\n    }\n    g();\n}\nh();\n";
    let source = Source { path: "services/x/src/lib.rs".to_owned(), text: text.to_owned() };
    let code: Vec<_> = source.code().map(|(number, line)| (number, line.trim())).collect();
    assert_eq!(code, [(1, "a();"), (4, "b();"), (10, "fn c() {"), (11, "d();"), (12, "}"), (19, "h();")]);
}

#[test]
fn crates_import_only_what_they_may() {
    assert_clean(
        "a crate imports another that it must not know",
        crates::forbidden_edges(&crates::workspace()),
    );
}

#[test]
fn a_forbidden_crate_edge_is_found() {
    let graph = vec![
        ("pavior-catalog".to_owned(), vec!["pavior-core".to_owned(), "pavior-policy".to_owned()]),
        ("pavior-gateway".to_owned(), vec!["pavior-store".to_owned()]),
        ("pavior-core".to_owned(), vec![]),
    ];
    assert_eq!(crates::forbidden_edges(&graph).len(), 2);
}

#[test]
fn every_crate_inherits_the_lints_and_says_what_it_owns() {
    assert_clean("a crate does not inherit the lints, or has no crate documentation", crates::unkempt());
}

#[test]
fn modules_import_only_what_they_may() {
    assert_clean("a module imports what its layer must not know", all(rules::layers));
}

#[test]
fn a_forbidden_import_is_found() {
    for (path, line) in [
        ("services/catalog/src/domain/entity.rs", "use tonic::Status;"),
        ("services/catalog/src/domain/entity.rs", "use serde::Serialize;"),
        ("services/catalog/src/domain/entity.rs", "    async fn f() { tokio::spawn(x) }"),
        ("services/catalog/src/api/entity.rs", "use crate::store::entities;"),
        ("services/catalog/src/store/entity.rs", "use pavior_proto::pavior::catalog::v1;"),
        ("services/catalog/src/app/entity.rs", "use sea_orm::EntityTrait;"),
        ("services/catalog/src/app/entity.rs", "fn f() -> Result<(), tonic::Status> {"),
    ] {
        let source = Source { path: path.to_owned(), text: format!("//! A module.\n{line}\n") };
        assert_eq!(rules::layers(&source).len(), 1, "{path}: {line}");
    }
    let fine = Source {
        path: "services/catalog/src/domain/entity.rs".to_owned(),
        text: "//! No tonic:: here.\nuse serde_json::Value;\nuse pavior_core::name::ResourceName;\n"
            .to_owned(),
    };
    assert_eq!(rules::layers(&fine), Vec::<String>::new());
}

#[test]
fn nothing_reads_the_clock_ids_or_environment_on_its_own() {
    assert_clean(
        "clock, random ids or environment are read outside of core and runtime",
        all(rules::ambient),
    );
}

#[test]
fn reading_the_clock_is_found() {
    let source = Source {
        path: "services/policy/src/app/decide.rs".to_owned(),
        text: "let now = OffsetDateTime::now_utc();\nlet id = Uuid::now_v7();\nstd::env::var(\"X\");\n"
            .to_owned(),
    };
    assert_eq!(rules::ambient(&source).len(), 3);
}

#[test]
fn no_state_is_shared_by_all_systems_of_a_process() {
    assert_clean("a static can change", all(rules::mutable_statics));
}

#[test]
fn a_static_that_can_change_is_found() {
    let source = Source {
        path: "services/policy/src/app/cache.rs".to_owned(),
        text: "static CACHE: Mutex<Vec<u8>> = Mutex::new(Vec::new());\n".to_owned(),
    };
    assert_eq!(rules::mutable_statics(&source).len(), 1);
}

#[test]
fn nothing_unfinished_is_left() {
    assert_clean("something is unfinished, or a test does not run", all(rules::unfinished));
}

#[test]
fn files_are_small() {
    assert_clean("a file has more than 600 lines", all(rules::too_long));
}

#[test]
fn every_rpc_declares_its_governance() {
    assert_clean("an RPC has no governance rule", rules::ungoverned());
}

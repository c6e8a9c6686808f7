//! Who may touch tenant data: every function of a store takes a permit, works within somebody else's transaction, or
//! says by its name that it is unscoped. What does neither is in a list that may only shrink.

use std::collections::BTreeSet;

use crate::sources::{Source, sources};

const ALLOWED: &str = include_str!("../golden/permits.txt");
/// Types of parameters that bind a call to a tenant, or to a transaction that was opened with one.
const BOUND: [&str; 3] = ["Permit", "Tx", "ConnectionTrait"];

/// The parameters of the function that begins at `at` in `code`, up to the closing parenthesis.
fn parameters(code: &str, at: usize) -> &str {
    let rest = &code[at..];
    let Some(open) = rest.find('(') else { return "" };
    let mut depth = 0_usize;
    for (index, character) in rest.char_indices().skip_while(|(index, _)| *index < open) {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return &rest[open..=index],
            ')' => depth -= 1,
            _ => {}
        }
    }
    rest
}

/// The functions of a store's file, seen from outside of it, that neither take a permit or a transaction nor are
/// called `_unscoped`.
pub(crate) fn without_permit(source: &Source) -> Vec<String> {
    let in_store = source.path.starts_with("services/") && source.path.contains("/src/store");
    if !in_store || source.is_test() || source.path.contains("/migration") {
        return Vec::new();
    }
    let code = source.code().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for head in ["pub(crate) async fn ", "pub(super) async fn ", "pub async fn "] {
        for (at, _) in code.match_indices(head) {
            let after = &code[at + head.len()..];
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
            let (name, parameters) = (&after[..end], parameters(&code, at + head.len() + end));
            let mut words = parameters.split(|c: char| !c.is_alphanumeric() && c != '_');
            let bound = words.any(|word| BOUND.contains(&word));
            if !bound && !name.ends_with("_unscoped") {
                found.push(format!("{}: {name}", source.path));
            }
        }
    }
    found
}

#[test]
fn store_functions_take_a_permit() {
    let found: BTreeSet<String> = sources().iter().flat_map(without_permit).collect();
    crate::assert_shrinks(
        "permits.txt",
        ALLOWED,
        &found,
        "takes no permit, no transaction, and is not `_unscoped`",
    );
}

#[test]
fn a_store_function_without_a_permit_is_found() {
    let text = "impl Store {\n    pub(crate) async fn group(\n        &self,\n        name: &str,\n    ) -> R {\n    }\n\
                pub(crate) async fn kind(&self, permit: &Permit, name: &str) -> R {}\n\
                pub(crate) async fn all_unscoped(&self) -> R {}\n    async fn own(&self) {}\n}\n";
    let source = Source { path: "services/catalog/src/store/group.rs".to_owned(), text: text.to_owned() };
    assert_eq!(without_permit(&source), ["services/catalog/src/store/group.rs: group"]);
}

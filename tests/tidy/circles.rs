//! No circles between the files of a crate: what imports one another can only be read, tested and changed together.
//! Those that are left are in a list that may only shrink.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, sources};

const ALLOWED: &str = include_str!("../golden/circles.txt");

/// A file that only declares modules and passes their items on.
fn only_declares(source: &Source) -> bool {
    let is_root = ["/lib.rs", "/mod.rs", "/main.rs"].iter().any(|end| source.path.ends_with(end));
    is_root
        && !source
            .code()
            .any(|(_, line)| line.contains("fn ") || line.contains("struct ") || line.contains("enum "))
}

/// The crate's folder of sources, and the module path of a file in it: `store/group.rs` is `store::group`.
fn module(path: &str) -> Option<(&str, String)> {
    let (folder, file) = path.split_once("/src/")?;
    let file = file.strip_suffix(".rs")?;
    let file = file.strip_suffix("/mod").unwrap_or(file);
    let module = if file == "lib" || file == "main" { String::new() } else { file.replace('/', "::") };
    Some((folder, module))
}

/// The paths that `use` declarations name, as `store::group::Row`, with those in braces written out.
fn imports(source: &Source, own: &str) -> Vec<String> {
    let code = source.code().map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before = statement[..at].trim_end();
        if !(before.is_empty() || before.ends_with('}') || before.ends_with(')') || before.ends_with("pub")) {
            continue;
        }
        let path = statement[at + 4..].trim();
        if let Some(rest) = path.strip_prefix("crate::") {
            expand("", rest, &mut found);
        } else if path.starts_with("super::") {
            let (mut base, mut rest) = (own, path);
            while let Some(up) = rest.strip_prefix("super::") {
                base = base.rsplit_once("::").map_or("", |(base, _)| base);
                rest = up;
            }
            expand(&if base.is_empty() { String::new() } else { format!("{base}::") }, rest, &mut found);
        }
    }
    found
}

/// Writes out `a::{b, c::{d, e}}`.
fn expand(prefix: &str, path: &str, found: &mut Vec<String>) {
    let Some((head, rest)) = path.split_once('{') else {
        let path = path.split(" as ").next().unwrap_or(path).trim();
        found.push(format!("{prefix}{path}"));
        return;
    };
    let inner = rest.trim_end().strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut from) = (0_usize, 0);
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                let part = inner[from..at].trim();
                if !part.is_empty() {
                    expand(&format!("{prefix}{}", head.trim()), part, found);
                }
                from = at + 1;
            }
            _ => {}
        }
    }
}

/// Groups of files of one crate that import one another, each as its paths in order.
pub(crate) fn circles(sources: &[Source]) -> BTreeSet<String> {
    let mut crates: BTreeMap<&str, BTreeMap<String, &Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test() && !only_declares(source)) {
        if let Some((folder, module)) = module(&source.path) {
            crates.entry(folder).or_default().insert(module, source);
        }
    }
    let mut found = BTreeSet::new();
    for modules in crates.values() {
        let names: Vec<&String> = modules.keys().collect();
        let edges: Vec<BTreeSet<usize>> = modules
            .iter()
            .map(|(own, source)| {
                let imports = imports(source, own).into_iter();
                let target = |path: String| {
                    // The longest prefix that is a file: the rest are items in it.
                    let mut path = path.as_str();
                    loop {
                        match (names.binary_search_by(|name| name.as_str().cmp(path)), path.rsplit_once("::"))
                        {
                            (Ok(at), _) => return Some(at),
                            (Err(_), Some((shorter, _))) => path = shorter,
                            (Err(_), None) => return None,
                        }
                    }
                };
                imports.filter_map(target).filter(|at| names[*at] != own).collect()
            })
            .collect();
        let reach: Vec<BTreeSet<usize>> = (0..names.len()).map(|from| reachable(from, &edges)).collect();
        for from in 0..names.len() {
            let circle: Vec<usize> =
                reach[from].iter().copied().filter(|to| reach[*to].contains(&from)).collect();
            if circle.len() > 1 {
                let paths: Vec<&str> = circle.iter().map(|at| modules[names[*at]].path.as_str()).collect();
                found.insert(paths.join(" "));
            }
        }
    }
    found
}

fn reachable(from: usize, edges: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let (mut found, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(at) = left.pop() {
        left.extend(edges[at].iter().filter(|to| found.insert(**to)));
    }
    found
}

#[test]
fn files_of_a_crate_import_one_another_in_one_direction() {
    // A line a file, so that a circle which gets smaller makes the list smaller.
    let found = circles(&sources());
    let files: BTreeSet<String> =
        found.iter().flat_map(|circle| circle.split(' ')).map(str::to_owned).collect();
    crate::assert_shrinks("circles.txt", ALLOWED, &files, "is in a circle of imports");
}

#[test]
fn a_circle_is_found() {
    let file =
        |path: &str, text: &str| Source { path: format!("services/x/src/{path}"), text: text.to_owned() };
    let sources = [
        file("lib.rs", "mod app;\nmod store;\npub use app::A;\n"),
        file("app.rs", "use std::fmt;\nuse crate::store::{group::Row, Store};\nfn f() {}\n"),
        file("store/mod.rs", "mod group;\nstruct Store;\n"),
        file("store/group.rs", "use super::Store;\nuse crate::{\n    app::A,\n};\nfn g() {}\n"),
    ];
    let want = BTreeSet::from(["services/x/src/app.rs services/x/src/store/group.rs".to_owned()]);
    assert_eq!(circles(&sources), want);
    assert_eq!(circles(&sources[..3]), BTreeSet::new());
}

//! Compares what is with what a file beside the test says.

use std::path::PathBuf;

/// Lines around a difference that are shown with it.
const CONTEXT: usize = 2;

/// True when the files shall be rewritten.
pub(crate) fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

/// What the file says; nothing when there is none yet.
pub(crate) fn read(file: &str) -> Option<String> {
    std::fs::read_to_string(path(file)).ok()
}

/// Fails with a diff when `actual` is not what the file says, or rewrites the file when that was asked for.
pub(crate) fn assert_same(file: &str, actual: &str) {
    let actual = format!("{}\n", actual.trim_end());
    if updating() {
        std::fs::write(path(file), actual).expect("the golden file can be written");
        return;
    }
    let expected = read(file).unwrap_or_default();
    assert!(
        expected == actual,
        "tests/golden/{file} says otherwise (- the file, + what is):\n\n{}\n\
         If the change is wanted: UPDATE_GOLDEN=1 cargo test -p pavior-tests --test golden, and commit the file.\n",
        diff(&expected, &actual)
    );
}

/// The lines that differ, with some around them.
pub(crate) fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = edits(&old, &new);
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        lines.iter().skip(from).take(at - from + CONTEXT + 1).any(|(sign, _)| *sign != ' ')
    };
    let mut out = String::new();
    let mut gap = false;
    for (at, (sign, line)) in lines.iter().enumerate() {
        if near(at) {
            out.push_str(&format!("{sign} {line}\n"));
            gap = false;
        } else if !gap {
            out.push_str("…\n");
            gap = true;
        }
    }
    out
}

/// Both texts as one: a line of both, of the old one only, or of the new one only.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // common[i][j] is how many lines old[i..] and new[j..] have in common, in order.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for (i, left) in old.iter().enumerate().rev() {
        for (j, right) in new.iter().enumerate().rev() {
            common[i][j] =
                if left == right { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

#[test]
fn a_diff_shows_what_changed_and_little_else() {
    let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
    let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n";
    assert_eq!(diff(old, new), "…\n  3\n  4\n- 5\n+ five\n  6\n  7\n  8\n  9\n+ 10\n");
    assert_eq!(diff("", "a\n"), "+ a\n");
    assert_eq!(diff("a\n", "a\n"), "…\n");
}

//! Names that a caller may have meant.

/// How many names are listed.
const LISTED: usize = 10;

/// The number of characters to insert, delete or replace (Levenshtein).
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The known names for an error message, those most like `given` first: `` `a`, `b` and 3 more ``.
pub fn listed<'n>(given: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    // The distance takes time in proportion to the length, which the caller chooses.
    let given: String = given.chars().take(100).collect();
    let mut names: Vec<(usize, &str)> =
        known.into_iter().map(|name| (distance(&given, name), name)).collect();
    names.sort_unstable();
    let shown: Vec<String> = names.iter().take(LISTED).map(|(_, name)| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(LISTED);
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, want) in [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("a", "a", 0)] {
            assert_eq!(distance(a, b), want);
        }
    }

    #[test]
    fn names_are_listed_closest_first_and_bounded() {
        assert_eq!(listed("onwer", ["labels", "owner"]), "`owner`, `labels`");
        let many: Vec<String> = (0..13).map(|n| format!("field{n}")).collect();
        let text = listed("field7", many.iter().map(String::as_str));
        assert!(text.starts_with("`field7`, ") && text.ends_with(" and 3 more"), "{text}");
    }
}

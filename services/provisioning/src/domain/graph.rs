//! Orders of a graph of named nodes.

use std::collections::{BTreeMap, BTreeSet};

/// The names that lie on a cycle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` depend on each other", .0.join("`, `"))]
pub struct Cycle(pub Vec<String>);

/// Positions of `names` in an order in which each stands after what it depends on. Keeps the given order where the
/// dependencies leave a choice. Dependencies on names that are not there are ignored.
pub fn topological(names: &[String], depends_on: &[Vec<String>]) -> Result<Vec<usize>, Cycle> {
    let index: BTreeMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let deps: Vec<BTreeSet<usize>> = depends_on
        .iter()
        .map(|list| list.iter().filter_map(|name| index.get(name.as_str()).copied()).collect())
        .collect();
    let mut order = Vec::with_capacity(names.len());
    let mut placed = vec![false; names.len()];
    while order.len() < names.len() {
        let next = (0..names.len())
            .find(|i| !placed[*i] && deps.get(*i).is_none_or(|deps| deps.iter().all(|dep| placed[*dep])));
        match next {
            Some(i) => {
                placed[i] = true;
                order.push(i);
            }
            None => {
                let left = names.iter().zip(&placed).filter(|(_, placed)| !**placed);
                return Err(Cycle(left.map(|(name, _)| name.clone()).collect()));
            }
        }
    }
    Ok(order)
}

/// Everything that `start` depends on, directly or not.
pub fn ancestors(start: usize, depends_on: &[Vec<usize>]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut stack = vec![start];
    while let Some(at) = stack.pop() {
        for dep in depends_on.get(at).into_iter().flatten() {
            if found.insert(*dep) {
                stack.push(*dep);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn order_is_stable_and_cycles_are_named() {
        let order = topological(&names("a b c"), &[names("c"), vec![], names("b missing")]).unwrap();
        assert_eq!(order, [1, 2, 0]);
        let cycle = topological(&names("a b c"), &[names("b"), names("a"), vec![]]).unwrap_err();
        assert_eq!(cycle.to_string(), "`a`, `b` depend on each other");
    }

    #[test]
    fn ancestors_are_transitive() {
        let found = ancestors(2, &[vec![], vec![0], vec![1]]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [0, 1]);
    }
}

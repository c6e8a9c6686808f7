//! What this process has seen of logs: how far each had come when it looked last, which the log may never fall behind.

use std::collections::HashMap;
use std::sync::Arc;

use super::log_state::{LogState, TreeHead};
use super::tree::Edge;

/// Most logs whose edges are remembered; 8 KiB each and a little more for large ones.
const MAX_EDGES: usize = 4_096;

/// What was seen of all logs. A state for each; edges only to be faster, so they may be forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObservedLogs {
    logs: HashMap<String, Observed>,
    edges: usize,
}

#[derive(Debug, Clone)]
struct Observed {
    state: LogState,
    /// That of the same state.
    edge: Option<Arc<Edge>>,
}

impl ObservedLogs {
    /// Of logs that were just read: how far they have come, and what had been accepted before.
    pub(crate) fn of(found: &[(String, Edge)], accepted: &[(String, LogState)]) -> Self {
        let mut observed = Self::default();
        observed.accept(accepted.to_vec());
        for (log, edge) in found {
            let state = LogState { head: edge.head(), generation: observed.generation(log) };
            observed.logs.insert(log.clone(), Observed { state, edge: None });
        }
        observed
    }

    /// The state that a log had last.
    pub(crate) fn state(&self, log: &str) -> Option<&LogState> {
        self.logs.get(log).map(|observed| &observed.state)
    }

    /// Its tree head.
    pub(crate) fn head(&self, log: &str) -> Option<&TreeHead> {
        self.state(log).map(|state| &state.head)
    }

    /// Its generation.
    pub(crate) fn generation(&self, log: &str) -> u64 {
        self.state(log).map_or(0, |state| state.generation)
    }

    /// The edge of that state.
    pub(crate) fn edge(&self, log: &str) -> Option<&Edge> {
        self.logs.get(log)?.edge.as_deref()
    }

    /// The logs that are shorter than they were, by the sizes of all that there are.
    pub(crate) fn shrunk(&self, sizes: &HashMap<String, u64>) -> Vec<(String, TreeHead)> {
        let shorter = |log: &str, head: &TreeHead| sizes.get(log).copied().unwrap_or_default() < head.size;
        let heads = self.logs.iter().map(|(log, observed)| (log, observed.state.head));
        heads.filter(|(log, head)| shorter(log, head)).map(|(log, head)| (log.clone(), head)).collect()
    }

    /// Puts states that an operator accepted in the place of what was seen before.
    pub(crate) fn accept(&mut self, accepted: Vec<(String, LogState)>) {
        for (log, state) in accepted {
            let before = self.logs.insert(log, Observed { state, edge: None });
            self.edges -= usize::from(before.is_some_and(|observed| observed.edge.is_some()));
        }
    }

    /// Takes edges that were proven to go on from what was seen.
    pub(crate) fn advance(&mut self, edges: Vec<(String, Arc<Edge>)>) {
        if self.edges + edges.len() > MAX_EDGES {
            self.logs.values_mut().for_each(|observed| observed.edge = None);
            self.edges = 0;
        }
        for (log, edge) in edges {
            let state = LogState { head: edge.head(), generation: self.generation(&log) };
            let before = self.logs.insert(log, Observed { state, edge: Some(edge) });
            self.edges += usize::from(before.is_none_or(|observed| observed.edge.is_none()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hash;

    #[test]
    fn edges_are_forgotten_and_states_are_not() {
        let mut observed = ObservedLogs::default();
        let mut edge = Edge::default();
        edge.append([hash::leaf(b"a")]);
        let edge = Arc::new(edge);
        for n in 0..=MAX_EDGES {
            observed.advance(vec![(n.to_string(), edge.clone())]);
        }
        assert_eq!((observed.edge("0"), observed.edge(&MAX_EDGES.to_string())), (None, Some(&*edge)));
        assert_eq!((observed.head("0"), observed.edges), (Some(&edge.head()), 1));
        observed.advance(vec![("0".to_owned(), edge.clone()), ("0".to_owned(), edge)]);
        assert_eq!(observed.edges, 2);
    }

    #[test]
    fn what_is_accepted_takes_the_place_of_what_was_seen_and_is_gone_on_from() {
        let edge = |records: &[&[u8]]| {
            let mut edge = Edge::default();
            edge.append(records.iter().map(|record| hash::leaf(record)));
            edge
        };
        let (older, newer) = (edge(&[b"a"]), edge(&[b"a", b"b", b"c"]));
        let mut observed = ObservedLogs::of(&[("acme".to_owned(), newer.clone())], &[]);
        observed.advance(vec![("acme".to_owned(), Arc::new(newer))]);
        let accepted = LogState { generation: 1, head: older.head() };
        observed.accept(vec![("acme".to_owned(), accepted)]);
        assert_eq!(
            (observed.head("acme"), observed.edge("acme"), observed.edges),
            (Some(&older.head()), None, 0)
        );
        let on = edge(&[b"a", b"d"]);
        observed.advance(vec![("acme".to_owned(), Arc::new(on.clone()))]);
        assert_eq!((observed.head("acme"), observed.generation("acme")), (Some(&on.head()), 1));
        // What is found at a start is newer than what had been accepted by then.
        let observed = ObservedLogs::of(&[("acme".to_owned(), on.clone())], &[("acme".to_owned(), accepted)]);
        assert_eq!((observed.head("acme"), observed.generation("acme")), (Some(&on.head()), 1));
    }
}

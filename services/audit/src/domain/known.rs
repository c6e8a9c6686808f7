//! What a process knows of logs: how far each had come when it looked last, which the log may never fall behind.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::Hash;
use super::tree::Edge;

/// Most logs whose edges are remembered; 8 KiB each and a little more for large ones.
const MAX_EDGES: usize = 4_096;

/// A state that a log had. Whatever it becomes, it begins with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

/// A state of a log that is kept outside of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) mark: Mark,
    /// How often a loss of the log had been accepted by then. One that was accepted since gives it up.
    pub(crate) generation: u64,
}

/// A loss that an operator accepted: the log goes on from this state, whatever was known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acceptance {
    /// How often one was accepted of the log.
    pub(crate) generation: u64,
    pub(crate) mark: Mark,
}

/// What is known of all logs. A mark for each; edges only to be faster, so they may be forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownLogs {
    logs: HashMap<String, Known>,
    edges: usize,
}

#[derive(Debug, Clone)]
struct Known {
    mark: Mark,
    edge: Option<Arc<Edge>>,
    /// How often a loss of the log had been accepted when this was known.
    generation: u64,
}

impl KnownLogs {
    /// What is known of logs that were just looked at: how far they have come, and what had been accepted before.
    pub(crate) fn of(found: &[(String, Edge)], accepted: &[(String, Acceptance)]) -> Self {
        let mut known = Self::default();
        known.accept(accepted.to_vec());
        for (log, edge) in found {
            let generation = known.generation(log);
            known.logs.insert(log.clone(), Known { mark: edge.mark(), edge: None, generation });
        }
        known
    }

    /// How often a loss of a log had been accepted when this was known of it.
    pub(crate) fn generation(&self, log: &str) -> u64 {
        self.logs.get(log).map_or(0, |known| known.generation)
    }

    /// Puts what was accepted in the place of what was known before.
    pub(crate) fn accept(&mut self, accepted: Vec<(String, Acceptance)>) {
        for (log, Acceptance { generation, mark }) in accepted {
            let before = self.logs.insert(log, Known { mark, edge: None, generation });
            self.edges -= usize::from(before.is_some_and(|known| known.edge.is_some()));
        }
    }

    /// The state that a log had last.
    pub(crate) fn mark(&self, log: &str) -> Option<&Mark> {
        self.logs.get(log).map(|known| &known.mark)
    }

    /// The logs that are shorter than they were, by the sizes of all that there are.
    pub(crate) fn behind(&self, sizes: &HashMap<String, u64>) -> Vec<(String, Mark)> {
        let shorter = |log: &str, mark: &Mark| sizes.get(log).copied().unwrap_or_default() < mark.size;
        let behind = self.logs.iter().filter(|(log, known)| shorter(log, &known.mark));
        behind.map(|(log, known)| (log.clone(), known.mark)).collect()
    }

    /// The edge of that state.
    pub(crate) fn edge(&self, log: &str) -> Option<&Edge> {
        self.logs.get(log)?.edge.as_deref()
    }

    /// Takes edges that were proven to go on from what was known.
    pub(crate) fn learn(&mut self, edges: Vec<(String, Arc<Edge>)>) {
        if self.edges + edges.len() > MAX_EDGES {
            self.logs.values_mut().for_each(|known| known.edge = None);
            self.edges = 0;
        }
        for (log, edge) in edges {
            let generation = self.generation(&log);
            let known = Known { mark: edge.mark(), edge: Some(edge), generation };
            let before = self.logs.insert(log, known);
            self.edges += usize::from(before.is_none_or(|known| known.edge.is_none()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hash;

    #[test]
    fn edges_are_forgotten_and_marks_are_not() {
        let mut known = KnownLogs::default();
        let mut edge = Edge::default();
        edge.append([hash::leaf(b"a")]);
        let edge = Arc::new(edge);
        for n in 0..=MAX_EDGES {
            known.learn(vec![(n.to_string(), edge.clone())]);
        }
        assert_eq!((known.edge("0"), known.edge(&MAX_EDGES.to_string())), (None, Some(&*edge)));
        assert_eq!((known.mark("0"), known.edges), (Some(&edge.mark()), 1));
        known.learn(vec![("0".to_owned(), edge.clone()), ("0".to_owned(), edge)]);
        assert_eq!(known.edges, 2);
    }

    #[test]
    fn what_is_accepted_takes_the_place_of_what_was_known_and_is_gone_on_from() {
        let edge = |records: &[&[u8]]| {
            let mut edge = Edge::default();
            edge.append(records.iter().map(|record| hash::leaf(record)));
            edge
        };
        let (older, newer) = (edge(&[b"a"]), edge(&[b"a", b"b", b"c"]));
        let mut known = KnownLogs::of(&[("acme".to_owned(), newer.clone())], &[]);
        known.learn(vec![("acme".to_owned(), Arc::new(newer))]);
        let accepted = Acceptance { generation: 1, mark: older.mark() };
        known.accept(vec![("acme".to_owned(), accepted)]);
        assert_eq!((known.mark("acme"), known.edge("acme"), known.edges), (Some(&older.mark()), None, 0));
        let on = edge(&[b"a", b"d"]);
        known.learn(vec![("acme".to_owned(), Arc::new(on.clone()))]);
        assert_eq!((known.mark("acme"), known.generation("acme")), (Some(&on.mark()), 1));
        // What is found at a start is newer than what had been accepted by then.
        let known = KnownLogs::of(&[("acme".to_owned(), on.clone())], &[("acme".to_owned(), accepted)]);
        assert_eq!((known.mark("acme"), known.generation("acme")), (Some(&on.mark()), 1));
    }
}

//! Where a plan does what cannot be undone: last.

use std::collections::BTreeSet;

use super::graph;
use super::plan::{Action, Draft};

/// What cannot be undone stands after everything that may still fail and be undone, where the graph allows.
pub fn late_where_final(mut drafts: Vec<Draft>) -> Vec<Draft> {
    let steps: Vec<String> = drafts.iter().map(|draft| draft.change.step.clone()).collect();
    let at = |step: &String| steps.iter().position(|other| other == step);
    let deps: Vec<Vec<usize>> =
        drafts.iter().map(|draft| draft.change.depends_on.iter().filter_map(at).collect()).collect();
    let ancestors: Vec<BTreeSet<usize>> = (0..steps.len()).map(|i| graph::ancestors(i, &deps)).collect();
    let is_final = |draft: &Draft| draft.change.action != Action::Noop && !draft.change.undoable;
    let finals: Vec<usize> = (0..drafts.len()).filter(|i| is_final(&drafts[*i])).collect();
    for index in finals {
        let others: Vec<String> = (0..drafts.len())
            .filter(|other| *other != index && drafts[*other].change.undoable)
            .filter(|other| drafts[*other].change.action != Action::Noop)
            .filter(|other| !ancestors[*other].contains(&index))
            .map(|other| steps[other].clone())
            .collect();
        let wanted = &mut drafts[index].change.depends_on;
        wanted.extend(others.into_iter().filter(|step| !wanted.contains(step)).collect::<Vec<_>>());
    }
    let deps: Vec<Vec<String>> = drafts.iter().map(|draft| draft.change.depends_on.clone()).collect();
    match graph::topological(&steps, &deps) {
        Ok(order) => order.into_iter().filter_map(|index| drafts.get(index).cloned()).collect(),
        Err(_) => drafts,
    }
}

//! What follows from the states of an operation's steps: which may start, which are undone, and where that leaves the
//! operation. Pure: the engine applies the answer in the transaction that caused it.

use super::operation::{OperationEvent, OperationState, StepEvent, StepState};
use super::state::IllegalTransition;

/// A step as far as scheduling looks at it.
#[derive(Debug, Clone)]
pub struct StepView {
    /// Where it stands.
    pub state: StepState,
    /// Indices of the steps that come before it.
    pub depends_on: Vec<usize>,
    /// Whether it can be undone.
    pub undoable: bool,
    /// An attempt left something behind, or may have.
    pub remains: bool,
    /// Its first attempt was refused for the sake of something else: nothing was touched.
    pub refused: bool,
}

/// One thing that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// An event of the operation.
    Operation(OperationEvent),
    /// An event of the step at this index.
    Step(usize, StepEvent),
}

/// Works out everything that follows, until nothing follows any more. `state` and `steps` are left as they are after
/// all of it. `reversible` is false for deletions, which are never undone but taken up again.
pub fn settle(
    state: &mut OperationState,
    steps: &mut [StepView],
    reversible: bool,
) -> Result<Vec<Move>, IllegalTransition> {
    let mut settled = Vec::new();
    loop {
        let mut moved = Vec::new();
        let event = match *state {
            OperationState::Queued | OperationState::Running => forward(steps, &mut moved),
            OperationState::Failing | OperationState::Cancelling => {
                stop(steps, *state, reversible, &mut moved)
            }
            OperationState::Compensating => backward(steps, &mut moved),
            _ => None,
        };
        if moved.is_empty() && event.is_none() {
            return Ok(settled);
        }
        for (index, event) in moved {
            if let Some(step) = steps.get_mut(index) {
                step.state = step.state.next(event)?;
                settled.push(Move::Step(index, event));
            }
        }
        if let Some(event) = event {
            *state = state.next(event)?;
            settled.push(Move::Operation(event));
        }
    }
}

type Moved = Vec<(usize, StepEvent)>;

fn forward(steps: &[StepView], moved: &mut Moved) -> Option<OperationEvent> {
    if steps.iter().any(|step| step.state == StepState::Failed) {
        return Some(OperationEvent::Fail);
    }
    if steps.iter().all(|step| step.state == StepState::Done) {
        return Some(OperationEvent::Succeed);
    }
    for (index, step) in steps.iter().enumerate() {
        let ready = step.depends_on.iter().all(|dep| state_of(steps, *dep) == Some(StepState::Done));
        if step.state == StepState::Blocked && ready {
            moved.push((index, StepEvent::Unblock));
        }
    }
    None
}

fn stop(
    steps: &[StepView],
    state: OperationState,
    reversible: bool,
    moved: &mut Moved,
) -> Option<OperationEvent> {
    let left = |step: &StepView| step.state == StepState::Ready && step.remains;
    let begun = steps.iter().any(|step| step.state == StepState::Done || needs_undo(step));
    let held = steps.iter().any(|step| step.state.held());
    let refused = steps.iter().all(|step| step.state != StepState::Failed || step.refused);
    if !reversible && (begun || held || (state == OperationState::Failing && !refused)) {
        // What is deleted is gone: the rest waits for an operator, who takes it up or leaves it. Where the first thing
        // was refused, everything stands as before.
        return if held { None } else { Some(OperationEvent::Stick) };
    }
    for (index, step) in steps.iter().enumerate() {
        if matches!(step.state, StepState::Blocked | StepState::Ready) && !left(step) {
            moved.push((index, StepEvent::Skip));
        }
    }
    if held || !moved.is_empty() { None } else { Some(OperationEvent::Compensate) }
}

fn needs_undo(step: &StepView) -> bool {
    match step.state {
        StepState::Done => step.undoable,
        StepState::Unknown => true,
        StepState::Failed | StepState::Ready => step.remains,
        _ => false,
    }
}

fn backward(steps: &[StepView], moved: &mut Moved) -> Option<OperationEvent> {
    for (index, step) in steps.iter().enumerate() {
        if needs_undo(step) && dependents(steps, index).all(|other| !standing(other)) {
            moved.push((index, StepEvent::Undo));
        }
    }
    let active = |step: &StepView| step.state.held() || step.state == StepState::UndoReady;
    if !moved.is_empty() || steps.iter().any(active) {
        return None;
    }
    if steps.iter().any(|step| step.state == StepState::UndoStuck) {
        return Some(OperationEvent::Stick);
    }
    Some(OperationEvent::Undone)
}

/// Still there, or not yet known to be gone, so that nothing below it may go.
fn standing(step: &StepView) -> bool {
    needs_undo(step) || step.state.held() || matches!(step.state, StepState::UndoReady | StepState::UndoStuck)
}

fn dependents(steps: &[StepView], index: usize) -> impl Iterator<Item = &StepView> {
    steps.iter().filter(move |step| step.depends_on.contains(&index))
}

fn state_of(steps: &[StepView], index: usize) -> Option<StepState> {
    steps.get(index).map(|step| step.state)
}

/// How long to wait before attempt `attempt + 1`: doubles, bounded, and spread by `jitter` (0 to 1) over its upper half.
pub fn backoff(base_ms: u64, max_ms: u64, attempt: u32, jitter: f64) -> u64 {
    let doubled = base_ms.saturating_mul(1_u64 << attempt.saturating_sub(1).min(20));
    let bounded = doubled.min(max_ms);
    let half = bounded / 2;
    half + ((bounded - half) as f64 * jitter.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(state: StepState, depends_on: &[usize]) -> StepView {
        StepView { state, depends_on: depends_on.to_vec(), undoable: true, remains: false, refused: false }
    }

    fn states(steps: &[StepView]) -> Vec<StepState> {
        steps.iter().map(|step| step.state).collect()
    }

    #[test]
    fn ready_steps_are_those_whose_predecessors_are_done() {
        use StepState::*;
        let mut steps = vec![step(Done, &[]), step(Blocked, &[0]), step(Blocked, &[1])];
        let mut state = OperationState::Running;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!(states(&steps), [Done, Ready, Blocked]);
    }

    #[test]
    fn a_failure_skips_what_has_not_begun_and_undoes_in_reverse() {
        use StepState::*;
        let mut steps = vec![step(Done, &[]), step(Done, &[0]), step(Failed, &[1]), step(Blocked, &[2])];
        let mut state = OperationState::Running;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!(state, OperationState::Compensating);
        assert_eq!(states(&steps), [Done, UndoReady, Failed, Skipped]);
        steps[1].state = Undone;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!(states(&steps), [UndoReady, Undone, Failed, Skipped]);
        steps[0].state = Undone;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!(state, OperationState::Compensated);
    }

    #[test]
    fn a_running_step_is_awaited_before_undo_begins() {
        use StepState::*;
        let mut steps = vec![step(Running, &[]), step(Failed, &[])];
        let mut state = OperationState::Running;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!(state, OperationState::Failing);
        steps[0].state = Unknown;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!((state, steps[0].state), (OperationState::Compensating, UndoReady));
    }

    #[test]
    fn a_step_that_waits_for_its_next_attempt_is_undone_when_the_one_before_left_something() {
        use StepState::*;
        for (remains, after) in [(true, UndoReady), (false, Skipped)] {
            let mut steps = vec![StepView { remains, ..step(Ready, &[]) }, step(Blocked, &[0])];
            let mut state = OperationState::Cancelling;
            settle(&mut state, &mut steps, true).unwrap();
            assert_eq!((steps[0].state, steps[1].state), (after, Skipped));
            let mut steps = vec![StepView { remains, ..step(Ready, &[]) }];
            let mut state = OperationState::Cancelling;
            settle(&mut state, &mut steps, false).unwrap();
            let ended = if remains { OperationState::Stuck } else { OperationState::Compensated };
            assert_eq!(state, ended);
        }
    }

    #[test]
    fn stuck_undo_keeps_what_stands_below() {
        use StepState::*;
        let mut steps = vec![step(Done, &[]), step(UndoStuck, &[0]), step(Failed, &[1])];
        let mut state = OperationState::Compensating;
        settle(&mut state, &mut steps, true).unwrap();
        assert_eq!((state, steps[0].state), (OperationState::Stuck, Done));
    }

    #[test]
    fn a_failed_deletion_waits_for_an_operator() {
        use StepState::*;
        let mut steps = vec![step(Done, &[]), step(Failed, &[0]), step(Blocked, &[1])];
        let mut state = OperationState::Running;
        settle(&mut state, &mut steps, false).unwrap();
        assert_eq!((state, steps[2].state), (OperationState::Stuck, Blocked));
    }

    #[test]
    fn a_deletion_whose_first_step_is_refused_leaves_everything_as_it_was() {
        use StepState::*;
        for (first, other, ended) in
            [(Blocked, Skipped, OperationState::Compensated), (Done, Done, OperationState::Stuck)]
        {
            let mut steps = vec![StepView { refused: true, ..step(Failed, &[]) }, step(first, &[0])];
            let mut state = OperationState::Running;
            settle(&mut state, &mut steps, false).unwrap();
            assert_eq!((state, steps[1].state), (ended, other));
        }
    }

    #[test]
    fn what_is_not_undone_never_begins_to_be() {
        use StepState::*;
        for state in [OperationState::Failing, OperationState::Cancelling] {
            for left in [Done, Unknown, Failed, Ready] {
                let mut steps = vec![StepView { remains: true, ..step(left, &[]) }, step(Blocked, &[0])];
                let mut state = state;
                let moves = settle(&mut state, &mut steps, false).unwrap();
                assert_eq!(state, OperationState::Stuck, "{left:?}: {moves:?}");
                assert!(!moves.contains(&Move::Step(0, StepEvent::Undo)), "{left:?}: {moves:?}");
            }
        }
    }

    #[test]
    fn a_deletion_that_has_not_begun_can_be_cancelled() {
        use StepState::*;
        let mut steps = vec![step(Ready, &[]), step(Blocked, &[0])];
        let mut state = OperationState::Cancelling;
        settle(&mut state, &mut steps, false).unwrap();
        assert_eq!((state, steps[0].state), (OperationState::Compensated, Skipped));
    }

    #[test]
    fn no_steps_is_success() {
        let mut state = OperationState::Queued;
        settle(&mut state, &mut [], true).unwrap();
        assert_eq!(state, OperationState::Succeeded);
    }

    #[test]
    fn backoff_is_bounded() {
        assert_eq!(backoff(100, 1_000, 1, 1.0), 100);
        assert_eq!(backoff(100, 1_000, 3, 0.0), 200);
        assert_eq!(backoff(100, 1_000, 60, 1.0), 1_000);
    }

    proptest! {
        /// Any graph with any outcome of each step ends, and undo never leaves a dependent standing on nothing.
        #[test]
        fn every_operation_ends(
            edges in prop::collection::vec(prop::collection::vec(any::<bool>(), 8), 1..8),
            outcomes in prop::collection::vec(0_u8..4, 200),
        ) {
            use StepState::*;
            let mut steps: Vec<StepView> = edges
                .iter()
                .enumerate()
                .map(|(index, row)| step(Blocked, &(0..index).filter(|dep| row[*dep]).collect::<Vec<_>>()))
                .collect();
            let mut state = OperationState::Queued;
            let mut outcome = outcomes.into_iter();
            for _ in 0..200 {
                settle(&mut state, &mut steps, true).unwrap();
                if state.rests() {
                    break;
                }
                let Some(index) = steps.iter().position(|s| matches!(s.state, Ready | Unknown | UndoReady)) else {
                    prop_assert!(false, "nothing to do in {state}: {steps:?}");
                    return Ok(());
                };
                let result = outcome.next().unwrap_or(0);
                let held = steps[index].state.next(StepEvent::Claim).unwrap();
                let event = match (held, result) {
                    (Undoing, 3) => StepEvent::UndoFail,
                    (Undoing, _) => StepEvent::UndoSucceed,
                    (Running, 1) => StepEvent::Fail,
                    (Running, 2) => StepEvent::Lose,
                    (Observing, 1) => StepEvent::FoundAbsent,
                    _ => StepEvent::Succeed,
                };
                steps[index].state = held.next(event).unwrap();
                for (child, view) in steps.iter().enumerate() {
                    if matches!(view.state, Done | Running) {
                        for dep in &view.depends_on {
                            prop_assert!(steps[*dep].state == Done, "{child} stands on {dep}: {steps:?}");
                        }
                    }
                }
            }
            prop_assert!(state.rests(), "{state}: {steps:?}");
        }
    }
}

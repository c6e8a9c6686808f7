//! What pipelines tell of the steps of a run, as it is kept.

use serde_json::Value;
use time::OffsetDateTime;

/// The steps that a pipeline tells of, with the times (in microseconds) that its own stand for; nothing when it tells of
/// none.
pub(crate) fn timed_steps(told: &Value, now: OffsetDateTime) -> Option<Value> {
    let elapsed = told.get("elapsed_ms")?.as_i64()?;
    let begin = pavior_store::micros(now).saturating_sub(elapsed.saturating_mul(1_000));
    let mut steps = told.get("steps")?.as_array()?.clone();
    for step in steps.iter_mut().filter_map(Value::as_object_mut) {
        for (from, to) in [("start_ms", "start_time"), ("end_ms", "end_time")] {
            if let Some(at) = step.remove(from).and_then(|at| at.as_i64()) {
                step.insert(to.to_owned(), begin.saturating_add(at.saturating_mul(1_000)).into());
            }
        }
    }
    Some(steps.into())
}

/// The steps of a run that has ended: one under way ended with it, and those that had not begun are not run.
pub(crate) fn ended_steps(mut steps: Value, now: OffsetDateTime) -> Value {
    for step in steps.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        match step.get("state").and_then(Value::as_str) {
            Some("RUNNING") => {
                step.insert("state".to_owned(), "FAILED".into());
                step.insert("end_time".to_owned(), pavior_store::micros(now).into());
                step.insert("error".to_owned(), "the run was ended".into());
            }
            Some("PENDING") => drop(step.insert("state".to_owned(), "SKIPPED".into())),
            _ => {}
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_is_kept_with_its_time_and_ended_with_its_run() {
        let now = pavior_store::from_micros(1_000_000_000).unwrap();
        let told = json!({ "elapsed_ms": 500, "steps": [
            { "name": "build", "state": "SUCCEEDED", "exit_code": 0, "start_ms": 0, "end_ms": 100 },
            { "name": "test", "state": "RUNNING", "start_ms": 100 },
            { "name": "pack", "state": "PENDING" },
        ] });
        let kept = timed_steps(&told, now).unwrap();
        assert_eq!(kept[0]["start_time"], 999_500_000);
        assert_eq!(kept[0]["end_time"], 999_600_000);
        assert_eq!(timed_steps(&json!({ "name": "another driver's" }), now), None);
        let ended = ended_steps(kept, now);
        let states: Vec<&Value> = ended.as_array().unwrap().iter().map(|step| &step["state"]).collect();
        assert_eq!(states, ["SUCCEEDED", "FAILED", "SKIPPED"]);
        assert_eq!(ended[1]["end_time"], 1_000_000_000);
    }
}

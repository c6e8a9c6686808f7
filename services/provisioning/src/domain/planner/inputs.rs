//! What a planned resource is asked for: evaluated as far as it is known, with everything that stands in the way.

use pavior_core::Fault;
use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Change, Facts, MAX_DEPTH, Matched, Node, Obstacle, Reference, deeper_than, join, known_outputs,
    reads_secret, referenced, scope, step_id, taint,
};

/// The inputs of a driver; none when they cannot be evaluated, of which the obstacles tell.
pub(super) fn desired(
    facts: &Facts,
    node: &Node<'_>,
    matched: &Matched,
    base: &Value,
    changing: &BTreeSet<String>,
    run: Option<&Change>,
    obstacles: &mut Vec<Obstacle>,
) -> Option<Value> {
    let field = format!("resources.{}.inputs", node.step);
    let artifact = facts.artifact.as_ref().filter(|_| node.needs_artifact);
    let scope = scope::full(base, &known_outputs(facts, node.section), artifact);
    let unknown = |reference: &Reference| match referenced(facts, node.section, reference) {
        Some(name) => changing.contains(&step_id(&name)),
        None => reference.root() == "artifact" && run.is_some(),
    };
    let mut fail = |error: pavior_expr::ExprError| {
        obstacles.push(Obstacle {
            field: join(&field, &error.path),
            fault: Fault::Syntax,
            description: error.message,
        });
    };
    let asked = pavior_expr::evaluate_known(&node.wanted.inputs, &scope, &unknown).map_err(&mut fail).ok()?;
    let desired = scope::planned(&node.wanted.inputs, &matched.driver_inputs, &scope, &unknown);
    let desired = desired.map_err(&mut fail).ok()?;
    if deeper_than(&desired, MAX_DEPTH) {
        let description = format!("would nest deeper than {MAX_DEPTH} levels");
        obstacles.push(Obstacle { field: field.clone(), fault: Fault::TooDeep, description });
    }
    for violation in pavior_expr::schema::validate_planned(&matched.input_schema, &asked) {
        let field = join(&field, &violation.path);
        obstacles.push(Obstacle { field, fault: Fault::Schema, description: violation.message });
    }
    let secret = |reference: &Reference| reads_secret(facts, node.section, reference);
    let flows = taint::flows(&node.wanted.inputs, &matched.driver_inputs, &secret);
    for flow in flows.into_iter().filter(|flow| !flow.allowed(&matched.secret_inputs)) {
        let (secret, driver) = (&flow.secret, &matched.driver);
        obstacles.push(Obstacle {
            field: join(&field, &flow.path.join(".")),
            fault: Fault::Conflict,
            description: format!(
                "would be given a secret (`{secret}`), and driver `{driver}` takes none here"
            ),
        });
    }
    Some(desired)
}

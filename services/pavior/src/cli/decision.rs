//! What policy decided, and why.

use pavior_proto::pavior::policy::v1 as policy;

use super::args::ListArgs;
use super::client::Client;
use super::output::{self, Printer};
use super::page::list_all;

/// Lists decisions that were kept.
pub(crate) async fn list(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let all =
        list_all!(list, parent, client.access(), list_decisions, policy::ListDecisionsRequest, decisions);
    printer.list(&all, &["decision", "time", "effect", "who", "action", "resource"], |one| {
        vec![
            output::id(&one.name),
            output::time(one.create_time.as_ref()),
            output::state(one.effect().as_str_name(), "EFFECT_"),
            output::id(&one.principal),
            one.action.clone(),
            output::short(&one.resource),
        ]
    })
}

/// Shows a decision with its reasons.
pub(crate) async fn show(client: &Client, printer: Printer, decision: &str) -> anyhow::Result<()> {
    let name = client.full_name(decision, &["decisions"])?;
    let found = client.access().get_decision(policy::GetDecisionRequest { name }).await?.into_inner();
    printer.one(
        &found,
        &[
            ("decision", found.name.clone()),
            ("effect", output::state(found.effect().as_str_name(), "EFFECT_")),
            ("who", found.principal.clone()),
            ("for", found.on_behalf_of.clone()),
            ("action", found.action.clone()),
            ("resource", found.resource.clone()),
            ("stage", output::state(found.stage().as_str_name(), "STAGE_")),
            ("time", output::time(found.create_time.as_ref())),
            ("kept until", output::time(found.expire_time.as_ref())),
        ],
    )?;
    if printer.is_json() {
        return Ok(());
    }
    let said = [("decided", &found.reasons), ("warned", &found.warnings), ("tried out", &found.shadow_hits)];
    let rows = said.into_iter().flat_map(|(how, reasons)| reasons.iter().map(move |reason| row(how, reason)));
    output::say("")?;
    printer.rows(&["rule", "revision", "how", "message"], rows)
}

fn row(how: &str, reason: &policy::Reason) -> Vec<String> {
    vec![reason.rule_id.clone(), output::id(&reason.revision), how.to_owned(), reason.message.clone()]
}

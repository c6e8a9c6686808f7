//! Commands about the audit log.

use anyhow::Context as _;
use pavior_audit_verifier::{
    CheckpointStatus, Options, Report, VerifierKey, VerifyError, verify_database_with,
};
use pavior_proto::google::rpc::Code;
use pavior_proto::pavior::audit::v1 as audit;
use pavior_rpc::convert;

use super::args::{ListArgs, VerifyArgs};
use super::client::Client;
use super::exit::Exit;
use super::failure::{Ended, OrUsage as _, wrong_usage};
use super::output::{self, Printer};
use super::page::list_all;

/// Lists audit records.
pub(super) async fn list(client: &Client, printer: Printer, list: &ListArgs) -> anyhow::Result<()> {
    let parent = client.organization()?;
    let newest_first = ListArgs { order_by: "index desc".to_owned(), ..list.clone() };
    let list = if list.order_by.is_empty() { &newest_first } else { list };
    let all = list_all!(
        list,
        parent,
        client.audit(),
        list_audit_records,
        audit::ListAuditRecordsRequest,
        audit_records
    );
    if printer.is_json() {
        return printer.value(&all.iter().map(readable).collect::<anyhow::Result<_>>()?);
    }
    printer.list(&all, &["index", "time", "principal", "outcome", "action", "target"], |r| {
        let event = r.event.clone().unwrap_or_default();
        let target = event.target.as_ref().map(|target| target.name.as_str()).unwrap_or_default();
        vec![
            r.index.to_string(),
            output::time(event.event_time.as_ref()),
            who(&event.principal.unwrap_or_default()),
            event.outcome.map(|outcome| self::outcome(&outcome)).unwrap_or_default(),
            event.action,
            output::within(target),
        ]
    })
}

/// A record as JSON, with the values before and after a change as what they are: they are JSON within their bytes.
fn readable(record: &audit::AuditRecord) -> anyhow::Result<serde_json::Value> {
    let mut shown = convert::to_json(record)?;
    let change = record.event.as_ref().and_then(|event| event.change.as_ref());
    let values = change.into_iter().flat_map(|change| [("before", &change.before), ("after", &change.after)]);
    for (name, bytes) in values.filter(|(_, bytes)| !bytes.is_empty()) {
        let value: serde_json::Value = serde_json::from_slice(bytes)
            .with_context(|| format!("record {}: the values {name} are no JSON", record.index))?;
        shown["event"]["change"][name] = value;
    }
    Ok(shown)
}

/// Who acted, and for whom, if for somebody else.
pub(crate) fn who(principal: &audit::audit_event::PrincipalReference) -> String {
    let name = output::id(&principal.name);
    match principal.on_behalf_of.as_str() {
        "" => name,
        person => format!("{name} for {}", output::id(person)),
    }
}

/// How it ended, in a word: what was only planned or asked for is not taken for done.
pub(crate) fn outcome(outcome: &audit::audit_event::Outcome) -> String {
    match outcome.code() {
        Code::Ok => outcome.status().as_str_name().trim_start_matches("STATUS_").to_owned(),
        code => code.as_str_name().to_owned(),
    }
}

/// A time in microseconds of the Unix epoch, for people.
fn at(micros: i64) -> Option<String> {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()?;
    at.format(&time::format_description::well_known::Rfc3339).ok()
}

/// Says what was proved, and what was not.
fn proven(printer: Printer, report: &Report) -> anyhow::Result<()> {
    if printer.is_json() {
        let logs: Vec<_> = report
            .logs
            .iter()
            .map(|log| {
                serde_json::json!({"log": log.log, "records": log.records, "root": hex::encode(log.root), "trusted_key": log.checkpoint == CheckpointStatus::Trusted, "loss_accepted_at": log.loss_accepted.and_then(at)})
            })
            .collect();
        return printer
            .value(&serde_json::json!({"ok": true, "logs": logs, "parked": report.parked, "accepted_losses": report.accepted_losses}));
    }
    let rows = report.logs.iter().map(|log| {
        let verdict = match log.checkpoint {
            CheckpointStatus::Trusted => "ok",
            CheckpointStatus::SelfDeclared => "ok by its own key",
        };
        vec![log.log.clone(), log.records.to_string(), hex::encode(log.root), verdict.to_owned()]
    });
    let given_up = report.logs.iter().filter_map(|log| Some((&log.log, log.loss_accepted.and_then(at)?)));
    let given_up: Vec<_> = given_up.collect();
    output::say(&output::table(&["log", "records", "root", "verdict"], rows))?;
    for (log, at) in given_up {
        eprintln!(
            "log `{log}`: at {at} an operator accepted that records of it were lost; what is left holds, and only a \
             checkpoint from before (--checkpoint) shows what is missing"
        );
    }
    if report.accepted_losses > 0 {
        let lost = report.accepted_losses;
        eprintln!(
            "{lost} records are missing whose loss an operator accepted: see action `platform.restore`"
        );
    }
    if report.parked > 0 {
        eprintln!("{} events wait until their log is repaired and are no records yet", report.parked);
    }
    if report.logs.iter().any(|log| log.checkpoint == CheckpointStatus::SelfDeclared) {
        eprintln!(
            "`ok by its own key`: the key was taken from the database itself; give --key to prove that the log is the one \
             you know"
        );
    }
    Ok(())
}

/// `pavior audit verify`.
pub(super) async fn verify(printer: Printer, args: &VerifyArgs) -> anyhow::Result<()> {
    let is_file = !args.database.contains("://");
    if is_file && !std::path::Path::new(&args.database).is_file() {
        return Err(wrong_usage(format!(
            "`{}` is no file; give the audit database, for example DATA/audit.db",
            args.database
        )));
    }
    let keys = args.key.iter().map(|key| VerifierKey::parse(key)).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| wrong_usage(format!("--key: {error}")))?;
    let keys = (!keys.is_empty()).then_some(keys);
    let remembered = args
        .checkpoint
        .iter()
        .map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
        })
        .collect::<Result<Vec<_>, _>>()
        .or_usage()?;
    let options = Options { keys, remembered, indexes: args.indexes };
    match verify_database_with(&args.database, options).await {
        Ok(report) => proven(printer, &report),
        Err(VerifyError::Tampered(failure)) => {
            if printer.is_json() {
                printer.value(&serde_json::json!({
                    "ok": false,
                    "log": failure.log,
                    "firstBadIndex": failure.first_bad_index,
                    "eventId": failure.event_id,
                    "why": failure.why,
                }))?;
            }
            Err(Ended { message: format!("the audit log does not verify: {failure}"), exit: Exit::Failed }
                .into())
        }
        Err(error @ VerifyError::NotAnAuditLog { .. }) => Err(wrong_usage(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_shown_as_it_is() {
        let change = audit::audit_event::Change {
            after: br#"{"undone":[{"count":1}]}"#.to_vec(),
            request_digest: "sha256:x".to_owned(),
            ..Default::default()
        };
        let event = audit::AuditEvent { change: Some(change), ..Default::default() };
        let shown = readable(&audit::AuditRecord { event: Some(event), ..Default::default() }).unwrap();
        let wanted = serde_json::json!({"requestDigest": "sha256:x", "after": {"undone": [{"count": 1}]}});
        assert_eq!(shown["event"]["change"], wanted);
    }
}

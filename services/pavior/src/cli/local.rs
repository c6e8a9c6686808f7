//! Commands that need no server: development tokens and the verifier of the audit log.

use anyhow::Context as _;
use pavior_audit_verifier::{Options, Report, VerifierKey, VerifyError, verify_database_with};

use super::args::{ConnectionArgs, TokenArgs, VerifyArgs};
use super::failure::{Ended, OrUsage as _, exit, wrong_usage};
use super::output::{self, Printer};

/// `pavior token --dev`.
pub(crate) fn token(args: &TokenArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    if !args.dev {
        return Err(wrong_usage(
            "this makes tokens of the development issuer, whose key lies on this machine: say --dev if that is what \
             you want; elsewhere tokens come from your identity provider",
        ));
    }
    // A key made here would be one that no server trusts.
    if !crate::serve::dev_issuer_directory(&args.data).is_dir() {
        return Err(wrong_usage(format!(
            "`{}` is not the data folder of a server with the development issuer",
            args.data.display()
        )));
    }
    let organization = args.organization.as_deref().or(connection.organization.as_deref());
    let organization = organization.unwrap_or(crate::starter::ORGANIZATION);
    let lifetime = time::Duration::minutes(i64::from(args.minutes));
    output::say(&crate::quickstart::mint(&args.data, &args.subject, organization, &args.group, lifetime)?)
}

/// A time in microseconds of the Unix epoch, for people.
fn at(micros: i64) -> Option<String> {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok()?;
    at.format(&time::format_description::well_known::Rfc3339).ok()
}

/// Says what was proved, and what was not.
fn proven(printer: Printer, report: &Report, own_keys: bool) -> anyhow::Result<()> {
    if printer.is_json() {
        let logs: Vec<_> = report
            .logs
            .iter()
            .map(|log| {
                serde_json::json!({"log": log.log, "records": log.records, "root": hex::encode(log.root), "loss_accepted_at": log.loss_accepted.and_then(at)})
            })
            .collect();
        return printer
            .value(&serde_json::json!({"ok": true, "logs": logs, "parked": report.parked, "accepted_losses": report.accepted_losses}));
    }
    let rows = report
        .logs
        .iter()
        .map(|log| vec![log.log.clone(), log.records.to_string(), hex::encode(log.root), "ok".to_owned()]);
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
    if own_keys {
        eprintln!(
            "the keys are those of the database itself; give --key to prove that the log is the one you know"
        );
    }
    Ok(())
}

/// `pavior audit verify`.
pub(crate) async fn verify(printer: Printer, args: &VerifyArgs) -> anyhow::Result<()> {
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
    let own_keys = keys.is_none();
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
        Ok(report) => proven(printer, &report, own_keys),
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
            Err(Ended { message: format!("the audit log does not verify: {failure}"), code: exit::FAILED }
                .into())
        }
        Err(error) => Err(error.into()),
    }
}

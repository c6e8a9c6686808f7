//! Commands that need no server: development tokens and the verifier of the audit log.

use anyhow::Context as _;
use pavior_audit_verifier::{Options, VerifierKey, VerifyError, verify_database_with};

use super::args::{TokenArgs, VerifyArgs};
use super::failure::{Ended, exit};
use super::output::{self, Printer};

/// `pavior token --dev`.
pub(crate) fn token(args: &TokenArgs) -> anyhow::Result<()> {
    if !args.dev {
        return Err(Ended {
            message: "this makes tokens of the development issuer, whose key lies on this machine: say --dev if that \
                      is what you want; elsewhere tokens come from your identity provider"
                .to_owned(),
            code: exit::USAGE,
        }
        .into());
    }
    anyhow::ensure!(
        args.data.is_dir(),
        "`{}` is no folder; give the server's data folder",
        args.data.display()
    );
    let lifetime = time::Duration::minutes(i64::from(args.minutes));
    println!(
        "{}",
        crate::quickstart::mint(&args.data, &args.subject, &args.organization, &args.group, lifetime)?
    );
    Ok(())
}

/// `pavior audit verify`.
pub(crate) async fn verify(printer: Printer, args: &VerifyArgs) -> anyhow::Result<()> {
    let keys = args.key.iter().map(|key| VerifierKey::parse(key)).collect::<Result<Vec<_>, _>>()?;
    let keys = (!keys.is_empty()).then_some(keys);
    let own_keys = keys.is_none();
    let remembered = args
        .checkpoint
        .iter()
        .map(|path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = Options { keys, remembered, indexes: args.indexes };
    match verify_database_with(&args.database, options).await {
        Ok(report) => {
            if printer.is_json() {
                let logs: Vec<_> = report
                    .logs
                    .iter()
                    .map(|log| {
                        serde_json::json!({"log": log.log, "records": log.records, "root": hex::encode(log.root)})
                    })
                    .collect();
                return printer.value(&serde_json::json!({"ok": true, "logs": logs}));
            }
            let rows = report.logs.iter().map(|log| {
                vec![log.log.clone(), log.records.to_string(), hex::encode(log.root), "ok".to_owned()]
            });
            println!("{}", output::table(&["log", "records", "root", "verdict"], rows));
            if own_keys {
                eprintln!(
                    "the keys are those of the database itself; give --key to prove that the log is the one you know"
                );
            }
            Ok(())
        }
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
            Err(Ended {
                message: format!("error: the audit log does not verify: {failure}"),
                code: exit::FAILED,
            }
            .into())
        }
        Err(error) => Err(error.into()),
    }
}

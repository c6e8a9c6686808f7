//! A database that was set back to an older copy, and what is lost with that.

use super::super::args::ConfigArgs;
use super::Report;
use crate::serve::{Config, divergences};

/// Looks whether a restore is waited for, and says so in one finding for each database. A running platform says itself
/// that it refuses changes; one that does not answer may have been kept from starting by an older copy.
pub(super) async fn is_waited_for(report: &mut Report, config: &Config, args: &ConfigArgs) -> bool {
    let refusing = std::mem::take(&mut report.refusing);
    if refusing.is_empty() && !report.silent {
        return false;
    }
    let looked = divergences(config).await;
    // Beside a platform that may run no log is read whole, and nothing that it would go on with is looked for.
    let unlooked = |report: &mut Report| {
        let what = "there may be more than what is named under `restore`: the logs are not compared with their checkpoints \
                    here, nor is it looked for what an older copy would go on with";
        let advice =
            format!("`{}` lists all of it, once the platform is stopped", args.command("restore --dry-run"));
        report.unchecked("audit", what, advice);
    };
    if let Some(found) = looked.as_ref().ok().filter(|found| !found.is_empty()) {
        for (what, remedy) in found {
            report.problem("restore", what, advice(remedy, args));
        }
        unlooked(report);
        return true;
    }
    // Of a platform that does not answer it is not known that there is something to restore.
    if refusing.is_empty() {
        return false;
    }
    for what in refusing {
        report.problem("restore", what, format!("the command is `{}`", args.command("restore")));
    }
    if let Err(error) = looked {
        let advice = format!("`{}` lists it where the databases are", args.command("restore --dry-run"));
        report.unchecked("restore", format!("what is lost is not listed: {error:#}"), advice);
    }
    true
}

/// The remedy as a command with the configuration that this one was given.
fn advice(remedy: &str, args: &ConfigArgs) -> String {
    remedy.replace("pavior restore", &args.command("restore"))
}

#[cfg(test)]
mod tests {
    use pavior_store::outbox::Difference;

    use super::*;

    #[test]
    fn the_advice_is_one_line_with_the_command_to_copy() {
        let args = ConfigArgs { config: Some("/srv/pavior.toml".into()), set: Vec::new() };
        let behind = Difference::Behind { epoch: 5, last: 3, recorded: 9 }.of("catalog");
        assert_eq!(
            advice(behind.remedy(), &args),
            "stop the platform, run `pavior restore --config /srv/pavior.toml`, and start the platform"
        );
        let log = Difference::LogBehind { epoch: 5, delivered: 9, recorded: 3 }.of("catalog");
        let said = advice(log.remedy(), &args);
        let command = "`pavior restore --config /srv/pavior.toml --accept-lost-records --reason \"...\"`";
        assert!(said.contains(command) && !said.contains('\n'), "{said}");
    }
}

//! What is said at the terminal of how a process stands after its start.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use pavior_runtime::{Cause, Readiness, Report};

use super::role::Role;

/// What an older copy of provisioning declares may long have been changed or removed.
const WITHOUT_PROVISIONING: &str =
    "\n  until then no operation goes on, no environment expires, and no workload is started";

/// How a process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Ready,
    /// Changes are refused until an operator has acted: why, by role.
    Refuses(Vec<(String, String)>),
    /// Not yet: something is not checked, or not met.
    Waits,
}

impl Standing {
    fn of(report: &Report) -> Self {
        if report.ready {
            return Self::Ready;
        }
        let waits = report.conditions.values().filter(|c| c.cause == Some(Cause::RestoreNeeded));
        let restores: Vec<_> = waits.filter_map(|c| Some((c.role.clone(), c.reason.clone()?))).collect();
        if restores.is_empty() { Self::Waits } else { Self::Refuses(restores) }
    }

    fn describe(&self, admin: SocketAddr, restore: &str) -> String {
        match self {
            Self::Ready => "pavior is ready".to_owned(),
            Self::Waits => format!("pavior has started: http://{admin}/readyz says when it is ready"),
            Self::Refuses(restores) => {
                let mut out = "pavior answers reads and refuses changes".to_owned();
                // Rights may be older than they seem with these two, so that no change is allowed to anybody.
                let of_all = [Role::Catalog.name(), Role::Policy.name()];
                if !restores.iter().any(|(role, _)| of_all.contains(&role.as_str())) {
                    let roles: BTreeSet<&str> = restores.iter().map(|(role, _)| role.as_str()).collect();
                    let _ = write!(out, " of {}", roles.into_iter().collect::<Vec<_>>().join(" and "));
                }
                out.push_str(" until a restore");
                for (role, reason) in restores {
                    let _ = write!(out, "\n  {role}: {reason}");
                }
                if restores.iter().any(|(role, _)| role == Role::Provisioning.name()) {
                    out.push_str(WITHOUT_PROVISIONING);
                }
                out + &format!("\n  what was lost: {restore} --dry-run, once this is stopped")
            }
        }
    }
}

/// Says how the process stands, and says so again when that changes, until it is ready. `restore` is the command with the
/// configuration of this process.
pub(super) async fn announce(readiness: Readiness, admin: SocketAddr, restore: String) {
    let mut said = None;
    loop {
        let is_news = |report: &Report| said.as_ref() != Some(&Standing::of(report));
        let now = Standing::of(&readiness.wait_for(is_news).await);
        eprintln!("{}", now.describe(admin, &restore));
        if now == Standing::Ready {
            return;
        }
        said = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use pavior_runtime::{Condition, Severity, Unmet};
    use pavior_store::outbox::{Apart, Difference};

    use super::*;

    fn report(conditions: &[(&str, Option<Unmet>)]) -> Report {
        let mut report = Report::default();
        for (role, unmet) in conditions {
            let (role, name) = ((*role).to_owned(), "outbox".to_owned());
            let condition = Condition {
                role: role.clone(),
                name: name.clone(),
                severity: Severity::Blocks,
                reason: unmet.as_ref().map(|unmet| unmet.reason.clone()),
                cause: unmet.as_ref().map(|unmet| unmet.cause),
            };
            report.conditions.insert((role, name), condition);
        }
        report.ready = conditions.iter().all(|(_, unmet)| unmet.is_none());
        report
    }

    #[test]
    fn it_is_called_ready_only_when_it_is() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 7411));
        let said = |conditions: &[_]| {
            Standing::of(&report(conditions)).describe(admin, "pavior restore --config p.toml")
        };
        assert_eq!(said(&[("catalog", None)]), "pavior is ready");
        let waits = ("gateway", Some(Unmet::because(Cause::NotChecked, "not checked yet")));
        let text = said(std::slice::from_ref(&waits));
        assert_eq!(text, "pavior has started: http://127.0.0.1:7411/readyz says when it is ready");
        let refuses = |role: &'static str, how: Difference| {
            let apart: Apart = how.of(role);
            (role, Some(Unmet::because(Cause::RestoreNeeded, format!("{apart}; {}", apart.remedy()))))
        };
        let behind = Difference::Behind { epoch: 5, last: 3, recorded: 9 };
        // What is said of a command is no cause.
        let other = ("audit", Some(Unmet::from("see `pavior restore`".to_owned())));
        assert!(said(&[other]).starts_with("pavior has started"));
        let text = said(&[waits.clone(), refuses("catalog", behind.clone())]);
        for part in [
            "refuses changes until a restore",
            "\n  catalog: the audit log has 9",
            "restore --config p.toml --dry-run",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("is ready") && !text.contains("workload"), "{text}");
        let text = said(&[refuses("provisioning", behind)]);
        assert!(text.contains("no workload is started"), "{text}");
        assert!(text.contains("refuses changes of provisioning until a restore"), "{text}");
        let log = Difference::LogBehind { epoch: 5, delivered: 9, recorded: 3 };
        assert!(said(&[refuses("policy", log)]).contains("--accept-lost-records --reason"));
    }
}

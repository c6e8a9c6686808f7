//! Several logs of an older audit database: `pavior restore` goes on from all of them in one run.

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply;
use pavior::serve::{DEV_OPERATOR, System};
use pavior_proto::pavior::audit::v1 as audit;

use crate::site::{ACCEPT, Site, source};

async fn logs_set_back(postgres: bool) -> Result<()> {
    let Some(mut site) = Site::new(postgres).await? else { return Ok(()) };
    let make =
        |name: &str| source(&format!("type: identity.pavior.dev/Organization\nname: organizations/{name}\n"));
    let system = site.start().await?;
    let operator = site.person(&system, DEV_OPERATOR)?;
    apply::apply(&operator, &[make("globex"), make("initech")], |_, _| {}).await?;
    let groups = |n: usize| {
        ["acme", "globex", "initech"].map(|organization| {
            source(&format!(
                "type: identity.pavior.dev/Group\nname: organizations/{organization}/groups/note-{n}\n"
            ))
        })
    };
    let recorded = async |system: &System, n: usize| -> Result<()> {
        let operator = site.person(system, DEV_OPERATOR)?;
        apply::apply(&operator, &groups(n), |_, _| {}).await?;
        for log in ["acme", "globex", "initech"] {
            let filter = format!(
                "event.target.name = \"organizations/{log}/groups/note-{n}\" AND event.outcome.status = SUCCEEDED"
            );
            site.wait_for_record(system, log, &filter).await?;
        }
        Ok(())
    };
    recorded(&system, 1).await?;
    system.stop().await?;
    let copy = site.databases.get("audit").context("a database")?.copy().await;
    let system = site.start().await?;
    recorded(&system, 2).await?;
    system.stop().await?;
    site.databases.insert("audit", copy);

    let (output, said) = site.restore(&ACCEPT)?;
    ensure!(output.status.success(), "{output:?}");
    let findings = said["findings"].as_array().context("findings")?;
    for log in ["acme", "globex", "initech"] {
        let found = findings.iter().find(|found| found["detail"]["log"] == log).context("a log")?;
        ensure!(found["done"] == true, "{found}");
        let what = found["finding"].as_str().context("a finding")?;
        ensure!(what.contains("records, but") && what.contains("its database is older"), "{what}");
    }
    let (output, said) = site.restore(&["--dry-run"])?;
    ensure!(output.status.success() && said["findings"] == serde_json::json!([]), "{output:?}");
    let system = site.start().await?;
    site.change(&system, 3).await?;
    for log in ["acme", "globex", "initech"] {
        let told = site.records(&system, log, "event.action = \"platform.restore\"").await?;
        let about = |record: &&audit::AuditRecord| {
            record.event.as_ref().is_some_and(|event| event.summary.contains("were signed"))
        };
        ensure!(told.iter().filter(about).count() == 1, "{log}: {told:?}");
    }
    system.stop().await?;
    site.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_set_back_on_sqlite() -> Result<()> {
    logs_set_back(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_set_back_on_postgres() -> Result<()> {
    logs_set_back(true).await
}

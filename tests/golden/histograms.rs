//! The bounds of every histogram of the running system, and the unit that its name ends with.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use pavior_tests::Processes;

use crate::golden;

/// The bounds by the name of the histogram, from the text of `/metrics`.
fn bounds(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
        .map(|name| (name.to_owned(), Vec::new()))
        .collect();
    for line in text.lines() {
        let Some((name, labels)) = line.split_once("_bucket{") else { continue };
        let bound = labels.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
        if let (Some(bounds), Some((bound, _))) = (found.get_mut(name), bound)
            && !bounds.iter().any(|known| known == bound)
        {
            bounds.push(bound.to_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn histograms_have_bounds_of_their_unit() -> Result<()> {
    let system = Processes::whole().await?;
    let text = reqwest::get(format!("http://{}/metrics", system.address("admin")?)).await?.text().await?;
    let found = bounds(&text);
    ensure!(found.keys().any(|name| name == "rpc_server_call_duration_seconds"), "{found:?}");
    let lines: Vec<String> =
        found.iter().map(|(name, bounds)| format!("{name}: {}", bounds.join(" "))).collect();
    golden::assert_same("histograms.txt", &lines.join("\n"));
    Ok(())
}

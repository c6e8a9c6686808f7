//! What the commands say and how they end, against a running system.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use pavior_tests::{Processes, binary};
use serde_json::Value;

/// A golden path that makes a catalog entry and what a pipeline needs and, in an environment, nothing.
const TINY: &str = r#"
template: tiny
version: 1.0.0
parameters:
  type: object
  properties:
    colour: { type: string, default: red }
    size: { type: integer, default: 1 }
project:
  entry:
    type: catalog-entity
    inputs: { kind: component, id: "${{ project.id }}", spec: { type: service, lifecycle: production } }
  repository:
    type: git-repository
    inputs: { skeleton: web-service/python, parameters: { name: "${{ project.id }}" } }
  pipeline:
    type: ci-pipeline
    inputs:
      repository: "${{ resources.repository.name }}"
      steps: [{ name: make, run: "mkdir site && echo page > site/index.html && echo built > app" }]
      artifacts: [{ name: app, path: app }, { name: site, path: site }]
environments:
  staging:
    resources: {}
"#;

/// A terminal of a person at the system.
struct Terminal<'a> {
    system: &'a Processes,
    home: tempfile::TempDir,
    token: String,
}

/// How a command ended and what it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl<'a> Terminal<'a> {
    fn new(system: &'a Processes, person: &str) -> Result<Self> {
        let home = pavior_files::temporary_directory("pavior-e2e-")?;
        let mut terminal = Self { system, home, token: String::new() };
        let said = terminal.token(person)?;
        ensure!(said.code == Some(0), "{said:?}");
        terminal.token = said.out.trim().to_owned();
        Ok(terminal)
    }

    fn token(&self, person: &str) -> Result<Said> {
        let data = self.system.data().display().to_string();
        self.run(&["token", "--dev", "--as", person, "--data", &data])
    }

    fn run(&self, args: &[&str]) -> Result<Said> {
        let Output { status, stdout, stderr } = Command::new(binary()?)
            .args(args)
            .env("PAVIOR_SERVER", format!("http://{}", self.system.address("gateway")?))
            .env("PAVIOR_ORGANIZATION", "acme")
            .env("PAVIOR_TOKEN", &self.token)
            .env("XDG_CONFIG_HOME", self.home.path())
            .output()?;
        Ok(Said { code: status.code(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
    }

    /// A command that ends well; what it prints.
    fn does(&self, args: &[&str]) -> Result<String> {
        let said = self.run(args)?;
        ensure!(said.code == Some(0), "{args:?}: {said:?}");
        Ok(said.out)
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        let all = [&["-o", "json"], args].concat();
        serde_json::from_str(&self.does(&all)?).with_context(|| format!("{args:?}"))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_happened_and_end_accordingly() -> Result<()> {
    let system = Processes::whole().await?;
    let pia = Terminal::new(&system, "pia")?;
    let alice = Terminal::new(&system, "alice")?;
    unknown_users_get_no_token(&alice)?;
    channels_go_forward_only(&pia)?;
    environments_are_changed(&alice)?;
    plans_are_kept_and_listed(&alice)?;
    what_runs_made_is_downloaded(&alice, &Terminal::new(&system, "vera")?)?;
    projects_are_described_and_fleets_listed(&alice, &pia)?;
    what_stands_in_the_way_is_named(&alice)?;
    Ok(())
}

fn unknown_users_get_no_token(alice: &Terminal<'_>) -> Result<()> {
    let said = alice.token("alcie")?;
    let wanted = "error: `acme` has no user `alcie`; it has alice, bob, pia, vera. A user whom only an identity \
                  provider knows needs --group\n";
    ensure!((said.code, said.err.as_str()) == (Some(2), wanted), "{said:?}");
    ensure!(said.out.is_empty(), "{said:?}");
    Ok(())
}

/// Where the channel `stable` of the golden path points, if there is one.
fn stable(pia: &Terminal<'_>) -> Result<Value> {
    let listed = pia.json(&["template", "list"])?;
    let tiny = listed.as_array().into_iter().flatten().find(|one| one["displayName"] == "tiny");
    Ok(tiny.context("the golden path")?["channels"]["stable"]["templateVersion"].clone())
}

fn channels_go_forward_only(pia: &Terminal<'_>) -> Result<()> {
    let name = "organizations/acme/templates/tiny/versions";
    let old = pia.write("tiny-1.yaml", TINY)?;
    let new = pia.write("tiny-2.yaml", &TINY.replace("version: 1.0.0", "version: 1.1.0"))?;
    let publish = |file: &PathBuf| pia.does(&["template", "publish", path(file)?]);
    let said = publish(&new)?;
    ensure!(said == format!("{name}/1.1.0: created\nstable: points at tiny@1.1.0\n"), "{said}");
    for change in ["created", "unchanged"] {
        let said = publish(&old)?;
        let wanted = format!(
            "{name}/1.0.0: {change}\nstable: stays at 1.1.0, which is newer; to point it back: pavior template channel \
             tiny@1.0.0 stable\n"
        );
        ensure!(said == wanted, "{said}");
    }
    pia.does(&["template", "channel", "tiny@1.0.0", "stable"])?;
    let apply = ["apply", "-f", path(&old)?, "-f", path(&new)?];
    pia.does(&apply)?;
    ensure!(stable(pia)? == format!("{name}/1.0.0"), "apply moved a channel that somebody had moved");
    let said = pia.does(&["template", "remove-channel", "tiny", "stable"])?;
    ensure!(said == "stable: removed\n", "{said}");
    let said = pia.does(&["template", "remove-channel", "tiny", "stable", "--allow-missing"])?;
    ensure!(said == "stable: there was none\n", "{said}");
    pia.does(&apply)?;
    ensure!(stable(pia)? == format!("{name}/1.1.0"), "{}", stable(pia)?);
    let said = publish(&new)?;
    ensure!(said == format!("{name}/1.1.0: unchanged\nstable: pointed at tiny@1.1.0 already\n"), "{said}");
    Ok(())
}

fn environments_are_changed(alice: &Terminal<'_>) -> Result<()> {
    let create = ["project", "create", "small", "--template", "tiny", "--owner", "storefront", "--no-wait"];
    let begun = alice.json(&create)?;
    let operation = begun["name"].as_str().context("an operation")?;
    alice.does(&["op", "wait", operation, "--timeout", "60"])?;
    alice.does(&["env", "create", "small/staging", "-p", "colour=blue", "-p", "size=3"])?;
    alice.does(&[
        "env",
        "update",
        "small/staging",
        "-p",
        "size=4",
        "--unset",
        "colour",
        "--ttl-minutes",
        "90",
    ])?;
    let changed = alice.json(&["env", "show", "small/staging"])?;
    ensure!(changed["parameters"] == serde_json::json!({ "size": 4.0 }), "{changed:#}");
    ensure!(changed["expireTime"].is_string(), "{changed:#}");
    alice.does(&["env", "update", "small/staging", "--no-expiry", "--display-name", "For trying out"])?;
    let changed = alice.json(&["env", "show", "small/staging"])?;
    ensure!(changed["expireTime"].is_null() && changed["displayName"] == "For trying out", "{changed:#}");
    ensure!(changed["parameters"] == serde_json::json!({ "size": 4.0 }), "{changed:#}");
    let said = alice.run(&["env", "update", "small/staging", "--unset", "colour"])?;
    ensure!(
        (said.code, said.err.as_str()) == (Some(2), "error: --unset colour: it is not set here\n"),
        "{said:?}"
    );
    let resource = alice.does(&["resource", "show", "small/entry"])?;
    ensure!(resource.contains("organizations/acme/projects/small/resources/entry"), "{resource}");
    let allowed = alice.does(&["allowed", "projects/small"])?;
    ensure!(allowed.contains("provisioning.environments.create"), "{allowed}");
    Ok(())
}

fn plans_are_kept_and_listed(alice: &Terminal<'_>) -> Result<()> {
    let id = pavior::cli::client::request_id();
    let keep = ["plan", "update-env", "small/staging", "-p", "size=5", "--keep", "--request-id", &id];
    let plan = alice.json(&keep)?;
    ensure!(alice.json(&keep)?["name"] == plan["name"], "a repeated request keeps another plan");
    let listed = alice.json(&["plan", "list"])?;
    let mut names = listed.as_array().into_iter().flatten().map(|plan| &plan["name"]);
    ensure!(names.any(|name| *name == plan["name"]), "{listed:#}");
    alice.does(&["plan", "execute", plan["name"].as_str().context("a name")?])?;
    let changed = alice.json(&["env", "show", "small/staging"])?;
    ensure!(changed["parameters"] == serde_json::json!({ "size": 5.0 }), "{changed:#}");
    let said = alice.run(&["plan", "promote", "small", "--from", "staging", "--to", "staging"])?;
    let nothing = "error: nothing runs in `organizations/acme/projects/small/environments/staging`: deploy to it first\n";
    ensure!((said.code, said.err.as_str()) == (Some(5), nothing), "{said:?}");
    Ok(())
}

fn what_runs_made_is_downloaded(alice: &Terminal<'_>, vera: &Terminal<'_>) -> Result<()> {
    alice.does(&["run", "small"])?;
    let listed = alice.json(&["artifact", "list", "small/run-1"])?;
    let ids: Vec<&Value> = listed.as_array().into_iter().flatten().map(|made| &made["artifactId"]).collect();
    ensure!(ids == ["app", "site"], "{listed:#}");
    let (app, site) = (alice.home.path().join("app"), alice.home.path().join("site.tar"));
    let download = ["artifact", "download", "small/pipeline/run-1", "app", "--to", path(&app)?];
    let said = alice.json(&download)?;
    ensure!(said["digest"] == listed[0]["digest"] && said["bytes"] == 6, "{said:#}");
    ensure!(std::fs::read_to_string(&app)? == "built\n", "another file");
    let said = alice.run(&download)?;
    let exists = format!("error: `{}` exists already: name another file with --to\n", app.display());
    ensure!((said.code, said.err.as_str()) == (Some(2), exists.as_str()), "{said:?}");
    alice.does(&["artifact", "download", "small/run-1", "site", "--to", path(&site)?])?;
    let tar = Command::new("tar").args(["-xOf", path(&site)?, "index.html"]).output()?;
    ensure!(tar.stdout == b"page\n", "{tar:?}");
    let said = alice.run(&["artifact", "download", "small/run-1", "apq", "--to", "unused"])?;
    ensure!(said.code == Some(2) && said.err.contains("which has `app`, `site`"), "{said:?}");
    // Whoever owns the project may have what its runs made; everybody else sees that there is something.
    vera.does(&["artifact", "list", "small/run-1"])?;
    let said = vera.run(&["artifact", "download", "small/run-1", "app", "--to", "unused"])?;
    ensure!(said.code == Some(3) && said.err.contains("provisioning.artifacts.download"), "{said:?}");
    Ok(())
}

fn projects_are_described_and_fleets_listed(alice: &Terminal<'_>, pia: &Terminal<'_>) -> Result<()> {
    // Labels are what guardrails read: those who look after them change them.
    let said = alice.run(&["project", "update", "small", "--label", "tier=1"])?;
    ensure!(said.code == Some(3) && said.err.contains("provisioning.projects.update"), "{said:?}");
    let label = ["project", "update", "small", "--label", "tier=1", "--label", "cost.centre=7"];
    pia.does(&label)?;
    let named = ["--display-name", "Small one", "--unset-label", "tier"];
    let changed = pia.json(&[&["project", "update", "small"], &named[..]].concat())?;
    ensure!(changed["displayName"] == "Small one", "{changed:#}");
    ensure!(changed["labels"] == serde_json::json!({ "cost.centre": "7" }), "{changed:#}");
    let said = alice.run(&["project", "update", "small"])?;
    ensure!(said.code == Some(2) && said.err.contains("--display-name"), "{said:?}");
    for (listed, name) in [
        (&["env", "list"][..], "small/staging"),
        (&["runs"], "small/pipeline/run-1"),
        (&["runs", "small"], "small/pipeline/run-1"),
        (&["resource", "list", "-"], "small/repository"),
    ] {
        let said = alice.does(listed)?;
        ensure!(said.contains(name), "{listed:?}: {said}");
    }
    let said = alice.run(&["deployments"])?;
    ensure!((said.code, said.err.as_str()) == (Some(0), "nothing to show\n"), "{said:?}");
    Ok(())
}

fn what_stands_in_the_way_is_named(alice: &Terminal<'_>) -> Result<()> {
    let said = alice.run(&["project", "delete", "small"])?;
    let named = "\n  needed by:\n    organizations/acme/projects/small/environments/staging\n";
    ensure!(said.code == Some(5) && said.err.contains(named), "{said:?}");
    let ended = alice.does(&["project", "delete", "small", "--force"])?;
    ensure!(ended.contains("succeeded"), "{ended}");
    let said = alice.run(&["project", "show", "small"])?;
    ensure!(said.code == Some(4), "{said:?}");
    Ok(())
}

//! `pavior driver test`: the conformance kit against a driver that runs.

use std::sync::Arc;

use anyhow::Context as _;
use pavior_driver::conformance::{self, Case, Report, Subject};
use pavior_driver::{Driver, SecretString};
use pavior_driver_grpc::{RemoteDriver, RemoteOptions};
use pavior_rpc::ClientTls;
use serde_json::{Value, json};

use super::args::{ConnectionArgs, DriverTestArgs};
use super::client::request_id;
use super::exit::Exit;
use super::failure::{Ended, OrUsage as _, wrong_usage};
use super::output::{self, Printer};

/// Stands for the name of a check in the inputs, so that each works on things of its own.
const CASE: &str = "{case}";

pub(crate) async fn test(
    printer: Printer,
    connection: &ConnectionArgs,
    args: &DriverTestArgs,
) -> anyhow::Result<()> {
    let tls = match &connection.ca_file {
        Some(path) => {
            let ca_pem = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()));
            Some(ClientTls { ca_pem: ca_pem.or_usage()?, identity: None, domain: None })
        }
        None => None,
    };
    // The kit has to see what the driver lets through.
    let options = RemoteOptions { redact: false, ..RemoteOptions::default() };
    let driver = RemoteDriver::connect_endpoint(&args.endpoint, tls, options).await.map_err(|error| {
        let message = format!("no driver at `{}`: {error}", args.endpoint);
        Ended { message, exit: Exit::Unavailable }
    })?;
    let report = conformance::run(&subject(Arc::new(driver), args)?).await;
    show(printer, &report)?;
    match report.failures().len() {
        0 => Ok(()),
        failed => {
            let message =
                format!("the driver breaks its contract in {failed} of {} checks", report.checks.len());
            Err(Ended { message, exit: Exit::Failed }.into())
        }
    }
}

fn subject(driver: Arc<dyn Driver>, args: &DriverTestArgs) -> anyhow::Result<Subject> {
    let known: Vec<String> = driver.info().types.into_iter().map(|schema| schema.id).collect();
    if !known.contains(&args.resource_type) {
        let text = format!("the driver makes no `{}`, but {}", args.resource_type, known.join(", "));
        return Err(wrong_usage(text));
    }
    let read = |flag: &str, text: &str| {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| wrong_usage(format!("{flag} is not JSON: {error}")))?;
        anyhow::Ok(value)
    };
    let inputs = read("--inputs", &args.inputs)?;
    if filled(&inputs, "a") == filled(&inputs, "b") {
        return Err(wrong_usage(format!(
            "--inputs must hold `{CASE}` in a text: the kit makes several things beside each other"
        )));
    }
    let changed = args.changed.as_deref().map(|text| read("--changed", text)).transpose()?;
    let failing = args.failing.as_deref().map(|text| read("--failing", text)).transpose()?;
    // A driver remembers what it has seen of keys and of things, and may be tested many times.
    let run = format!("kit-{}", request_id());
    let secrets = args.secret.clone();
    Ok(Subject {
        driver,
        resource_type: args.resource_type.clone(),
        run: run.clone(),
        organization: "conformance".to_owned(),
        case: Box::new(move |name| Case {
            resource: format!("organizations/conformance/projects/{run}/resources/{name}"),
            inputs: filled(&inputs, name),
            changed: changed.as_ref().map(|inputs| filled(inputs, name)),
            failing: failing.as_ref().map(|inputs| filled(inputs, name)),
            sensitive: secrets.iter().map(|text| SecretString::from(text.as_str())).collect(),
        }),
    })
}

/// Inputs with the name of the check in the place of [`CASE`].
fn filled(value: &Value, name: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace(CASE, name)),
        Value::Array(items) => items.iter().map(|item| filled(item, name)).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, item)| (key.clone(), filled(item, name))).collect())
        }
        other => other.clone(),
    }
}

fn show(printer: Printer, report: &Report) -> anyhow::Result<()> {
    let checks = report.checks.iter().map(|(name, result)| (*name, result.as_ref().err()));
    if printer.is_json() {
        let checks: Vec<Value> =
            checks.map(|(name, why)| json!({ "check": name, "ok": why.is_none(), "why": why })).collect();
        return printer.value(&Value::Array(checks));
    }
    let rows = checks.map(|(name, why)| {
        let verdict = if why.is_none() { "ok" } else { "FAIL" };
        vec![name.to_owned(), verdict.to_owned(), why.cloned().unwrap_or_default()]
    });
    output::say(&output::table(&["check", "verdict", "why"], rows))
}

#[cfg(test)]
mod tests {
    use pavior_driver::testing::FakeDriver;

    use super::*;

    fn arguments(inputs: &str) -> DriverTestArgs {
        DriverTestArgs {
            endpoint: String::new(),
            resource_type: "thing".to_owned(),
            inputs: inputs.to_owned(),
            changed: Some(r#"{"name": "{case}", "size": 2}"#.to_owned()),
            failing: None,
            secret: Vec::new(),
        }
    }

    fn refusal(args: &DriverTestArgs) -> String {
        let driver = Arc::new(FakeDriver::new("fake", &["thing"]));
        let error = subject(driver, args).unwrap_err();
        assert_eq!(error.downcast_ref::<Ended>().unwrap().exit, Exit::Usage);
        error.to_string()
    }

    #[tokio::test]
    async fn the_kit_works_on_things_of_its_own() {
        let driver = FakeDriver::new("fake", &["thing"]);
        let args = arguments(r#"{"name": "{case}", "nested": ["x-{case}"]}"#);
        let subject = subject(Arc::new(driver.clone()), &args).unwrap();
        assert_eq!((subject.case)("plan").inputs, json!({ "name": "plan", "nested": ["x-plan"] }));
        conformance::run(&subject).await.assert();
        // And once more against the same driver.
        let again = super::subject(Arc::new(driver.clone()), &args).unwrap();
        conformance::run(&again).await.assert();
        assert!(driver.live().is_empty());
    }

    #[test]
    fn what_the_kit_cannot_work_with_is_refused() {
        assert!(refusal(&arguments("{")).starts_with("--inputs is not JSON"));
        assert!(refusal(&arguments(r#"{"name": "same"}"#)).contains("must hold `{case}`"));
        let other = DriverTestArgs { resource_type: "other".to_owned(), ..arguments(r#"{"a": "{case}"}"#) };
        assert_eq!(refusal(&other), "the driver makes no `other`, but thing");
    }
}

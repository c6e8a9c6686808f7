//! The platform over HTTP with JSON: curl does the main job, and nonsense is refused at every path.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::client::request_id;
use pavior_tests::Embedded;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

/// The longest that an operation may take.
const LIMIT: Duration = Duration::from_secs(180);
const PROJECT: &str = "organizations/acme/projects/shop";

/// Somebody with curl.
struct Curl {
    server: String,
    token: String,
}

impl Curl {
    fn new(system: &Embedded, name: &str) -> Result<Self> {
        let token = pavior::quickstart::mint(system.data(), name, "acme", &[], time::Duration::hours(1))?;
        Ok(Self { server: system.system().server(), token })
    }

    /// What curl prints, with the code of the answer.
    async fn run(
        &self,
        verb: &str,
        path: &str,
        headers: &[&str],
        body: Option<&Value>,
    ) -> Result<(u16, String)> {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "--max-time", "170", "-w", "\n%{http_code}", "-X", verb]);
        command.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        command.args(headers.iter().flat_map(|header| ["-H", header]));
        if body.is_some() {
            command.args(["-H", "Content-Type: application/json", "--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.server)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().context("curl is not there")?;
        let mut input = child.stdin.take().context("no input")?;
        input.write_all(body.map(Value::to_string).unwrap_or_default().as_bytes()).await?;
        drop(input);
        let output = child.wait_with_output().await?;
        ensure!(output.status.success(), "curl {verb} {path}: {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let (text, code) = text.rsplit_once('\n').context("no code")?;
        Ok((code.parse()?, text.to_owned()))
    }

    async fn call(&self, verb: &str, path: &str, body: Option<Value>) -> Result<Value> {
        let (code, text) = self.run(verb, path, &[], body.as_ref()).await?;
        ensure!(code == 200, "{verb} {path}: {code} {text}");
        serde_json::from_str(&text).with_context(|| text)
    }

    /// A refusal: its code, and the reason in its details.
    async fn refused(&self, verb: &str, path: &str, body: Option<Value>) -> Result<(u16, String)> {
        let (code, text) = self.run(verb, path, &[], body.as_ref()).await?;
        let json: Value = serde_json::from_str(&text).with_context(|| text)?;
        Ok((code, reason(&json)))
    }

    /// Waits until an operation is as wanted.
    async fn until(&self, operation: &Value, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let name = operation["name"].as_str().context("no name")?;
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let body = json!({ "timeout": "0.5s" });
            let operation = self.call("POST", &format!("/v1/{name}:wait"), Some(body)).await?;
            if wanted(&operation) {
                return Ok(operation);
            }
            ensure!(tokio::time::Instant::now() < deadline, "{operation}");
        }
    }

    async fn finish(&self, operation: &Value) -> Result<Value> {
        let ended = self.until(operation, rests).await?;
        ensure!(ended["done"] == true && ended.get("error").is_none(), "{ended}");
        Ok(ended)
    }
}

/// Whether nothing more happens to an operation by itself.
fn rests(operation: &Value) -> bool {
    operation["done"] == true || operation["metadata"]["state"] == "STATE_STUCK"
}

fn reason(json: &Value) -> String {
    let details = json["details"].as_array().cloned().unwrap_or_default();
    let info = details.iter().find(|one| one["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
    info.and_then(|info| info["reason"].as_str()).unwrap_or_default().to_owned()
}

fn create(more: &str) -> String {
    format!("/v1/organizations/acme/projects?projectId=shop&requestId={}{more}", request_id())
}

fn project() -> Value {
    json!({
        "owner": "organizations/acme/groups/storefront",
        "templateVersion": "organizations/acme/templates/web-service/versions/stable",
        "parameters": { "language": "python" },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_does_the_main_job() -> Result<()> {
    let system = Embedded::start().await?;
    let (alice, pia) = (Curl::new(&system, "alice")?, Curl::new(&system, "pia")?);
    let plan = alice.call("POST", &create("&validateOnly=true"), Some(project())).await?;
    ensure!(plan["done"] == true, "{plan}");
    let changes = plan["metadata"]["validatedPlan"]["changes"].as_array().context("no plan")?;
    ensure!(changes.len() >= 5, "{plan}");
    ensure!(
        alice.refused("GET", &format!("/v1/{PROJECT}"), None).await?
            == (404, "RESOURCE_NOT_FOUND".to_owned())
    );

    let operation = alice.call("POST", &create(""), Some(project())).await?;
    let events = watch(&alice, &operation).await?;
    alice.finish(&operation).await?;
    resume(&alice, &operation, &events).await?;
    let overview = alice.call("GET", &format!("/v1/{PROJECT}/overview"), None).await?;
    ensure!(overview["project"]["state"] == "STATE_ACTIVE", "{overview}");

    production(&alice, &pia).await?;
    let mut path = format!("/v1/{PROJECT}/environments/production?requestId={}", request_id());
    ensure!(alice.refused("DELETE", &path, None).await? == (400, "GUARDRAIL_DENIED".to_owned()));
    let bob = Curl::new(&system, "bob")?;
    ensure!(bob.refused("DELETE", &path, None).await? == (403, "ACCESS_DENIED".to_owned()));
    let vera = Curl::new(&system, "vera")?;
    let filter = "filter=event.action%20%3D%20provisioning.environments.create&pageSize=5";
    let records = vera.call("GET", &format!("/v1/organizations/acme/auditRecords?{filter}"), None).await?;
    ensure!(records["auditRecords"].as_array().is_some_and(|records| !records.is_empty()), "{records}");
    path = format!("/v1/{PROJECT}?requestId={}", request_id());
    ensure!(pia.refused("DELETE", &path, None).await? == (400, "HAS_DEPENDENTS".to_owned()));
    path = format!("/v1/{PROJECT}?force=true&requestId={}", request_id());
    let operation = pia.call("DELETE", &path, None).await?;
    pia.finish(&operation).await?;
    system.stop().await
}

/// The events of an operation until it has ended: id and data of each.
async fn watch(alice: &Curl, operation: &Value) -> Result<Vec<(String, Value)>> {
    let path = format!("/v1/{}:watch", operation["name"].as_str().context("no name")?);
    let (code, text) = alice.run("GET", &path, &["Accept: text/event-stream"], None).await?;
    ensure!(code == 200, "{code} {text}");
    let text = text.trim_end();
    let all = text.strip_suffix("event: end\ndata: {}").with_context(|| format!("no end: {text}"))?;
    let events: Vec<(String, Value)> = events(all)?;
    ensure!(events.len() > 5 && events.iter().all(|(id, _)| !id.is_empty()), "{events:?}");
    ensure!(events.iter().any(|(_, event)| event["step"].is_object()), "{events:?}");
    // The last one has what came of it, so that nobody has to ask for that.
    let last = events.last().map(|(_, event)| &event["operation"]);
    ensure!(last.is_some_and(|last| last["done"] == true && last["response"].is_object()), "{last:?}");
    Ok(events)
}

fn events(text: &str) -> Result<Vec<(String, Value)>> {
    text.split("\n\n")
        .filter(|event| !event.trim().is_empty())
        .map(|event| {
            let lines: BTreeMap<&str, &str> =
                event.lines().filter_map(|line| line.split_once(": ")).collect();
            let data = lines.get("data").context("no data")?;
            Ok((lines.get("id").copied().unwrap_or_default().to_owned(), serde_json::from_str(data)?))
        })
        .collect()
}

/// A browser whose stream broke off goes on behind the last event that it has seen.
async fn resume(alice: &Curl, operation: &Value, events: &[(String, Value)]) -> Result<()> {
    let path = format!("/v1/{}:watch", operation["name"].as_str().context("no name")?);
    let (seen, expected) = events.split_first().context("no events")?;
    let last = format!("Last-Event-ID: {}", seen.0);
    let (_, text) = alice.run("GET", &path, &["Accept: text/event-stream", &last], None).await?;
    let rest = self::events(text.trim_end().trim_end_matches("event: end\ndata: {}"))?;
    let first = rest.first().context("nothing is left")?;
    // The same change; of the operation is told how it is by now.
    ensure!(Some(&first.0) == expected.first().map(|(id, _)| id), "{first:?} {:?}", expected.first());
    Ok(())
}

async fn production(alice: &Curl, pia: &Curl) -> Result<()> {
    let path = format!("/v1/{PROJECT}/environments?environmentId=production&requestId={}", request_id());
    let operation = alice.call("POST", &path, Some(json!({}))).await?;
    let waits =
        |operation: &Value| rests(operation) || operation["metadata"]["state"] == "STATE_AWAITING_APPROVAL";
    let waiting = alice.until(&operation, waits).await?;
    let metadata = &waiting["metadata"];
    ensure!(metadata["state"] == "STATE_AWAITING_APPROVAL", "{waiting}");
    let approve = format!("/v1/{}:approve", metadata["approval"].as_str().context("no request")?);
    let vote =
        json!({ "reason": "looks good", "planDigest": metadata["planDigest"], "requestId": request_id() });
    let (code, _) = alice.refused("POST", &approve, Some(vote.clone())).await?;
    ensure!([400, 403].contains(&code), "one's own request: {code}");
    let approved = pia.call("POST", &approve, Some(vote)).await?;
    ensure!(approved["state"] == "STATE_APPROVED", "{approved}");
    alice.finish(&operation).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_at_every_path() -> Result<()> {
    let system = Embedded::start().await?;
    let alice = Curl::new(&system, "alice")?;
    let client = reqwest::Client::new();
    let document: Value = client.get(format!("{}/openapi.json", alice.server)).send().await?.json().await?;
    let paths = document["paths"].as_object().context("no paths")?;
    let mut asked = 0;
    for (path, operations) in paths {
        for (verb, _) in operations.as_object().context("no operations")? {
            for (fill, query, body) in [
                ("x", "", ""),
                ("x", "?nope=1", "{}"),
                ("acme", "?pageSize=x&page_size=y&validateOnly=maybe", "{\"nope\": [1]}"),
                ("%00%ff", "?requestId=%zz", "[]"),
                ("..", "?", "{\"name\": 5, \"entity\": \"\", \"\": null}"),
                ("%2F%2e%2e%2F", "?&&=&==", "\u{0}"),
                ("-", "?pageToken=nonsense&filter=((((", "{\"a\":{\"b\":"),
            ] {
                let mut filled = path.clone();
                while let (Some(from), Some(to)) = (filled.find('{'), filled.find('}')) {
                    filled.replace_range(from..=to, fill);
                }
                let verb: reqwest::Method = verb.to_ascii_uppercase().parse()?;
                let mut request = client.request(verb.clone(), format!("{}{filled}{query}", alice.server));
                request = request.bearer_auth(&alice.token);
                if !body.is_empty() && !["GET", "DELETE"].contains(&verb.as_str()) {
                    request = request.header("content-type", "application/json").body(body);
                }
                let response = request.timeout(Duration::from_secs(20)).send().await?;
                let code = response.status().as_u16();
                // A stream that begins well has nothing to refuse.
                let text = response.text().await?;
                let what = format!("{verb} {filled}{query} {body}: {code} {text}");
                ensure!((400..500).contains(&code) || code == 200, "{what}");
                if code != 200 {
                    let json: Value = serde_json::from_str(&text).with_context(|| what.clone())?;
                    ensure!(!reason(&json).is_empty() && json["code"].is_u64(), "{what}");
                }
                asked += 1;
            }
        }
    }
    ensure!(asked > 700, "{asked}");
    system.stop().await
}

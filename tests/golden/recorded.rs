//! Nothing goes unrecorded: every method that changes something is called, and the audit log has one record of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply::Source;
use pavior::cli::client::{Client, request_id};
use pavior::serve::DEV_OPERATOR;
use pavior_core::principal::INSTALLATION;
use pavior_gateway::RouteTable;
use pavior_proto::pavior::audit::v1::audit_event::Phase;
use pavior_proto::pavior::audit::v1::{AuditEvent, ListAuditRecordsRequest};
use pavior_proto::pavior::provisioning::v1::operation_metadata::State;
use pavior_testkit::dynamic;
use pavior_tests::Embedded;
use serde_json::{Value, json};
use tonic::Status;

use crate::golden;

const FILE: &str = "unrecorded.txt";
/// A golden path whose only workload does not come up.
const BROKEN: &str = r#"
template: broken
version: 1.0.0
environments:
  development:
    create: with_project
    workload:
      inputs: { command: ["/bin/sh", "-c", "exit 3"], health: { path: /healthz, timeout: 1s } }
"#;
/// A golden path of a single database.
const BOX: &str = r#"
template: box
version: 1.0.0
environments:
  development:
    create: with_project
    resources: { only: { type: sql-database, inputs: { size: small } } }
"#;
const POLICY: &str = r#"@id("never") @effect("deny") @message("no")
forbid (principal, action == Pavior::Action::"provisioning.runs.get", resource)
when { context has environment_class_id && context.environment_class_id == "nowhere" };"#;

/// Calls `package.Service/Method`. Fields of `request` that the method does not have are left out; the call is known
/// as `request_id` in logs and records.
async fn call(
    client: &Client,
    method: &str,
    mut request: Value,
    request_id: &str,
) -> Result<Result<Value, Status>> {
    let method = dynamic::method(method);
    let fields = request.as_object_mut().context("a request is an object")?;
    fields.retain(|name, _| method.input().get_field_by_json_name(name).is_some());
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert("x-request-id", request_id.parse()?);
    let trace = format!("00-{}-00f067aa0ba902b7-00", trace_id(request_id));
    request.metadata_mut().insert("traceparent", trace.parse()?);
    Ok(dynamic::call(client.channel(), &method, request).await)
}

/// The id of the trace in which [`call`] makes the call of this request id, a UUID.
fn trace_id(request_id: &str) -> String {
    request_id.replace('-', "")
}

/// A call that was made.
struct Made {
    method: String,
    person: String,
    request_id: String,
    /// How often what it began has come to an end: twice when an operator took it up again.
    ends: usize,
}

/// The system with the calls that were made, in order.
struct Scenario {
    system: Embedded,
    made: Vec<Made>,
}

impl Scenario {
    /// Calls a method, which must succeed, and gives the answer.
    async fn call(&mut self, person: &str, method: &str, mut request: Value) -> Result<Value> {
        let request_id = request_id();
        request["requestId"] = json!(request_id);
        let answer = call(&*self.system.person(person)?, method, request, &request_id).await;
        let answer = answer?.with_context(|| format!("{method} as {person}"))?;
        let (method, person) = (method.to_owned(), person.to_owned());
        self.made.push(Made { method, person, request_id, ends: 1 });
        Ok(answer)
    }

    /// Calls a method that answers with an operation, waits for its end, and gives its name.
    async fn run(&mut self, person: &str, method: &str, request: Value) -> Result<String> {
        let name = self.begin(person, method, request).await?;
        self.system.person(person)?.until(&name, |operation| operation.done).await?;
        Ok(name)
    }

    /// The same without waiting.
    async fn begin(&mut self, person: &str, method: &str, request: Value) -> Result<String> {
        let answer = self.call(person, method, request).await?;
        Ok(answer["name"].as_str().context("the name of an operation")?.to_owned())
    }

    /// Creates, updates and later deletes a resource whose methods follow the standard.
    async fn create_and_update(&mut self, resource: &Resource) -> Result<()> {
        let Resource { message, parent, collection, id, fields, change: (changed, value) } = resource;
        let (field, id_field) = (lower(message), format!("{}Id", lower(message)));
        let create = json!({ "parent": parent, id_field: id, &field: fields });
        self.call("pia", &public(&format!("Create{message}")), create).await?;
        let name = format!("{parent}/{collection}/{id}");
        let update = json!({ &field: { "name": name, *changed: value }, "updateMask": changed });
        self.call("pia", &public(&format!("Update{message}")), update).await?;
        Ok(())
    }

    async fn delete(&mut self, resource: &Resource) -> Result<()> {
        let Resource { message, parent, collection, id, .. } = resource;
        let request = json!({ "name": format!("{parent}/{collection}/{id}") });
        self.call("pia", &public(&format!("Delete{message}")), request).await?;
        Ok(())
    }
}

struct Resource {
    message: &'static str,
    parent: &'static str,
    collection: &'static str,
    id: &'static str,
    fields: Value,
    /// The field that an update changes, and its new value.
    change: (&'static str, Value),
}

fn resource(message: &'static str, collection: &'static str, id: &'static str, fields: Value) -> Resource {
    let change = ("displayName", json!("changed"));
    Resource { message, parent: "organizations/acme", collection, id, fields, change }
}

fn lower(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_has_one_record_with_its_caller() -> Result<()> {
    let system = Embedded::start().await?;
    let documents = [("broken", BROKEN), ("box", BOX)]
        .map(|(origin, text)| Source { origin: origin.to_owned(), text: text.to_owned() });
    system.apply(&documents).await?;
    let mut scenario = Scenario { system, made: Vec::new() };
    catalog(&mut scenario).await?;
    policy(&mut scenario).await?;
    provisioning(&mut scenario).await?;
    let table = RouteTable::build(pavior_proto::DESCRIPTORS)?;
    let actions: BTreeMap<&str, &str> = table
        .methods()
        .filter(|method| !method.reads)
        .map(|method| (method.path.trim_start_matches('/'), method.action.as_str()))
        .collect();
    let called: BTreeSet<&str> = scenario.made.iter().map(|made| made.method.as_str()).collect();
    let missing: Vec<&str> = actions.keys().copied().filter(|method| !called.contains(method)).collect();
    ensure!(missing.is_empty(), "methods that change something and are not called here: {missing:#?}");
    let unrecorded = unrecorded(&scenario, &actions).await?;
    scenario.system.stop().await?;
    let text = format!(
        "# Calls without exactly one record of their caller. It may only shrink: see recorded.rs.\n{}",
        unrecorded.into_iter().collect::<Vec<_>>().join("\n")
    );
    let before = golden::read(FILE).unwrap_or_default();
    let grown: Vec<&str> = text.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    ensure!(grown.is_empty(), "not recorded as they should be:\n  {}", grown.join("\n  "));
    golden::assert_same(FILE, &text);
    Ok(())
}

/// Calls that have another number of records than one, or another actor. The records come a moment later.
async fn unrecorded(scenario: &Scenario, actions: &BTreeMap<&str, &str>) -> Result<BTreeSet<String>> {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let events = events(scenario).await?;
        let wrong: BTreeSet<String> = scenario
            .made
            .iter()
            .filter_map(|made| {
                let action = actions.get(made.method.as_str())?;
                let why = wrong(made, action, &events)?;
                Some(format!("{}: {why}", made.method))
            })
            .collect();
        if wrong.is_empty() || tokio::time::Instant::now() > limit {
            return Ok(wrong);
        }
        tokio::task::yield_now().await;
    }
}

/// What is wrong with the records of a call. One that takes long has an intent, and its outcome is the same record's
/// second phase.
fn wrong(made: &Made, action: &str, events: &[AuditEvent]) -> Option<String> {
    let of_call = |event: &&AuditEvent| {
        event.action == action
            && event
                .cause
                .as_ref()
                .is_some_and(|cause| [&cause.call_id, &cause.request_id].contains(&&made.request_id))
    };
    let own: Vec<&AuditEvent> = events.iter().filter(of_call).collect();
    let count = |phase: Phase| own.iter().filter(|event| event.phase() == phase).count();
    let objects: BTreeSet<(&str, Option<&str>)> = own
        .iter()
        .filter_map(|event| {
            let with_it = event.affected.first().map(|one| one.name.as_str());
            Some((event.target.as_ref()?.name.as_str(), with_it))
        })
        .collect();
    // A call may change several resources, each of which has its record, and what went with one has others.
    match (count(Phase::Intent), count(Phase::Outcome)) {
        (0, outcomes) if outcomes > 0 && outcomes == objects.len() => {}
        (1, outcomes) if outcomes <= made.ends => {}
        (intents, outcomes) => return Some(format!("{intents} intents and {outcomes} outcomes")),
    }
    let organization = if made.person == DEV_OPERATOR { INSTALLATION } else { "acme" };
    let actor = format!("organizations/{organization}/users/{}", made.person);
    let trace_id = trace_id(&made.request_id);
    // The end of what takes long comes from the engine, which is in no call.
    let mut told = own.iter().filter(|event| count(Phase::Intent) == 0 || event.phase() == Phase::Intent);
    if told.any(|event| event.cause.as_ref().is_none_or(|cause| cause.trace_id != trace_id)) {
        return Some("recorded without its trace".to_owned());
    }
    let other = own.iter().filter_map(|event| event.principal.as_ref()).find(|found| found.name != actor);
    other.map(|other| format!("recorded as done by {}", other.name))
}

/// What the logs of both organizations and of the platform hold.
async fn events(scenario: &Scenario) -> Result<Vec<AuditEvent>> {
    let mut found = Vec::new();
    for (person, organization) in [("pia", "acme"), (DEV_OPERATOR, "beta"), (DEV_OPERATOR, INSTALLATION)] {
        let mut page_token = String::new();
        loop {
            let request = ListAuditRecordsRequest {
                parent: format!("organizations/{organization}"),
                page_size: 1_000,
                page_token,
                ..Default::default()
            };
            let page =
                scenario.system.person(person)?.audit().list_audit_records(request).await?.into_inner();
            found.extend(page.audit_records.into_iter().filter_map(|record| record.event));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
    }
    Ok(found)
}

/// The full name of a public method.
fn public(method: &str) -> String {
    let roles = ["catalog", "policy", "provisioning", "audit", "platform"];
    let found = roles
        .into_iter()
        .flat_map(dynamic::methods)
        .find(|found| found.name() == method && !found.parent_service().full_name().contains(".internal."));
    // Of a method that is not there, the name is as good: nobody answers it.
    found.map_or_else(|| method.to_owned(), |found| dynamic::path(&found).trim_start_matches('/').to_owned())
}

async fn catalog(scenario: &mut Scenario) -> Result<()> {
    let new = json!({ "organizationId": "beta", "organization": { "displayName": "Beta" } });
    scenario.call(DEV_OPERATOR, &public("CreateOrganization"), new).await?;
    let owner = "organizations/acme/groups/storefront";
    let definition = json!({ "resourceType": "organizations/acme/resourceTypes/thing", "driverId": "git", "monthlyCost": { "currencyCode": "USD", "units": "1" } });
    let resources = [
        resource("Group", "groups", "things", json!({ "displayName": "Things" })),
        resource("User", "users", "tom", json!({ "displayName": "Tom", "email": "tom@acme.example" })),
        resource("Kind", "kinds", "gadget", json!({ "displayName": "Gadget" })),
        Resource {
            parent: "organizations/acme/kinds/system",
            ..resource("Entity", "entities", "shop", json!({ "displayName": "Shop", "owner": owner }))
        },
        resource("Template", "templates", "thing", json!({ "displayName": "Thing" })),
        resource("ResourceType", "resourceTypes", "thing", json!({ "displayName": "Thing" })),
        resource("ResourceDefinition", "resourceDefinitions", "thing", definition),
    ];
    for resource in &resources {
        scenario.create_and_update(resource).await?;
    }
    membership(scenario).await?;
    // Of another template: one with versions is not deleted.
    let broken = "organizations/acme/templates/broken";
    let document = BROKEN.replace("version: 1.0.0", "version: 1.0.1");
    let version = json!({ "parent": broken, "templateVersion": { "document": document } });
    let version = scenario.call("pia", &public("CreateTemplateVersion"), version).await?;
    let channel = json!({ "name": broken, "channelId": "beta", "templateVersion": version["name"] });
    scenario.call("pia", &public("MoveTemplateChannel"), channel).await?;
    let channel = json!({ "name": broken, "channelId": "beta" });
    scenario.call("pia", &public("RemoveTemplateChannel"), channel).await?;
    let document = "apiVersion: backstage.io/v1alpha1\nkind: System\nmetadata:\n  name: till\nspec:\n  owner: storefront\n";
    let import =
        json!({ "parent": "organizations/acme", "documents": [{ "origin": "test", "content": document }] });
    scenario.call("pia", &public("ImportEntities"), import).await?;
    for resource in resources.iter().rev() {
        scenario.delete(resource).await?;
    }
    Ok(())
}

/// One that is ended; what goes with a group or user is in its records.
async fn membership(scenario: &mut Scenario) -> Result<()> {
    let (group, member) = ("organizations/acme/groups/things", "organizations/acme/users/tom");
    let create = json!({ "parent": group, "membership": { "member": member } });
    let made = scenario.call("pia", &public("CreateMembership"), create.clone()).await?;
    scenario.call("pia", &public("DeleteMembership"), json!({ "name": made["name"] })).await?;
    scenario.call("pia", &public("CreateMembership"), create).await?;
    Ok(())
}

async fn policy(scenario: &mut Scenario) -> Result<()> {
    let role = json!({ "displayName": "Looker", "actions": ["identity.groups.get"] });
    let binding =
        json!({ "role": "organizations/acme/roles/looker", "members": ["organizations/acme/users/bob"] });
    let policy = json!({ "displayName": "Never", "policyType": "POLICY_TYPE_GUARDRAIL", "source": POLICY });
    let bound = json!({ "policy": "organizations/acme/policies/never", "mode": "MODE_ENFORCE" });
    let resources = [
        resource("Role", "roles", "looker", role),
        Resource {
            change: ("reach", json!("REACH_OWNED")),
            ..resource("RoleBinding", "roleBindings", "looker", binding)
        },
        resource("Policy", "policies", "never", policy),
        Resource {
            change: ("mode", json!("MODE_WARN")),
            ..resource("PolicyBinding", "policyBindings", "never", bound)
        },
    ];
    for resource in &resources {
        scenario.create_and_update(resource).await?;
    }
    let name = "organizations/acme/policies/never";
    let rewritten = json!({ "policy": { "name": name, "source": format!("// Once more.\n{POLICY}") }, "updateMask": "source" });
    scenario.call("pia", &public("UpdatePolicy"), rewritten).await?;
    let back = json!({ "name": name, "revisionId": "1" });
    scenario.call("pia", &public("RollbackPolicy"), back).await?;
    for resource in resources.iter().rev() {
        scenario.delete(resource).await?;
    }
    Ok(())
}

async fn provisioning(scenario: &mut Scenario) -> Result<()> {
    let method = public;
    let project = "organizations/acme/projects/kept";
    let template = "organizations/acme/templates/web-service/versions/stable";
    let new = |id: &str, template: &str, parameters: Value| {
        json!({ "parent": "organizations/acme", "projectId": id, "project": { "parameters": parameters,
            "owner": "organizations/acme/groups/storefront", "templateVersion": template } })
    };
    let python = json!({ "language": "python" });
    scenario.run("alice", &method("CreateProject"), new("kept", template, python)).await?;
    let described = json!({ "project": { "name": project, "displayName": "Kept" } });
    scenario.call("pia", &method("UpdateProject"), described).await?;
    let environment = |id: &str| json!({ "parent": project, "environmentId": id, "environment": {} });
    scenario.run("alice", &method("CreateEnvironment"), environment("staging")).await?;
    let staging = format!("{project}/environments/staging");
    let update = json!({ "environment": { "name": staging, "parameters": { "log_level": "debug" } },
        "updateMask": "parameters" });
    scenario.run("alice", &method("UpdateEnvironment"), update).await?;
    let pipeline = json!({ "name": format!("{project}/pipelines/pipeline") });
    let plan = json!({ "parent": "organizations/acme", "plan": { "intent": { "runPipeline": pipeline } } });
    scenario.run("alice", &method("RunPipeline"), pipeline).await?;
    let plan = scenario.call("alice", &method("CreatePlan"), plan).await?;
    let plan = json!({ "name": plan["name"], "planDigest": plan["digest"] });
    scenario.run("alice", &method("ExecutePlan"), plan).await?;
    let development = format!("{project}/environments/development");
    let deployment = json!({ "parent": development, "deployment": {} });
    scenario.run("alice", &method("CreateDeployment"), deployment).await?;
    let promote =
        json!({ "name": format!("{development}/deployments/deployment-1"), "environment": staging });
    scenario.run("alice", &method("PromoteDeployment"), promote).await?;
    approvals(scenario, &method("CreateEnvironment"), &environment("production")).await?;
    scenario.run("alice", &method("DeleteEnvironment"), json!({ "name": staging })).await?;
    // Alice's own operation fails, and is forgotten.
    let broken = "organizations/acme/templates/broken/versions/stable";
    let failed = scenario.run("alice", &method("CreateProject"), new("broken", broken, json!({}))).await?;
    scenario.call("pia", "google.longrunning.Operations/DeleteOperation", json!({ "name": failed })).await?;
    let boxed = "organizations/acme/templates/box/versions/stable";
    scenario.run("alice", &method("CreateProject"), new("boxed", boxed, json!({}))).await?;
    stuck(scenario, &method("DeleteProject"), &method("RetryOperation")).await?;
    scenario.run("alice", &method("RepairProject"), json!({ "name": project })).await?;
    let orphan =
        pavior_tests::orphan(scenario.system.data(), "organizations/acme/projects/old/pipelines/main")?;
    let orphan = json!({ "parent": "organizations/acme", "driverId": "pipeline", "externalId": orphan });
    scenario.run("pia", &method("DeleteOrphan"), orphan).await?;
    Ok(())
}

/// A deletion that cannot be done while something else stands in a database's place, and is tried again afterwards.
async fn stuck(scenario: &mut Scenario, delete: &str, retry: &str) -> Result<()> {
    let folder = scenario.system.data().join("platform/databases/acme");
    let newest = std::fs::read_dir(&folder)?.filter_map(|file| {
        let path = file.ok()?.path();
        let made = path.metadata().ok()?.created().ok()?;
        path.extension().is_some_and(|kind| kind == "db").then_some((made, path))
    });
    let (_, database) = newest.max().context("a database of the project")?;
    let aside = database.with_extension("aside");
    std::fs::rename(&database, &aside)?;
    std::fs::create_dir(&database)?;
    let project = json!({ "name": "organizations/acme/projects/boxed", "force": true });
    let operation = scenario.begin("alice", delete, project).await?;
    scenario.made.last_mut().context("the call that was made")?.ends = 2;
    let state = |operation: &_| pavior::cli::progress::metadata(operation).map(|m| m.state());
    let is_stuck = |operation: &_| state(operation).is_ok_and(|state| state == State::Stuck);
    scenario.system.person("alice")?.until(&operation, is_stuck).await?;
    std::fs::remove_dir(&database)?;
    std::fs::rename(&aside, &database)?;
    scenario.run("alice", retry, json!({ "name": operation })).await?;
    Ok(())
}

/// Production is asked for three times: cancelled, denied, approved.
async fn approvals(scenario: &mut Scenario, create: &str, request: &Value) -> Result<()> {
    for verb in ["cancel", "DenyApproval", "ApproveApproval"] {
        let operation = scenario.begin("alice", create, request.clone()).await?;
        if verb == "cancel" {
            let cancel = json!({ "name": operation });
            scenario.call("alice", "google.longrunning.Operations/CancelOperation", cancel).await?;
        } else {
            let asked = approval(scenario, &operation).await?;
            let answer = json!({ "name": asked, "reason": "because" });
            scenario.call("pia", &public(verb), answer).await?;
        }
        scenario.system.person("alice")?.until(&operation, |operation| operation.done).await?;
    }
    Ok(())
}

/// The approval of an operation, as soon as there is one.
async fn approval(scenario: &Scenario, operation: &str) -> Result<String> {
    let mut found = String::new();
    let person = scenario.system.person("alice")?;
    person
        .until(operation, |operation| {
            found = pavior::cli::progress::metadata(operation).map(|m| m.approval).unwrap_or_default();
            !found.is_empty()
        })
        .await?;
    Ok(found)
}

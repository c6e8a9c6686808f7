//! What every change and every resource of the policy service must keep to.

use futures::future::{BoxFuture, LocalBoxFuture};
use pavior_proto::pavior::policy::v1::PolicyType;
use pavior_testkit::conformance::{self, Existing, Sample, Subject};
use pavior_testkit::repeat::{Case, check};
use pavior_testkit::{db, dynamic};
use serde_json::{Value as Json, json};

use crate::fixture::{ACME, CREATE, Fixture, question, user};

/// A policy that speaks of nothing that there is.
const NEVER: &str = "forbid (principal, action, resource) when { context has environment_class_id && context.environment_class_id == \"nowhere\" };";
const ROLE: &str = "policy";
/// An id that nothing has.
const MISSING: &str = "01900000-0000-7000-8000-000000000000";

/// Every resource of the service.
fn samples() -> Vec<Sample> {
    let of = |message, forms| Sample { message, parent: ACME.to_owned(), forms };
    vec![
        of("Role", |_| ["A", "B"].map(|text| json!({ "displayName": text, "actions": ["*"] }))),
        of("RoleBinding", |_| {
            ["core", "payments"].map(|group| {
                json!({ "role": format!("{ACME}/roles/base"), "members": [format!("{ACME}/groups/{group}")] })
            })
        }),
        of("Policy", |_| {
            ["A", "B"].map(
                |text| json!({ "displayName": text, "policyType": "POLICY_TYPE_GUARDRAIL", "source": NEVER }),
            )
        }),
        of("PolicyBinding", |_| {
            ["MODE_ENFORCE", "MODE_WARN"]
                .map(|mode| json!({ "policy": format!("{ACME}/policies/base"), "mode": mode }))
        }),
    ]
}

/// Makes the next revision of the policy `base`.
async fn revise(f: &Fixture, source: &str) {
    let name = format!("{ACME}/policies/base");
    let changed = json!({ "policy": { "name": name, "source": source }, "updateMask": "source" });
    let update = dynamic::method_of(ROLE, "UpdatePolicy");
    let call = f.call("root", &dynamic::action(&update), changed);
    dynamic::call(f.transport.clone(), &update, call).await.unwrap();
}

/// Some of each resource that has not all of the standard methods.
async fn existing(f: &mut Fixture) -> Vec<Existing> {
    let base = format!("{ACME}/policies/base");
    revise(f, &format!("{NEVER} ")).await;
    let (mut approvals, mut decisions) = (Vec::new(), Vec::new());
    for digest in ["d1", "d2"] {
        approvals.push(f.ask("alice", digest, 1).await.name);
        decisions.push(f.decide(question("alice", CREATE)).await.unwrap().name);
    }
    f.write_decisions().await;
    let revisions = ["1", "2"].map(|id| format!("{base}/revisions/{id}")).to_vec();
    let of = |message, parent: &str, names: Vec<String>, missing: &str| {
        let collection = names[0].rsplit_once('/').unwrap().0;
        let missing = format!("{collection}/{missing}");
        Existing { message, parent: parent.to_owned(), names, missing }
    };
    vec![
        of("Approval", ACME, approvals, MISSING),
        of("Decision", ACME, decisions, MISSING),
        of("PolicyRevision", &base, revisions, "9"),
    ]
}

fn cases(round: &str, approvals: &[String]) -> Vec<Case> {
    let mut cases: Vec<Case> = samples().iter().flat_map(|sample| sample.cases(ROLE, round)).collect();
    for (method, name) in ["ApproveApproval", "DenyApproval"].into_iter().zip(approvals) {
        let vote = |reason: &str| json!({ "name": name, "reason": reason });
        cases.push(Case {
            method,
            before: Vec::new(),
            request: vote("fine"),
            other: vote("well"),
            gone: Vec::new(),
        });
    }
    let back = |revision: &str| json!({ "name": format!("{ACME}/policies/base"), "revisionId": revision });
    cases.push(Case {
        method: "RollbackPolicy",
        before: Vec::new(),
        request: back("1"),
        other: back("2"),
        gone: Vec::new(),
    });
    let asked = |summary: &str| {
        json!({ "parent": ACME, "approval": {
            "action": CREATE, "resource": format!("{ACME}/projects/hello"), "summary": summary,
            "operation": format!("{ACME}/operations/{round}"), "plan": format!("{ACME}/plans/{round}"),
            "planDigest": round, "requirements": [{ "quorum": 1, "group": format!("{ACME}/groups/platform") }],
        } })
    };
    cases.push(Case {
        method: "CreateApproval",
        before: Vec::new(),
        request: asked("one"),
        other: asked("other"),
        gone: Vec::new(),
    });
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_done_once_for_each_request_id() {
    db::both(|db| async move {
        let f = Fixture::new(db).await;
        f.role("base", &["*"]).await;
        f.policy("base", PolicyType::Guardrail, NEVER).await.unwrap();
        let mut approvals = Vec::new();
        for digest in ["d1", "d2", "d3", "d4"] {
            approvals.push(f.ask("alice", digest, 1).await.name);
        }
        let ask = |method: dynamic::MethodDescriptor, json: Json| {
            // Whoever votes is in the group that is asked.
            let request = match method.name() {
                "CreateApproval" => f.internal("alice", json),
                _ => f.call("bob", &dynamic::action(&method), json),
            };
            let transport = f.transport.clone();
            let task = tokio::spawn(async move { dynamic::call(transport, &method, request).await });
            Box::pin(async move { task.await.unwrap() }) as BoxFuture<'_, _>
        };
        let (one, two) = approvals.split_at(2);
        check(ROLE, |round| cases(round, if round == "one" { one } else { two }), &ask).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_keeps_to_what_all_resources_do() {
    db::both(|db| async move {
        let mut f = Fixture::new(db).await;
        f.role("base", &["*"]).await;
        f.policy("base", PolicyType::Guardrail, NEVER).await.unwrap();
        let existing = existing(&mut f).await;
        let ask = |who: &'static str| {
            let f = &f;
            move |method: dynamic::MethodDescriptor, json: Json| {
                let request = f.signed(&f.gateway, &user(who), &dynamic::action(&method), json);
                let transport = f.transport.clone();
                Box::pin(async move { dynamic::call(transport, &method, request).await }) as BoxFuture<'_, _>
            }
        };
        let audited = || Box::pin(f.audited()) as LocalBoxFuture<'_, _>;
        let insert = |message: &'static str| {
            let f = &f;
            Box::pin(async move {
                match message {
                    "Approval" => drop(f.ask("alice", "d3", 1).await),
                    "PolicyRevision" => revise(f, &format!("{NEVER}  ")).await,
                    other => panic!("{other}"),
                }
            }) as LocalBoxFuture<'_, _>
        };
        let (insider, outsider) = (ask("root"), ask("other/eve"));
        let (ask, outsider, audited) = (&insider, &outsider, &audited);
        let subject =
            Subject { role: ROLE, samples: samples(), existing, ask, outsider, insert: &insert, audited };
        conformance::check(&subject).await;
    })
    .await;
}

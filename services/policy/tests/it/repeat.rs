//! Request ids, over every change of the policy service.

use futures::future::BoxFuture;
use pavior_testkit::repeat::{Case, check};
use pavior_testkit::{db, dynamic};
use serde_json::{Value as Json, json};

use crate::fixture::{ACME, CREATE, Fixture};

const SERVICE: &str = "pavior.policy.v1.PolicyService";

/// A resource with its standard methods: how they are called, where it lives, and two forms of it.
struct Kind {
    methods: [&'static str; 3],
    field: &'static str,
    collection: &'static str,
    forms: [Json; 2],
}

fn kinds() -> Vec<Kind> {
    let role = |text: &str| json!({ "displayName": text, "actions": ["*"] });
    let binding = |group: &str| json!({ "role": format!("{ACME}/roles/base"), "members": [format!("{ACME}/groups/{group}")] });
    let policy = |text: &str| {
        json!({
            "displayName": text, "policySet": "POLICY_SET_GUARDRAIL",
            "source": "forbid (principal, action, resource) when { context has environment_class && context.environment_class == \"nowhere\" };",
        })
    };
    let enforced = |mode: &str| json!({ "policy": format!("{ACME}/policies/base"), "mode": mode });
    vec![
        Kind {
            methods: ["CreateRole", "UpdateRole", "DeleteRole"],
            field: "role",
            collection: "roles",
            forms: [role("A"), role("B")],
        },
        Kind {
            methods: ["CreateRoleBinding", "UpdateRoleBinding", "DeleteRoleBinding"],
            field: "roleBinding",
            collection: "roleBindings",
            forms: [binding("core"), binding("payments")],
        },
        Kind {
            methods: ["CreatePolicy", "UpdatePolicy", "DeletePolicy"],
            field: "policy",
            collection: "policies",
            forms: [policy("A"), policy("B")],
        },
        Kind {
            methods: ["CreatePolicyBinding", "UpdatePolicyBinding", "DeletePolicyBinding"],
            field: "policyBinding",
            collection: "policyBindings",
            forms: [enforced("MODE_ENFORCE"), enforced("MODE_WARN")],
        },
    ]
}

fn cases(round: &str, approvals: &[String]) -> Vec<Case> {
    let mut cases = Vec::new();
    for Kind { methods: [create, update, delete], field, collection, forms: [form, other] } in kinds() {
        let made = |id: &str, form: &Json| json!({ "parent": ACME, format!("{field}Id"): id, field: form });
        let name = |id: &str| format!("{ACME}/{collection}/{id}");
        let changed = |id: &str, form: &Json| {
            let mut form = form.clone();
            form["name"] = name(id).into();
            json!({ field: form })
        };
        let [a, b, c] = ["a", "b", "c"].map(|letter| format!("{round}-{letter}"));
        let gone = |id: &str| vec![(delete, json!({ "name": name(id) }))];
        cases.push(Case {
            method: create,
            before: Vec::new(),
            request: made(&a, &form),
            other: made(&a, &other),
            gone: gone(&a),
        });
        cases.push(Case {
            method: update,
            before: vec![(create, made(&b, &form))],
            request: changed(&b, &other),
            other: changed(&b, &form),
            gone: gone(&b),
        });
        cases.push(Case {
            method: delete,
            before: vec![(create, made(&c, &form))],
            request: json!({ "name": name(&c) }),
            other: json!({ "name": name(&c), "allowMissing": true }),
            gone: Vec::new(),
        });
    }
    for (method, name) in ["ApproveApprovalRequest", "DenyApprovalRequest"].into_iter().zip(approvals) {
        let vote = |reason: &str| json!({ "name": name, "reason": reason });
        cases.push(Case {
            method,
            before: Vec::new(),
            request: vote("fine"),
            other: vote("well"),
            gone: Vec::new(),
        });
    }
    let asked = |summary: &str| {
        json!({ "parent": ACME, "approvalRequest": {
            "action": CREATE, "resource": format!("{ACME}/projects/hello"), "summary": summary,
            "operation": format!("{ACME}/operations/{round}"), "plan": format!("{ACME}/plans/{round}"),
            "planDigest": round, "requirements": [{ "quorum": 1, "group": format!("{ACME}/groups/platform") }],
        } })
    };
    cases.push(Case {
        method: "CreateApprovalRequest",
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
        let text = "forbid (principal, action, resource) when { context has environment_class && context.environment_class == \"nowhere\" };";
        f.policy("base", pavior_proto::pavior::policy::v1::policy::PolicySet::Guardrail, text).await.unwrap();
        let mut approvals = Vec::new();
        for digest in ["d1", "d2", "d3", "d4"] {
            approvals.push(f.ask("alice", digest, 1).await.name);
        }
        let ask = |method: dynamic::MethodDescriptor, json: Json| {
            // Whoever votes is in the group that is asked.
            let request = match method.name() {
                "CreateApprovalRequest" => f.internal("alice", json),
                _ => f.call("bob", &dynamic::action(&method), json),
            };
            let transport = f.transport.clone();
            let task = tokio::spawn(async move { dynamic::call(transport, &method, request).await });
            Box::pin(async move { task.await.unwrap() }) as BoxFuture<'_, _>
        };
        let (one, two) = approvals.split_at(2);
        check(SERVICE, |round| cases(round, if round == "one" { one } else { two }), &ask).await;
    })
    .await;
}

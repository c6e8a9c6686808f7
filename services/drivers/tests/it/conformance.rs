use pavior_driver::SecretString;
use pavior_driver::conformance::{Case, Subject, run};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn git_conforms() {
    let world = World::new().await;
    let subject = Subject {
        driver: world.driver("git"),
        resource_type: "git-repository".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(|name| Case {
            resource: format!("organizations/acme/projects/{name}/resources/repo"),
            inputs: json!({"files": {"README.md": format!("# {name}\n")}, "parameters": {}, "default_branch": "main"}),
            changed: Some(json!({"files": {"README.md": "changed"}})),
            failing: Some(json!({"files": {"README.md": "${{ missing }}"}})),
            sensitive: Vec::new(),
        }),
    };
    run(&subject).await.assert();
    let left = std::fs::read_dir(world.data.join("repositories/acme")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn sqlite_conforms() {
    let world = World::new().await;
    let subject = Subject {
        driver: world.driver("sqlite-database"),
        resource_type: "sql-database".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(|name| Case {
            resource: format!("organizations/acme/projects/p/environments/dev/resources/{name}"),
            inputs: json!({"size": "small"}),
            changed: Some(json!({"size": "large"})),
            failing: None,
            sensitive: Vec::new(),
        }),
    };
    run(&subject).await.assert();
    assert_eq!(std::fs::read_dir(world.data.join("databases/acme")).unwrap().count(), 0);
}

#[tokio::test]
async fn pipeline_conforms() {
    let world = World::new().await;
    let repository = world.repository("source", &[("a", "b")]).await.outputs["url"].clone();
    let subject = Subject {
        driver: world.driver("pipeline"),
        resource_type: "ci-pipeline".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(move |name| Case {
            resource: format!("organizations/acme/projects/p/resources/{name}"),
            inputs: json!({"repository": repository, "steps": [{"name": "test", "run": "true"}]}),
            changed: Some(json!({"repository": repository, "steps": [{"name": "test", "run": "false"}]})),
            failing: Some(json!({"repository": "/nowhere", "steps": [{"name": "test", "run": "true"}]})),
            sensitive: Vec::new(),
        }),
    };
    run(&subject).await.assert();
}

#[tokio::test]
async fn process_conforms() {
    let world = World::new().await;
    let serve = |text: &str| {
        let script = format!(
            "import os,http.server as h\nprint(os.environ['TOKEN'],flush=True)\nclass H(h.BaseHTTPRequestHandler):\n \
             def do_GET(s):\n  s.send_response(200);s.end_headers();s.wfile.write(b'{text}')\n \
             def log_message(s,*a): pass\nh.HTTPServer(('127.0.0.1',int(os.environ['PORT'])),H).serve_forever()"
        );
        json!({"command": ["python3", "-c", script], "variables": {"TOKEN": "very-secret-token"},
               "health": {"path": "/"}})
    };
    let (inputs, changed) = (serve("one"), serve("two"));
    let subject = Subject {
        driver: world.driver("process"),
        resource_type: "workload".to_owned(),
        organization: "acme".to_owned(),
        run: "kit".to_owned(),
        case: Box::new(move |name| Case {
            resource: format!("organizations/acme/projects/p/environments/dev/resources/{name}"),
            inputs: inputs.clone(),
            changed: Some(changed.clone()),
            failing: Some(json!({"command": ["sh", "-c", "echo very-secret-token; exit 3"]})),
            sensitive: vec![SecretString::from("very-secret-token")],
        }),
    };
    run(&subject).await.assert();
    assert_eq!(std::fs::read_dir(world.data.join("workloads")).unwrap().count(), 0);
}

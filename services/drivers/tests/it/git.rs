use std::path::Path;
use std::process::Output;

use pavior_driver::{ExposeSecret, FailureCode, Lookup, Observation, PinRequest, Push, RefUpdate, Success};
use serde_json::json;

use crate::world::{World, alive, context, success, wait_for};

pub(crate) async fn git(directory: &Path, args: &[&str]) -> Output {
    tokio::process::Command::new("git")
        .args(["-c", "user.name=alice", "-c", "user.email=alice@acme.test", "-c", "credential.helper="])
        .args(args)
        .current_dir(directory)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .await
        .unwrap()
}

pub(crate) async fn must(directory: &Path, args: &[&str]) -> String {
    let output = git(directory, args).await;
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub(crate) fn with_password(url: &str, password: &str) -> String {
    url.replace("http://", &format!("http://pavior:{password}@"))
}

/// Not a test of its own: the process that `no_git_command_outlives_the_platform` kills.
#[tokio::test]
async fn supervisor_of_a_git_command() {
    let Ok(folder) = std::env::var("PAVIOR_TEST_GIT_COMMAND") else { return };
    let world = World::with(|config| {
        config.environment.insert("PATH".to_owned(), format!("{folder}:/usr/bin:/bin"));
    })
    .await;
    let call = context("organizations/acme/projects/p/resources/repo", "op/repo/1");
    success(world.apply("git", "git-repository", &call, json!({})).await);
}

#[tokio::test]
async fn no_git_command_outlives_the_platform() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (git, pid) = (folder.path().join("git"), folder.path().join("pid"));
    let script =
        format!("#!/bin/sh\ntrap '' INT\necho $$ > {0}.new; mv {0}.new {0}; exec sleep 600\n", pid.display());
    std::fs::write(&git, script).unwrap();
    std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "git::supervisor_of_a_git_command", "--nocapture"])
        .env("PAVIOR_TEST_GIT_COMMAND", folder.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let text = wait_for("the command", || std::fs::read_to_string(&pid).ok()).await;
    let pid: u64 = text.trim().parse().unwrap();
    assert!(alive(pid));
    child.kill().await.unwrap();
    wait_for("the command to end", || (!alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn a_repository_is_cloned_changed_and_pushed() {
    let root = tempfile::tempdir().unwrap();
    let skeleton = root.path().join("web/rust");
    std::fs::create_dir_all(skeleton.join("src")).unwrap();
    std::fs::write(
        skeleton.join("src/main.rs"),
        "// ${{ parameters.name }} in ${{ organization }}\nfn main() {}\n",
    )
    .unwrap();
    std::fs::write(skeleton.join(".gitignore"), "target\nCargo.lock\n").unwrap();
    std::fs::write(skeleton.join("Cargo.lock"), "# kept\n").unwrap();
    let world = World::with(|config| config.git.skeleton_roots = vec![root.path().to_owned()]).await;
    let call = context("organizations/acme/projects/hello/resources/repo", "op/repo/1");
    let inputs = json!({"skeleton": "web/rust", "parameters": {"name": "hello"}});
    let made = success(world.apply("git", "git-repository", &call, inputs.clone()).await);
    let url = made.outputs["url"].as_str().unwrap();
    assert_eq!(url, format!("{}/git/acme/hello.git", world.url));
    let password = made.secrets.get("password").unwrap().expose_secret().to_owned();

    let work = tempfile::tempdir().unwrap();
    must(work.path(), &["clone", "-q", &with_password(url, &password), "copy"]).await;
    let copy = work.path().join("copy");
    assert_eq!(
        std::fs::read_to_string(copy.join("src/main.rs")).unwrap(),
        "// hello in acme\nfn main() {}\n"
    );
    assert!(copy.join("Cargo.lock").exists());
    assert_eq!(must(&copy, &["rev-parse", "HEAD"]).await, made.outputs["commit"].as_str().unwrap());
    // Large enough that git sends it chunked, and then compressed in negotiation.
    let noise: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(copy.join("noise.bin"), &noise).unwrap();
    must(&copy, &["add", "."]).await;
    must(&copy, &["commit", "-q", "-m", "Change the page"]).await;
    must(&copy, &["push", "-q", "origin", "main"]).await;
    let head = must(&copy, &["rev-parse", "HEAD"]).await;
    let update = |before: &str, after: &str| Push {
        organization: "acme".into(),
        repository: "hello".into(),
        updates: vec![RefUpdate {
            name: "refs/heads/main".into(),
            before: before.into(),
            after: after.into(),
        }],
        refused: None,
    };
    let first = made.outputs["commit"].as_str().unwrap();
    assert_eq!(*world.pushes.seen.lock().unwrap(), [update(first, &head)]);
    // What cannot be recorded does not happen.
    world.pushes.full.store(true, std::sync::atomic::Ordering::SeqCst);
    must(&copy, &["commit", "-q", "--allow-empty", "-m", "Unrecorded"]).await;
    let refused = git(&copy, &["push", "-q", "origin", "main"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("503"), "{refused:?}");
    must(&copy, &["reset", "-q", "--hard", "HEAD~1"]).await;
    let again = success(world.apply("git", "git-repository", &call, inputs).await);
    assert_eq!(again.outputs["commit"], head);
    must(work.path(), &["clone", "-q", &with_password(url, &password), "second"]).await;
    assert_eq!(std::fs::read(work.path().join("second/noise.bin")).unwrap(), noise);
    must(&copy, &["fetch", "-q", "origin"]).await;
}

#[tokio::test]
async fn only_the_repositorys_own_password_opens_it() {
    let world = World::new().await;
    let first = world.repository("first", &[("a", "1")]).await;
    let second = world.repository("second", &[("a", "2")]).await;
    let work = tempfile::tempdir().unwrap();
    let url = first.outputs["url"].as_str().unwrap();
    let other = second.secrets.get("password").unwrap().expose_secret().to_owned();
    let own = first.secrets.get("password").unwrap().expose_secret().to_owned();
    assert_ne!(other, own);
    for bad in [url.to_owned(), with_password(url, &other), with_password(url, "wrong")] {
        assert!(!git(work.path(), &["ls-remote", &bad]).await.status.success(), "{bad}");
    }
    let base = with_password(&world.url, &own);
    for path in [
        "/git/acme/nothing.git",
        "/git/acme/..%2f..%2facme%2ffirst.git",
        "/git/acme/first",
        "/git/other/first.git",
    ] {
        assert!(!git(work.path(), &["ls-remote", &format!("{base}{path}")]).await.status.success(), "{path}");
    }
    must(work.path(), &["ls-remote", &with_password(url, &own)]).await;
    let config = std::fs::read_to_string(world.repository_path(&first).join("config")).unwrap();
    assert!(!config.contains(&own));
}

#[tokio::test]
async fn hostile_skeletons_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("bomb")).unwrap();
    let bomb = "${% for a in range(9999) %}${% for b in range(9999) %}${% for c in range(9999) %}x${% endfor %}${% endfor %}${% endfor %}";
    std::fs::write(root.path().join("bomb/file"), bomb).unwrap();
    std::fs::write(root.path().join("secret"), "x").unwrap();
    let world = World::with(|config| {
        config.git.skeleton_roots = vec![root.path().join("skeletons"), root.path().to_owned()]
    })
    .await;
    let inputs = [
        json!({"skeleton": "bomb"}),
        json!({"skeleton": "../etc"}),
        json!({"skeleton": "/etc"}),
        json!({"skeleton": "."}),
        json!({"skeleton": "missing"}),
        json!({"files": {"../x": "y"}}),
        json!({"files": {".git/hooks/post-update": "y"}}),
        json!({"files": {"a": "x", "a/b": "y"}}),
        json!({"files": {"a": "${{ missing }}"}}),
        json!({"name": "Not A Name"}),
    ];
    for (index, inputs) in inputs.into_iter().enumerate() {
        let call = context("organizations/acme/projects/hello/resources/repo", &format!("op{index}/repo/1"));
        let outcome = world.apply("git", "git-repository", &call, inputs.clone()).await;
        let code = outcome.failure().map(|failure| failure.code);
        assert_eq!(code, Some(FailureCode::InvalidArgument), "{inputs}: {outcome:?}");
    }
    assert!(!world.data.join("repositories/acme/hello.git").exists());
    assert_eq!(std::fs::read_dir(world.data.join("repositories/.building")).unwrap().count(), 0);
}

#[tokio::test]
async fn two_resources_do_not_share_a_repository() {
    let world = World::new().await;
    world.repository("hello", &[("a", "1")]).await;
    let call = context("organizations/acme/projects/hello/resources/other", "op/other/1");
    let outcome = world.apply("git", "git-repository", &call, json!({"files": {"a": "2"}})).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Conflict);
}

/// After a database was set back, a project of the same name is not given the code of the one that was there.
#[tokio::test]
async fn what_is_left_of_a_resource_is_not_taken_over_by_one_of_the_same_name() {
    let world = World::new().await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let path = world.repository_path(&made);
    let before = must(Path::new(&path), &["rev-parse", "main"]).await;
    let resource = "organizations/acme/projects/hello/resources/repo";
    let inputs = json!({"files": {"a": "2"}});
    let outcome = world.apply("git", "git-repository", &context(resource, "another/1"), inputs.clone()).await;
    let failure = outcome.failure().unwrap();
    assert_eq!((failure.code, failure.partial.is_some()), (FailureCode::Conflict, false));
    assert_eq!(
        failure.message,
        format!(
            "a repository `acme/hello` (`{}`) is left of a resource that is not recorded any more: save what is in it and \
             remove it, or choose another `name`",
            made.identity
        )
    );
    assert_eq!(must(Path::new(&path), &["rev-parse", "main"]).await, before);
    // Whoever has it recorded changes it as before.
    let call = context(resource, "hello/2");
    let changed = success(world.apply_over("git", "git-repository", &call, inputs, Some(&made), &[]).await);
    assert_eq!(changed.identity, made.identity);
}

/// A database was set back to when another project had the name: what that project is recorded with is gone, and what is
/// there under the name is not its.
#[tokio::test]
async fn what_has_the_name_of_something_that_is_gone_is_not_that() {
    let world = World::new().await;
    let former = world.repository("hello", &[("a", "1")]).await;
    let resource = "organizations/acme/projects/hello/resources/repo";
    let by = |success: &Success| Lookup::Identity(success.identity.clone());
    let remove = context(resource, "hello/gone");
    world.destroy("git", "git-repository", &remove, &former.identity).await;
    let inputs = json!({"files": {"a": "2"}});
    let later = success(
        world.apply("git", "git-repository", &context(resource, "hello/anew/1"), inputs.clone()).await,
    );
    assert_ne!(later.identity, former.identity);
    let call = context(resource, "hello/3");
    let seen = world.observe("git", "git-repository", &call, by(&former)).await;
    assert!(matches!(seen, Observation::Absent), "{seen:?}");
    let outcome = world.apply_over("git", "git-repository", &call, inputs, Some(&former), &[]).await;
    assert_eq!(outcome.failure().unwrap().code, FailureCode::Conflict);
    world.destroy("git", "git-repository", &context(resource, "hello/4"), &former.identity).await;
    let seen = world.observe("git", "git-repository", &call, by(&later)).await;
    assert!(matches!(seen, Observation::Found(_)), "{seen:?}");
    assert_eq!(must(Path::new(&world.repository_path(&later)), &["show", "main:a"]).await, "2");
}

/// Before repositories had identities of their own they were known by their names.
#[tokio::test]
async fn a_repository_from_before_there_were_identities_is_known_by_its_name() {
    let world = World::new().await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let path = world.repository_path(&made);
    std::fs::remove_file(path.join("pavior-identity")).unwrap();
    let things = world.data.join("drivers/git/things");
    let record = std::fs::read_dir(&things).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&record).unwrap().replace(&made.identity, "acme/hello");
    std::fs::remove_file(record).unwrap();
    let name = format!("{}.json", pavior_core::digest::sha256_hex(b"acme/hello"));
    std::fs::write(things.join(name), text).unwrap();
    let world = world.again(|_| {}).await;
    let known = Success { identity: "acme/hello".to_owned(), ..made };
    let resource = "organizations/acme/projects/hello/resources/repo";
    let by = || Lookup::Identity(known.identity.clone());
    let seen = world.observe("git", "git-repository", &context(resource, "look"), by()).await;
    assert!(matches!(seen, Observation::Found(_)), "{seen:?}");
    let call = context(resource, "hello/2");
    let inputs = json!({"files": {"a": "2"}});
    success(world.apply_over("git", "git-repository", &call, inputs, Some(&known), &[]).await);
    world.destroy("git", "git-repository", &context(resource, "hello/3"), &known.identity).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn an_upgrade_is_offered_on_a_branch_after_changes() {
    let world = World::new().await;
    let made = world.repository("hello", &[("a", "1")]).await;
    let path = world.repository_path(&made);
    let work = tempfile::tempdir().unwrap();
    must(work.path(), &["clone", "-q", path.to_str().unwrap(), "copy"]).await;
    let copy = work.path().join("copy");
    std::fs::write(copy.join("own"), "x").unwrap();
    must(&copy, &["add", "."]).await;
    must(&copy, &["commit", "-q", "-m", "Own"]).await;
    must(&copy, &["push", "-q", "origin", "main"]).await;
    let call = context("organizations/acme/projects/hello/resources/repo", "hello/2");
    let inputs = json!({"files": {"a": "2"}});
    success(world.apply_over("git", "git-repository", &call, inputs, Some(&made), &[]).await);
    must(&copy, &["fetch", "-q", "origin"]).await;
    must(&copy, &["merge", "-q", "origin/pavior-upgrade", "-m", "Upgrade"]).await;
    assert_eq!(std::fs::read_to_string(copy.join("a")).unwrap(), "2");
    assert_eq!(std::fs::read_to_string(copy.join("own")).unwrap(), "x");
}

#[tokio::test]
async fn a_skeleton_that_changed_since_the_plan_is_refused_with_both_digests() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("web/src")).unwrap();
    std::fs::write(root.path().join("web/src/app.py"), "print('${{ name }}')\n").unwrap();
    let world = World::with(|config| config.git.skeleton_roots = vec![root.path().to_owned()]).await;
    let pin = |skeleton: serde_json::Value| PinRequest {
        organization: "acme".to_owned(),
        resource_type: "git-repository".to_owned(),
        action: None,
        inputs: json!({"skeleton": skeleton}),
    };
    let driver = world.driver("git");
    assert_eq!(driver.pin(pin(json!({"$unknown": "x"}))).await.unwrap(), json!({}));
    let pinned = driver.pin(pin(json!("web"))).await.unwrap();
    let planned = pinned["skeleton_digest"].as_str().unwrap().to_owned();
    let inputs = json!({"skeleton": "web", "skeleton_digest": planned});

    std::fs::write(root.path().join("web/src/app.py"), "print('something else')\n").unwrap();
    let call = context("organizations/acme/projects/hello/resources/repo", "op/repo/1");
    let outcome = world.apply("git", "git-repository", &call, inputs.clone()).await;
    let failure = outcome.failure().unwrap();
    assert_eq!(failure.code, FailureCode::Changed, "{failure}");
    assert_eq!(failure.details["expected"], planned);
    let found = driver.pin(pin(json!("web"))).await.unwrap();
    assert_eq!(failure.details["found"], found["skeleton_digest"].as_str().unwrap());

    std::fs::write(root.path().join("web/src/app.py"), "print('${{ name }}')\n").unwrap();
    let call = context("organizations/acme/projects/hello/resources/repo", "op/repo/2");
    success(world.apply("git", "git-repository", &call, inputs).await);

    std::os::unix::fs::symlink("/etc/passwd", root.path().join("web/link")).unwrap();
    let failure = driver.pin(pin(json!("web"))).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::InvalidArgument, "{failure}");
}

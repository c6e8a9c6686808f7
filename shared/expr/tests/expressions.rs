//! What golden paths rely on, and what hostile texts must not be able to do.

// A failure to set up a test is a failure of the test.
#![allow(clippy::panic, clippy::unwrap_used)]

use pavior_expr::{
    check, evaluate, evaluate_known, evaluate_text, evaluate_tracking, references, render_skeleton, secret,
    unknown,
};
use serde_json::{Value, json};

/// Runs on a stack that is smaller than any worker's, so that an overflow would show.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(work).unwrap().join().unwrap()
}

#[test]
fn an_expression_alone_keeps_its_type() {
    let scope =
        json!({"n": 3, "list": [1, {"a": null}], "f": 1.5, "b": true, "my": {"s-t": "x"}, "big": u64::MAX});
    let value = json!({"n": "${{ n }}", "t": "n=${{ n }}", "l": "${{ list }}", "f": "${{ f }}", "b": ["${{ b }}"],
        "h": "${{ my.s-t }}", "e": "${{ n + 1 }}", "m": "${{ {'k': n} }}", "plain": "{{ no }}", "big": "${{ big }}"});
    let expected = json!({"n": 3, "t": "n=3", "l": [1, {"a": null}], "f": 1.5, "b": [true], "h": "x", "e": 4,
        "m": {"k": 3}, "plain": "{{ no }}", "big": u64::MAX});
    assert_eq!(evaluate(&value, &scope).unwrap(), expected);
}

#[test]
fn errors_name_the_place() {
    let error = evaluate(&json!({"a": [{"b": "${{ missing.x }}"}]}), &json!({})).unwrap_err();
    assert_eq!(error.path, "a.0.b");
    assert!(error.message.contains("not defined"), "{error}");
    for broken in ["${{ a +  }}", "${{ a", "${{ }}", "${{ a b }}", "${{ 'x }}", "${{ a | nope }}", "${{ é }}"]
    {
        let result = evaluate(&json!({"k": broken}), &json!({"a": 1}));
        assert_eq!(result.unwrap_err().path, "k", "{broken}");
    }
    assert_eq!(check(&json!({"a": "${{ ( }}", "b": ["${{ ) }}"], "c": "${{ ok }}"})).unwrap_err().len(), 2);
    assert!(evaluate(&json!("${{ undefined_name }}"), &json!({})).is_err());
    assert!(evaluate(&json!("${{ [undefined_name] }}"), &json!({})).is_err());
}

#[test]
fn references_are_the_union() {
    let value = json!({"a": "${{ resources.db.url }}/${{ parameters.size }}", "b": ["${{ artifact.path }}"]});
    let names: Vec<String> = references(&value).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["artifact.path", "parameters.size", "resources.db.url"]);
}

#[test]
fn planning_keeps_unknown_and_secret() {
    let scope = json!({"parameters": {"size": "small"}, "resources": {
        "db": {"url": unknown("db"), "password": secret("db/password"), "port": 5}, "later": unknown("later")}});
    let value = json!({"known": "${{ parameters.size }}", "later": "x${{ resources.db.url }}",
        "password": "${{ resources.db.password }}", "mixed": "p=${{ resources.db.password }}",
        "below": "${{ resources.later.any.thing }}", "computed": "${{ resources.db.password | upper }}",
        "special": "${{ artifact.path }}", "port": "${{ resources.db.port }}"});
    let planned = evaluate_known(&value, &scope, &|name| name.root() == "artifact").unwrap();
    let expected = json!({"known": "small", "later": unknown("x${{ resources.db.url }}"),
        "password": secret("db/password"), "mixed": unknown("p=${{ resources.db.password }}"),
        "below": unknown("${{ resources.later.any.thing }}"),
        "computed": unknown("${{ resources.db.password | upper }}"), "special": unknown("${{ artifact.path }}"),
        "port": 5});
    assert_eq!(planned, expected);
    assert!(evaluate(&json!("p=${{ resources.db.password }}"), &scope).is_err());
    assert_eq!(evaluate(&json!("${{ resources.db.password }}"), &scope).unwrap(), secret("db/password"));
    assert!(evaluate_known(&json!("${{ typo.x }}"), &scope, &|_| false).is_err());
}

/// What a reference reads now says nothing about whether it will be the same later.
#[test]
fn what_is_not_known_stays_so_beside_and_inside_secrets() {
    let scope = json!({"resources": {
        "db": {"password": secret("db/password"), "host": "h"}, "other": {"url": unknown("other")}}});
    let changes = |name: &pavior_expr::Reference| name.segment(1) == Some("db");
    for text in [
        "${{ resources.db.password }}",
        "${{ resources.db }}",
        "${{ resources.db.host }}",
        "p=${{ resources.db.password }}",
        "${{ resources.other.url }}:${{ resources.db.password }}",
        "${{ [resources.other.url, resources.db.password] }}",
    ] {
        assert_eq!(evaluate_known(&json!(text), &scope, &changes).unwrap(), unknown(text), "{text}");
    }
    // Nothing changes: a secret alone is what it was.
    let still = |text: &str| evaluate_known(&json!(text), &scope, &|_| false).unwrap();
    assert_eq!(still("${{ resources.db.password }}"), secret("db/password"));
    assert_eq!(still("${{ resources.db }}"), scope["resources"]["db"]);
}

#[test]
fn tracking_names_what_holds_a_secret() {
    let scope = json!({"resources": {"db": {"password": "hunter2", "url": "u"}}});
    let value = json!({"a": "p=${{ resources.db.password }}", "b": "${{ resources.db.url }}"});
    let is_secret = |name: &pavior_expr::Reference| name.segment(2) == Some("password");
    let (rendered, tainted) = evaluate_tracking(&value, &scope, &is_secret).unwrap();
    assert_eq!(rendered, json!({"a": "p=hunter2", "b": "u"}));
    assert_eq!(tainted, ["a"]);
}

#[test]
fn hostile_expressions_are_clean_errors() {
    let bombs = vec![
        "(".repeat(10_000) + "1" + &")".repeat(10_000),
        "[".repeat(10_000),
        "not ".repeat(10_000) + "a",
        "-".repeat(1_900) + "1",
        "a".to_owned() + &".b".repeat(900),
        "a".to_owned() + &"|upper".repeat(300),
        "1".to_owned() + &"+1".repeat(900),
        "a if b else ".repeat(150) + "c",
        "range(1000000000)|list".to_owned(),
        "'x' * 1000000000".to_owned(),
        "range(100000)|map('upper')|list|join".to_owned(),
        "2 ** 2 ** 2 ** 2 ** 99".to_owned(),
        "a['".to_owned() + &"\\".repeat(1001),
        "debug()".to_owned(),
    ];
    for bomb in bombs {
        let shown: String = bomb.chars().take(30).collect();
        let failed = on_a_small_stack(move || {
            let text = json!(format!("${{{{ {bomb} }}}}"));
            let _ = references(&text);
            let _ = check(&text);
            evaluate(&text, &json!({"a": "x", "b": false, "c": 1})).is_err()
        });
        // A chain that stays within the limits may be right; it only must not overflow.
        assert!(
            failed || shown.starts_with("a if") || shown.starts_with('-') || shown.starts_with("1+"),
            "{shown}"
        );
    }
    on_a_small_stack(|| {
        let within = "not ".repeat(250) + "a";
        let _ = evaluate(&json!(format!("${{{{ {within} }}}}")), &json!({"a": true}));
        let within = "1".to_owned() + &"+1".repeat(250);
        assert_eq!(evaluate(&json!(format!("${{{{ {within} }}}}")), &json!({})).unwrap(), json!(251));
    });
}

#[test]
fn a_deep_value_is_refused() {
    on_a_small_stack(|| {
        let mut value = json!("${{ a }}");
        for _ in 0..500 {
            value = json!([value]);
        }
        assert!(evaluate(&value, &json!({"a": 1})).is_err());
        assert!(references(&value).is_err());
        assert!(check(&value).is_err());
    });
}

#[test]
fn text_is_text() {
    assert_eq!(evaluate_text("a${{ n }}", &json!({"n": 1})).unwrap(), "a1");
    assert_eq!(evaluate_text("${{ n }}", &json!({"n": 1})).unwrap(), "1");
    assert!(evaluate_text("${{ n }}", &json!({"n": []})).is_err());
}

fn skeleton(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

fn render(files: &[(&str, &str)], scope: &Value) -> Result<Vec<(String, String)>, String> {
    let dir = skeleton(files);
    let mut out = Vec::new();
    let result = render_skeleton(dir.path(), scope, &mut |file| {
        out.push((file.path, String::from_utf8_lossy(&file.bytes).into_owned()));
        Ok(())
    });
    result.map(|()| out).map_err(|error| error.to_string())
}

#[test]
fn a_skeleton_is_rendered() {
    let scope =
        json!({"name": "hello", "parameters": {"on": true, "a-b": 1, "none": ""}, "list": ["x", "y"]});
    let files = [
        ("src/${{ name }}.rs", "fn main() { println!(\"{{}} {% x %} ${#a[@]} ${HOME}\"); } // ${{ name }}\n"),
        (
            "b.txt",
            "${% if parameters.on %}\non ${{ parameters.a-b }}\n${% endif %}\n${% for i in list %}\n- ${{ i }}\n${% endfor %}\n",
        ),
        ("c/${{ parameters.none }}/d", "left out"),
        ("e.yml", "${% raw %}${{ secrets.X }} ${% if %}${% endraw %}${// gone //}\n"),
    ];
    let out = render(&files, &scope).unwrap();
    assert_eq!(
        out,
        [
            ("b.txt".to_owned(), "on 1\n- x\n- y\n".to_owned()),
            ("e.yml".to_owned(), "${{ secrets.X }} ${% if %}".to_owned()),
            (
                "src/hello.rs".to_owned(),
                "fn main() { println!(\"{{}} {% x %} ${#a[@]} ${HOME}\"); } // hello\n".to_owned()
            ),
        ]
    );
}

#[test]
fn skeleton_bombs_are_clean_errors() {
    let scope = json!({"name": "x", "up": "../x", "slash": "a/b", "git": ".git"});
    let loops = "${% for a in range(9999) %}${% for b in range(9999) %}${% for c in range(9999) %}x${% endfor %}${% endfor %}${% endfor %}";
    let nested = "${% if true %}".repeat(2_000);
    let recursion = "${% macro m() %}${{ m() }}${% endmacro %}${{ m() }}";
    let brackets = format!("${{{{ {}1{} }}}}", "[".repeat(10_000), "]".repeat(10_000));
    let brackets_in_statement = format!("${{% if {}1 %}}", "(".repeat(10_000));
    let text = [
        loops,
        &nested,
        recursion,
        &brackets,
        &brackets_in_statement,
        "${{ missing }}",
        "${{ name",
        "${% include 'x' %}",
    ];
    for bomb in text {
        let (bomb, scope) = (bomb.to_owned(), scope.clone());
        let shown: String = bomb.chars().take(40).collect();
        let error = on_a_small_stack(move || render(&[("bomb.txt", &bomb)], &scope));
        assert!(error.as_ref().is_err_and(|error| error.starts_with("`bomb.txt`")), "{shown}: {error:?}");
    }
    for path in ["${{ up }}", "${{ slash }}", "${{ git }}/hooks"] {
        assert!(render(&[(path, "x")], &scope).is_err(), "{path}");
    }
    let dir = skeleton(&[("a", "x")]);
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    assert!(render_skeleton(dir.path(), &scope, &mut |_| Ok(())).is_err());
}

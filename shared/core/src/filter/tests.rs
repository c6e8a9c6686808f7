use super::*;
use proptest::prelude::*;

fn text(value: &str, wildcard: Wildcard) -> Literal {
    Literal::Text { value: value.into(), wildcard }
}

fn is(path: &str, op: Op, value: Literal) -> Filter {
    Filter::Restriction { path: path.split('.').map(str::to_owned).collect(), op, value }
}

fn word(path: &str, value: &str) -> Filter {
    is(path, Op::Eq, text(value, Wildcard::None))
}

#[test]
fn examples() {
    let table = [
        ("", Filter::And(vec![])),
        ("  ", Filter::And(vec![])),
        ("a = b", word("a", "b")),
        ("a=b", word("a", "b")),
        (
            "lifecycle = PRODUCTION AND labels.team:\"pay*\"",
            Filter::And(vec![
                word("lifecycle", "PRODUCTION"),
                is("labels.team", Op::Has, text("pay", Wildcard::Prefix)),
            ]),
        ),
        (
            "create_time > \"2026-01-01T00:00:00Z\" -labels.deprecated:*",
            Filter::And(vec![
                is("create_time", Op::Gt, text("2026-01-01T00:00:00Z", Wildcard::None)),
                Filter::Not(Box::new(is("labels.deprecated", Op::Has, text("", Wildcard::Any)))),
            ]),
        ),
        // OR binds tighter than AND.
        (
            "a=1x AND b=2x OR c=3x",
            Filter::And(vec![word("a", "1x"), Filter::Or(vec![word("b", "2x"), word("c", "3x")])]),
        ),
        (
            "(a=x b=y) OR c=z",
            Filter::Or(vec![Filter::And(vec![word("a", "x"), word("b", "y")]), word("c", "z")]),
        ),
        ("NOT a=b", Filter::Not(Box::new(word("a", "b")))),
        ("-(a=b)", Filter::Not(Box::new(word("a", "b")))),
        (
            "web \"hello world\"",
            Filter::And(vec![Filter::Global("web".into()), Filter::Global("hello world".into())]),
        ),
        ("size >= -1.5", is("size", Op::Ge, Literal::Number { value: -1.5, raw: "-1.5".into() })),
        ("size != 10", is("size", Op::Ne, Literal::Number { value: 10.0, raw: "10".into() })),
        ("ready = true", is("ready", Op::Eq, Literal::Bool(true))),
        ("owner = null", is("owner", Op::Eq, Literal::Null)),
        ("ready = \"true\"", word("ready", "true")),
        ("a = *x*", is("a", Op::Eq, text("x", Wildcard::Contains))),
        ("a = '*x'", is("a", Op::Eq, text("x", Wildcard::Suffix))),
        (r#"a = "x\*""#, word("a", "x*")),
        (r#"a = "say \"hi\" \\""#, word("a", r#"say "hi" \"#)),
        ("mail = a@b.com", word("mail", "a@b.com")),
        ("version = 1.2.0", word("version", "1.2.0")),
        (
            "labels.\"a/b\" = c",
            Filter::Restriction {
                path: vec!["labels".into(), "a/b".into()],
                op: Op::Eq,
                value: text("c", Wildcard::None),
            },
        ),
        ("age > 20s", is("age", Op::Gt, text("20s", Wildcard::None))),
        ("my-team", Filter::Global("my-team".into())),
        ("x = a-b", word("x", "a-b")),
        ("((((a=b))))", word("a", "b")),
    ];
    for (given, want) in table {
        assert_eq!(Filter::parse(given), Ok(want), "{given}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let table = [
        ("a =", 4, "a value is expected after `=`"),
        ("= b", 1, "a field name or a text is expected"),
        ("a = b)", 6, "`)` without `(`"),
        ("(a = b", 1, "`(` without `)`"),
        ("AND a=b", 1, "`AND` must stand between two terms"),
        ("a=b OR", 7, "the filter ends where a term is expected"),
        ("a=b AND", 8, "the filter ends where a term is expected"),
        ("a = \"b", 5, "the quoted text has no end"),
        ("a = x*y", 5, "a wildcard `*` may only stand at the begin or the end of a value"),
        ("a < x*", 5, "a wildcard cannot be used with `<`"),
        ("f(x)", 1, "functions are not supported"),
        ("a:(b OR c)", 3, "parentheses are not supported at the right of a comparison"),
        ("a, b", 2, "unexpected character `,`"),
        ("a ! b", 3, "unexpected character `!`"),
        ("- a", 1, "`-` must stand directly before what it negates"),
        ("a*.b = c", 1, "`a*` is not a field name"),
        ("a = b = c", 7, "unexpected text after the end of the filter"),
        ("\"\" = x", 1, "`` is not a field name"),
        (r#"a = "\n""#, 6, "a backslash may only stand before a quote, a backslash or `*`"),
        ("a = AND", 5, "a value is expected after `=`"),
    ];
    for (given, position, problem) in table {
        assert_eq!(Filter::parse(given), error(position, problem), "{given}");
    }
}

#[test]
fn limits_hold() {
    assert!(Filter::parse(&"a".repeat(MAX_LENGTH)).is_ok());
    assert!(Filter::parse(&"a".repeat(MAX_LENGTH + 1)).is_err());
    let nested = |n: usize| format!("{}a=b{}", "(".repeat(n), ")".repeat(n));
    assert!(Filter::parse(&nested(MAX_DEPTH)).is_ok());
    assert!(Filter::parse(&nested(MAX_DEPTH + 1)).is_err());
    assert!(Filter::parse(&format!("{}a", "-".repeat(2000))).is_err());
    assert!(Filter::parse(&format!("{}a", "NOT ".repeat(400))).is_err());
    assert!(Filter::parse(&"a ".repeat(MAX_TERMS)).is_ok());
    assert!(Filter::parse(&"a ".repeat(MAX_TERMS + 1)).is_err());
}

#[test]
fn order_by_table() {
    let key = |path: &str, desc| (path.split('.').map(str::to_owned).collect::<Vec<_>>(), desc);
    assert_eq!(order_by(""), Ok(vec![]));
    assert_eq!(
        order_by("  create_time   desc ,  name "),
        Ok(vec![key("create_time", true), key("name", false)])
    );
    assert_eq!(order_by("a.b asc"), Ok(vec![key("a.b", false)]));
    for bad in
        ["a,", ",", "a b", "a desc desc", "a.", "1a", "a, a desc", "a;b", "a DESC", "a,b,c,d,e,f,g,h,i"]
    {
        assert!(order_by(bad).is_err(), "{bad}");
    }
    assert_eq!(order_by("ab, c d").unwrap_err().position, 4);
}

#[test]
fn literals_match_text() {
    for (wildcard, yes, no) in [
        (Wildcard::None, "ab", "abc"),
        (Wildcard::Prefix, "abc", "cab"),
        (Wildcard::Suffix, "cab", "abc"),
        (Wildcard::Contains, "cabc", "acb"),
    ] {
        let literal = text("ab", wildcard);
        assert!(literal.matches(yes) && !literal.matches(no));
    }
}

proptest! {
    #[test]
    fn parser_never_panics(given in ".{0,300}") {
        let _ = Filter::parse(&given);
        let _ = order_by(&given);
    }

    #[test]
    fn parser_never_panics_on_likely_text(given in "([a-c*.:=<>!()\"' \\\\-]|AND|OR|NOT){0,80}") {
        let _ = Filter::parse(&given);
    }

    #[test]
    fn any_text_can_be_quoted(value in ".{0,60}") {
        let quoted: String = value.chars().flat_map(|c| match c {
            '"' | '\\' | '*' => vec!['\\', c],
            c => vec![c],
        }).collect();
        prop_assert_eq!(Filter::parse(&format!("a = \"{quoted}\"")), Ok(word("a", &value)));
    }
}

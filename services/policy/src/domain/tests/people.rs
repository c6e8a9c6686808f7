//! Who stands behind whoever asks, and both sides of what goes from one owner to another.

use super::*;
use crate::domain::combine::Effect;

const APPROVED: &str = r#"@id("eyes") @approve("1 of group:platform") forbid (principal, action, resource);"#;

fn asked_by(kind: PrincipalKind, name: &str, person: Option<&str>) -> Input {
    let mut asked = input("x", &["payments"], CREATE);
    asked.principal.kind = kind;
    asked.principal.name = format!("organizations/acme/{name}");
    asked.principal.on_behalf_of = person.map(|person| format!("organizations/acme/{person}"));
    asked
}

/// Provisioning takes down what is over, by itself.
fn by_provisioning() -> Input {
    let mut asked = input("x", &[], DELETE);
    asked.principal.kind = PrincipalKind::Service;
    asked.principal.organization = "pavior".into();
    asked.principal.name = "organizations/pavior/services/provisioning".into();
    asked.stage = Stage::Plan;
    asked
}

#[test]
fn what_needs_people_is_asked_for_by_people() {
    let approve = || bound("eyes", PolicyType::Guardrail, APPROVED, Mode::Enforce);
    let compilation = compile(everyone(), vec![approve()]);
    for (asked, want) in [
        (asked_by(PrincipalKind::User, "users/pia", None), Effect::RequireApproval),
        (asked_by(PrincipalKind::Agent, "agents/bot", Some("users/pia")), Effect::RequireApproval),
        (asked_by(PrincipalKind::Agent, "agents/bot", None), Effect::Deny),
        (asked_by(PrincipalKind::Agent, "agents/bot", Some("agents/other")), Effect::Deny),
        (asked_by(PrincipalKind::ServiceAccount, "serviceAccounts/ci", None), Effect::Deny),
        (
            asked_by(PrincipalKind::ServiceAccount, "serviceAccounts/ci", Some("users/pia")),
            Effect::RequireApproval,
        ),
        // It names the person itself when it asks.
        (by_provisioning(), Effect::RequireApproval),
    ] {
        let outcome = compilation.decide(&asked, None);
        assert_eq!(outcome.effect, want, "{:?}", asked.principal);
        assert_eq!(outcome.approvals.is_empty(), want == Effect::Deny);
    }
    let alone = asked_by(PrincipalKind::Agent, "agents/bot", None);
    let outcome = compilation.decide(&alone, None);
    assert_eq!(ids(&outcome), ["builtin.nobody-behind"]);
    assert_eq!(outcome.reasons[0].policy_type, PolicyType::Guardrail);
    assert!(outcome.reasons[0].fix.contains("`act`"), "{:?}", outcome.reasons);
    // What needs nobody is not refused to it.
    assert_eq!(compile(everyone(), vec![]).decide(&alone, None).effect, Effect::Allow);
}

fn moved(from: Option<&str>, to: Option<&str>) -> Input {
    let mut asked = input("alice", &["payments", "storefront"], ENTITY);
    asked.resource.owner = from.map(group);
    asked.context.new_owner = to.map(group);
    asked.context.moves_owner = true;
    asked
}

#[test]
fn what_goes_to_another_owner_is_asked_of_both() {
    let mut owned = grant("b", "dev", &[everybody()]);
    owned.reach = Reach::Owned;
    let compilation = compile(RoleIndex::new([role("dev", &["*"])], [owned]), vec![]);
    for (from, to, want) in [
        (Some("payments"), Some("payments"), Effect::Allow),
        (Some("payments"), Some("storefront"), Effect::Allow),
        // Neither given to a team that would not take it, nor taken from one, nor from nobody, nor thrown away.
        (Some("payments"), Some("search"), Effect::Deny),
        (Some("search"), Some("payments"), Effect::Deny),
        (None, Some("payments"), Effect::Deny),
        (Some("payments"), None, Effect::Deny),
    ] {
        assert_eq!(compilation.decide(&moved(from, to), None).effect, want, "{from:?} to {to:?}");
    }
    let mut plain = moved(Some("payments"), None);
    plain.context.moves_owner = false;
    assert_eq!(compilation.decide(&plain, None).effect, Effect::Allow);
}

#[test]
fn labels_are_asked_about_as_they_are_and_as_they_would_be() {
    let forbid = r#"@id("frozen") forbid (principal, action, resource)
                    when { resource.hasTag("freeze") && resource.getTag("freeze") == "yes" };"#;
    let policies = vec![bound("frozen", PolicyType::Access, forbid, Mode::Enforce)];
    let compilation = compile(everyone(), policies);
    let labels = |value: &str| BTreeMap::from([("freeze".to_owned(), value.to_owned())]);
    for (before, after, changes, want) in [
        ("no", "no", true, Effect::Allow),
        ("no", "yes", true, Effect::Deny),
        ("yes", "no", true, Effect::Deny),
        // Those of something new are of no resource yet.
        ("no", "yes", false, Effect::Allow),
    ] {
        let mut asked = input("alice", &["payments"], ENTITY);
        (asked.resource.labels, asked.context.labels) = (labels(before), labels(after));
        asked.context.changes_labels = changes;
        assert_eq!(compilation.decide(&asked, None).effect, want, "{before} to {after}");
    }
}

#[test]
fn the_stricter_side_counts_and_approvals_of_both_are_needed() {
    let of = |owner: &str, effect: &str| {
        format!(
            r#"@id("{owner}") {effect} forbid (principal, action, resource)
               when {{ resource has owner && resource.owner == Pavior::Group::"organizations/acme/groups/{owner}" }};"#
        )
    };
    let policies = [
        ("payments", of("payments", r#"@approve("1 of group:payments")"#)),
        ("storefront", of("storefront", r#"@approve("2 of group:storefront")"#)),
        ("search", of("search", "")),
    ];
    let policies = policies.map(|(id, text)| bound(id, PolicyType::Guardrail, &text, Mode::Enforce));
    let compilation = compile(everyone(), policies.into());
    let both = compilation.decide(&moved(Some("payments"), Some("storefront")), None);
    assert_eq!((both.effect, ids(&both)), (Effect::RequireApproval, vec!["payments", "storefront"]));
    let quorums = crate::domain::engine::approvals_of(&both);
    assert_eq!(quorums, BTreeMap::from([("payments".to_owned(), 1), ("storefront".to_owned(), 2)]));
    for (from, to) in [("payments", "search"), ("search", "payments")] {
        let denied = compilation.decide(&moved(Some(from), Some(to)), None);
        assert_eq!((denied.effect, ids(&denied)), (Effect::Deny, vec!["search"]), "{from} to {to}");
    }
}

//! For whom an issuer may speak, and whom its tokens make of somebody.

use std::path::Path;

use pavior_auth::{IssuerConfig, TokenVerifier};
use pavior_core::principal::PrincipalKind;
use serde_json::{Value, json};

use crate::clock;
use crate::external::{ISSUER, World};

/// One issuer for several organizations and every kind of principal.
fn shared_issuer(jwks: &Path) -> IssuerConfig {
    IssuerConfig {
        jwks_file: Some(jwks.to_owned()),
        organization_claim: Some("org".to_owned()),
        organizations: ["acme", "globex", "pavior"].map(str::to_owned).to_vec(),
        kinds: vec![PrincipalKind::User, PrincipalKind::ServiceAccount, PrincipalKind::Agent],
        kind_claim: Some("kind".to_owned()),
        groups_claim: Some("groups".to_owned()),
        on_behalf_of_claim: Some("for".to_owned()),
        installation_operators: vec!["organizations/pavior/users/operator".to_owned()],
        ..IssuerConfig::new(ISSUER, "pavior")
    }
}

/// A world whose issuer is configured so, and what it makes of claims.
fn world_with(change: impl FnOnce(&mut IssuerConfig)) -> World {
    let mut world = World::new();
    let mut config = shared_issuer(&world.dir.path().join("jwks.json"));
    change(&mut config);
    world.verifier = TokenVerifier::new(vec![config], world.clock.clone()).unwrap();
    world
}

impl World {
    async fn of(&self, more: Value) -> Result<pavior_core::Principal, &'static str> {
        let token = self.with(|claims| {
            claims["org"] = json!("acme");
            for (key, value) in more.as_object().unwrap() {
                claims[key.as_str()] = value.clone();
            }
        });
        let known = self.verifier.verify(&token).await.map_err(|refused| refused.reason())?;
        Ok((*known.principal).clone())
    }
}

#[tokio::test]
async fn an_issuer_speaks_for_its_organizations_and_kinds_only() {
    let world = world_with(|_| {});
    assert_eq!(world.of(json!({})).await.unwrap().name, "organizations/acme/users/alice");
    assert_eq!(world.of(json!({"org": "umbrella"})).await.unwrap_err(), "organization");
    assert_eq!(world.of(json!({"org": "acme/users/x"})).await.unwrap_err(), "organization");
    let people = world_with(|config| config.kinds = vec![PrincipalKind::User]);
    for kind in ["service_account", "agent"] {
        assert_eq!(people.of(json!({"kind": kind})).await.unwrap_err(), "kind");
        assert_eq!(world.of(json!({"kind": kind})).await.unwrap().kind.as_str(), kind);
    }
    // Nobody gets in by a token exchange who would not by a token of its own.
    assert_eq!(people.of(json!({"act": {"sub": "bot"}})).await.unwrap_err(), "kind");
}

#[tokio::test]
async fn administrators_are_known_by_their_full_names() {
    let world = world_with(|config| {
        config.installation_operators.push("organizations/acme/users/root".to_owned());
    });
    let admin = world.of(json!({"org": "pavior", "sub": "operator"})).await.unwrap();
    assert!(admin.installation_operator);
    assert_eq!(admin.name, "organizations/pavior/users/operator");
    assert!(world.of(json!({"sub": "root"})).await.unwrap().installation_operator);
    assert!(!world.of(json!({"org": "globex", "sub": "root"})).await.unwrap().installation_operator);
    assert!(
        !world.of(json!({"sub": "root", "kind": "service_account"})).await.unwrap().installation_operator
    );
    // The platform itself has nobody else, and nobody elsewhere is called like a part of it.
    assert_eq!(world.of(json!({"org": "pavior"})).await.unwrap_err(), "reserved");
    assert_eq!(
        world.of(json!({"org": "pavior", "kind": "service_account", "sub": "operator"})).await.unwrap_err(),
        "reserved"
    );
    for subject in ["operator", "gateway", "catalog", "policy", "provisioning", "audit", "drivers", "portal"]
    {
        for kind in ["user", "service_account", "agent"] {
            let claims = json!({"sub": subject, "kind": kind});
            assert_eq!(world.of(claims).await.unwrap_err(), "reserved", "{kind} {subject}");
        }
    }
}

#[tokio::test]
async fn whom_an_agent_acts_for_is_known() {
    let world = world_with(|_| {});
    let bot =
        world.of(json!({"sub": "pia", "act": {"sub": "bot"}, "email": "pia@example.com"})).await.unwrap();
    assert_eq!((bot.kind, bot.name.as_str()), (PrincipalKind::Agent, "organizations/acme/agents/bot"));
    assert_eq!(bot.on_behalf_of.as_deref(), Some("organizations/acme/users/pia"));
    // What the subject may do is not what its agent may do.
    assert!(bot.groups.is_empty() && bot.email.is_none() && !bot.installation_operator);
    let ci = world
        .of(json!({"sub": "pia", "act": {"sub": "ci", "kind": "service_account", "groups": ["builders"]}}));
    let ci = ci.await.unwrap();
    assert_eq!(
        (ci.name.as_str(), ci.groups),
        ("organizations/acme/serviceAccounts/ci", vec!["builders".to_owned()])
    );
    for human in ["pia", "organizations/acme/users/pia"] {
        let bot = world.of(json!({"sub": "bot", "kind": "agent", "for": human})).await.unwrap();
        assert_eq!(bot.on_behalf_of.as_deref(), Some("organizations/acme/users/pia"));
    }
    let alone = world.of(json!({"sub": "bot", "kind": "agent"})).await.unwrap();
    assert_eq!(alone.on_behalf_of, None);
    let herself = world.of(json!({"for": "alice"})).await.unwrap();
    assert_eq!(herself.on_behalf_of, None);
    for (claims, reason) in [
        (json!({"for": "bob"}), "on_behalf_of"),
        (json!({"sub": "bot", "kind": "agent", "for": "organizations/globex/users/pia"}), "on_behalf_of"),
        (json!({"sub": "bot", "kind": "agent", "for": "operator"}), "on_behalf_of"),
        (json!({"sub": "bot", "kind": "agent", "for": 7}), "on_behalf_of"),
        (json!({"sub": "bot", "kind": "agent", "for": ""}), "on_behalf_of"),
        (json!({"act": "bot"}), "actor"),
        (json!({"act": {}}), "subject"),
        (json!({"act": {"sub": "bob", "kind": "user"}}), "actor"),
        (json!({"act": {"sub": "bot", "iss": "https://other.example"}}), "actor"),
        (json!({"act": {"sub": "bot"}, "for": "pia"}), "actor"),
        (json!({"act": {"sub": "provisioning", "kind": "service_account"}}), "reserved"),
        // Nobody's agent is somebody's agent.
        (json!({"sub": "bot", "kind": "agent", "act": {"sub": "bot-2"}}), "on_behalf_of"),
    ] {
        assert_eq!(world.of(claims.clone()).await.unwrap_err(), reason, "{claims}");
    }
}

#[test]
fn an_issuer_that_speaks_for_nobody_is_refused_with_what_to_write() {
    let good = shared_issuer(Path::new("jwks.json"));
    let said = |change: &dyn Fn(&mut IssuerConfig)| {
        let mut config = good.clone();
        change(&mut config);
        TokenVerifier::new(vec![config], clock()).unwrap_err().to_string()
    };
    for (message, wanted) in [
        (said(&|c| c.organizations.clear()), "write the ids of those that it is for"),
        (said(&|c| c.organizations.push("ACME".to_owned())), "`organizations`: `ACME` is not a legal id"),
        (
            said(&|c| c.organizations.push("-".to_owned())),
            "`-` is not a legal id; that of the installation is `pavior`",
        ),
        (said(&|c| c.kinds.clear()), "write the kinds of principals that it is for"),
        (
            said(&|c| c.installation_operators = vec!["operator".to_owned()]),
            "write `organizations/pavior/users/{user}`",
        ),
        (
            said(&|c| c.installation_operators = vec!["organizations/acme/serviceAccounts/x".to_owned()]),
            "is not the full name of a user",
        ),
        (
            said(&|c| c.installation_operators = vec!["organizations/umbrella/users/x".to_owned()]),
            "add it to `organizations`",
        ),
        (said(&|c| c.kinds.push(PrincipalKind::Service)), "services are the platform's own"),
        (said(&|c| c.kinds = vec![PrincipalKind::Agent]), "`kinds` does not hold `user`"),
    ] {
        assert!(message.contains(wanted), "{message}");
    }
}

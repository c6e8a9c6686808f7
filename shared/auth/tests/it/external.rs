//! What an outsider can send, and what becomes of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use jsonwebtoken::{EncodingKey, Header};
use pavior_auth::{
    Algorithm, DEV_ISSUER, DevClaims, DevIssuer, IssuerConfig, SigningKey, TokenVerifier, Unauthenticated,
};
use pavior_core::clock::{Clock, ManualClock};
use pavior_core::principal::PrincipalKind;
use serde_json::{Value, json};

use crate::{b64, clock, ids, payload};

pub(crate) const ISSUER: &str = "https://id.example.com";

/// An identity provider with keys that a test holds.
pub(crate) struct Provider {
    pub(crate) keys: Vec<(String, SigningKey)>,
}

impl Provider {
    pub(crate) fn new(kids: &[&str]) -> Self {
        let keys = kids.iter().map(|kid| ((*kid).to_owned(), SigningKey::generate().unwrap())).collect();
        Self { keys }
    }

    pub(crate) fn jwks(&self) -> String {
        let keys: Vec<Value> = self.keys.iter().map(|(kid, key)| jwk(kid, key)).collect();
        json!({ "keys": keys }).to_string()
    }

    pub(crate) fn sign(&self, kid: &str, claims: &Value) -> String {
        let key = &self.keys.iter().find(|(name, _)| name == kid).unwrap().1;
        sign(kid, key, claims)
    }
}

fn jwk(kid: &str, key: &SigningKey) -> Value {
    let der = pem_body(&key.public().to_pem());
    json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": b64(&der[12..]) })
}

fn pem_body(pem: &str) -> Vec<u8> {
    use base64::Engine;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).unwrap()
}

fn sign(kid: &str, key: &SigningKey, claims: &Value) -> String {
    let mut header = Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.kid = Some(kid.to_owned());
    let key = EncodingKey::from_ed_der(&pem_body(&key.to_pem().unwrap()));
    jsonwebtoken::encode(&header, claims, &key).unwrap()
}

fn config(jwks: &Path) -> IssuerConfig {
    IssuerConfig {
        jwks_file: Some(jwks.to_owned()),
        organization: Some("acme".to_owned()),
        groups_claim: Some("groups".to_owned()),
        email_claim: Some("email".to_owned()),
        kinds: vec![PrincipalKind::User],
        installation_operators: vec!["organizations/acme/users/paula".to_owned()],
        ..IssuerConfig::new(ISSUER, "pavior")
    }
}

/// An issuer whose keys are fetched.
pub(crate) fn at(address: std::net::SocketAddr) -> IssuerConfig {
    IssuerConfig {
        jwks_url: Some(format!("http://{address}/jwks")),
        organization: Some("acme".to_owned()),
        kinds: vec![PrincipalKind::User],
        ..IssuerConfig::new(ISSUER, "pavior")
    }
}

pub(crate) fn claims(clock: &ManualClock) -> Value {
    let now = clock.now().unix_timestamp();
    json!({ "iss": ISSUER, "aud": "pavior", "sub": "alice", "iat": now, "exp": now + 600, "groups": ["payments"] })
}

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    provider: Provider,
    pub(crate) verifier: TokenVerifier,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = clock();
        let provider = Provider::new(&["one"]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("jwks.json");
        std::fs::write(&file, provider.jwks()).unwrap();
        let verifier = TokenVerifier::new(vec![config(&file)], clock.clone()).unwrap();
        Self { clock, provider, verifier, dir }
    }

    pub(crate) fn with(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims(&self.clock);
        change(&mut claims);
        self.provider.sign("one", &claims)
    }

    async fn reason(&self, token: &str) -> &'static str {
        self.verifier.verify(token).await.err().map_or("accepted", |refused| refused.reason())
    }
}

#[tokio::test]
async fn a_good_token_gives_its_principal() {
    let world = World::new();
    let token = world.with(|claims| claims["email"] = json!("alice@example.com"));
    let caller = world.verifier.verify(&token).await.unwrap();
    let who = &caller.principal;
    assert_eq!((who.kind, who.name.as_str()), (PrincipalKind::User, "organizations/acme/users/alice"));
    assert_eq!(
        (who.organization.as_str(), who.groups.as_slice()),
        ("acme", ["payments".to_owned()].as_slice())
    );
    assert_eq!(who.email.as_deref(), Some("alice@example.com"));
    assert!(!who.installation_operator);
    let admin = world.verifier.verify(&world.with(|claims| claims["sub"] = json!("paula"))).await.unwrap();
    assert!(admin.principal.installation_operator);
}

#[tokio::test]
async fn every_bad_token_is_refused_and_all_refusals_look_alike() {
    let world = World::new();
    let now = world.clock.now().unix_timestamp();
    let good = world.with(|_| {});
    let stranger = SigningKey::generate().unwrap();
    let tampered = {
        let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
        let mut body = payload(&good);
        body["sub"] = json!("paula");
        parts[1] = b64(body.to_string());
        parts.join(".")
    };
    let critical = {
        let header = json!({ "alg": "EdDSA", "kid": "one", "crit": ["exp"] });
        let rest = good.split_once('.').unwrap().1;
        format!("{}.{rest}", b64(header.to_string()))
    };
    let cases = [
        (String::new(), "malformed"),
        ("a.b".to_owned(), "malformed"),
        ("a.b.c.d".to_owned(), "malformed"),
        ("!!!.???.###".to_owned(), "malformed"),
        ("x".repeat(20_000), "too_long"),
        (critical, "critical_extension"),
        (world.with(|c| c["aud"] = json!("other")), "audience"),
        (world.with(|c| c["aud"] = json!(["other", 7])), "audience"),
        (world.with(|c| drop(c.as_object_mut().unwrap().shift_remove("aud"))), "audience"),
        (world.with(|c| c["iss"] = json!("https://evil.example")), "issuer"),
        (world.with(|c| drop(c.as_object_mut().unwrap().shift_remove("iss"))), "issuer"),
        (world.with(|c| c["exp"] = json!(now - 31)), "expired"),
        (world.with(|c| drop(c.as_object_mut().unwrap().shift_remove("exp"))), "expired"),
        (world.with(|c| c["exp"] = json!("tomorrow")), "claims"),
        (world.with(|c| c["exp"] = json!(1e300)), "claims"),
        (world.with(|c| c["nbf"] = json!(now + 31)), "not_yet_valid"),
        (world.with(|c| c["iat"] = json!(now + 31)), "not_yet_valid"),
        (world.with(|c| c["sub"] = json!("../bob")), "subject"),
        (world.with(|c| c["sub"] = json!("alice/roles/admin")), "subject"),
        (world.with(|c| c["sub"] = json!("Alice")), "subject"),
        (world.with(|c| c["sub"] = json!("")), "subject"),
        (world.with(|c| c["groups"] = json!("admins")), "groups"),
        (world.with(|c| c["groups"] = json!(vec!["a"; 129])), "groups"),
        (world.with(|c| c["groups"] = json!(vec!["g".repeat(60); 100])), "groups"),
        (sign("one", &stranger, &claims(&world.clock)), "signature"),
        (sign("two", &stranger, &claims(&world.clock)), "unknown_key"),
        (tampered, "signature"),
    ];
    for (token, reason) in cases {
        assert_eq!(world.reason(&token).await, reason, "{token}");
        let status: tonic::Status = world.verifier.verify(&token).await.unwrap_err().into();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        let cause = match reason {
            "malformed" | "too_long" | "critical_extension" | "type" | "claims" => "NOT_A_TOKEN",
            "issuer" | "unknown_key" | "algorithm" | "signature" => "NOT_TRUSTED",
            "expired" => "EXPIRED",
            "not_yet_valid" => "NOT_YET_VALID",
            "audience" => "WRONG_AUDIENCE",
            _ => "CLAIMS_NOT_ACCEPTED",
        };
        let told = pavior_rpc::problem::from_status(&status);
        assert_eq!(told.metadata["cause"], cause, "{token}");
        // The right audience is told, and the token's own claims are not.
        let audience = (cause == "WRONG_AUDIENCE").then(|| "pavior".to_owned());
        assert_eq!(told.metadata.get("audience"), audience.as_ref());
        assert!(told.metadata.len() <= 2, "{:?}", told.metadata);
    }
    assert_eq!(world.reason(&good).await, "accepted");
}

#[tokio::test]
async fn the_key_chooses_the_algorithm_not_the_token() {
    let world = World::new();
    let claims = claims(&world.clock);
    // The public key, which everybody has, as the secret of a symmetric signature.
    let public = world.provider.keys[0].1.public();
    for secret in [pem_body(&public.to_pem())[12..].to_vec(), public.to_pem().into_bytes()] {
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some("one".to_owned());
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(world.reason(&token).await, "algorithm");
    }
    for alg in ["none", "None", "NONE", "ES256", ""] {
        let header = json!({ "alg": alg, "kid": "one", "typ": "JWT" });
        let token = format!("{}.{}.", b64(header.to_string()), b64(claims.to_string()));
        assert_eq!(world.reason(&token).await, "algorithm", "{alg}");
    }
    let header = json!({ "alg": "EdDSA", "typ": "JWT" });
    let token = format!("{}.{}.", b64(header.to_string()), b64(claims.to_string()));
    assert_eq!(world.reason(&token).await, "unknown_key");
}

#[tokio::test]
async fn symmetric_and_doubled_keys_of_a_set_are_not_used() {
    let world = World::new();
    let key = &world.provider.keys[0].1;
    let set = json!({ "keys": [
        { "kty": "oct", "k": b64("secret"), "alg": "HS256", "kid": "shared" },
        jwk("twice", key), jwk("twice", &SigningKey::generate().unwrap()),
        { "kty": "RSA", "kid": "garbage" }, 7, jwk("one", key),
    ] });
    std::fs::write(world.dir.path().join("jwks.json"), set.to_string()).unwrap();
    let claims = claims(&world.clock);
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some("shared".to_owned());
    let symmetric = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(b"secret")).unwrap();
    assert_eq!(world.reason(&symmetric).await, "unknown_key");
    assert_eq!(world.reason(&sign("twice", key, &claims)).await, "unknown_key");
    assert_eq!(world.reason(&sign("one", key, &claims)).await, "accepted");
}

#[tokio::test]
async fn a_verified_token_is_good_until_it_expires_and_not_longer() {
    let world = World::new();
    let token = world.with(|_| {});
    assert_eq!(world.reason(&token).await, "accepted");
    world.clock.advance(Duration::from_secs(629));
    assert_eq!(world.reason(&token).await, "accepted");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.reason(&token).await, "expired");
}

#[tokio::test]
async fn keys_rotate_through_the_file() {
    let mut world = World::new();
    let file = world.dir.path().join("jwks.json");
    let old = world.with(|_| {});
    assert_eq!(world.reason(&old).await, "accepted");
    world.provider.keys.push(("two".to_owned(), SigningKey::generate().unwrap()));
    std::fs::write(&file, world.provider.jwks()).unwrap();
    let new = world.provider.sign("two", &claims(&world.clock));
    // The cool-down has not passed since the first read.
    assert_eq!(world.reason(&new).await, "unknown_key");
    world.clock.advance(Duration::from_secs(30));
    assert_eq!(world.reason(&new).await, "accepted");
    assert_eq!(world.reason(&old).await, "accepted");
    // The old key goes away: what it signed is not good any more, also where it had been verified before.
    world.provider.keys.remove(0);
    std::fs::write(&file, world.provider.jwks()).unwrap();
    world.clock.advance(Duration::from_secs(300));
    let other = world.provider.sign("two", &claims(&world.clock));
    assert_eq!(world.reason(&other).await, "accepted");
    assert_eq!(world.reason(&old).await, "unknown_key");
}

#[tokio::test]
async fn broken_key_file_leaves_the_keys_at_hand_in_use() {
    let world = World::new();
    assert_eq!(world.reason(&world.with(|_| {})).await, "accepted");
    std::fs::write(world.dir.path().join("jwks.json"), "{").unwrap();
    world.clock.advance(Duration::from_secs(301));
    assert_eq!(world.reason(&world.with(|_| {})).await, "accepted");
    assert!(world.verifier.refresh().await.is_err());
}

#[tokio::test]
async fn keys_rotate_through_the_url_and_unknown_ones_ask_only_after_the_cooldown() {
    #[derive(Clone)]
    struct Served(Arc<std::sync::Mutex<String>>, Arc<AtomicUsize>);
    async fn serve(State(Served(body, count)): State<Served>) -> String {
        count.fetch_add(1, Ordering::SeqCst);
        body.lock().unwrap().clone()
    }
    let clock = clock();
    let mut provider = Provider::new(&["one"]);
    let served = Served(Arc::new(std::sync::Mutex::new(provider.jwks())), Arc::new(AtomicUsize::new(0)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/jwks", axum::routing::get(serve)).with_state(served.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let config = at(address);
    let verifier = TokenVerifier::new(vec![config], clock.clone()).unwrap();
    let reason = async |token: &str| verifier.verify(token).await.map_or_else(|e| e.reason(), |_| "accepted");
    let stranger = SigningKey::generate().unwrap();
    assert_eq!(reason(&provider.sign("one", &claims(&clock))).await, "accepted");
    for _ in 0..20 {
        assert_eq!(reason(&sign("nobody", &stranger, &claims(&clock))).await, "unknown_key");
    }
    assert_eq!(served.1.load(Ordering::SeqCst), 1, "the cool-down holds");
    provider.keys.push(("two".to_owned(), SigningKey::generate().unwrap()));
    *served.0.lock().unwrap() = provider.jwks();
    clock.advance(Duration::from_secs(30));
    assert_eq!(reason(&provider.sign("two", &claims(&clock))).await, "accepted");
    assert_eq!(served.1.load(Ordering::SeqCst), 2);
    // A key that is taken away is not trusted for longer than keys are kept, not even with a token that is shown again
    // and again.
    let again = provider.sign("one", &claims(&clock));
    assert_eq!(reason(&again).await, "accepted");
    let one = provider.keys.remove(0);
    *served.0.lock().unwrap() = provider.jwks();
    clock.advance(Duration::from_secs(299));
    assert_eq!(reason(&again).await, "accepted");
    clock.advance(Duration::from_secs(1));
    assert_eq!(reason(&again).await, "unknown_key");
    provider.keys.push(one);
    *served.0.lock().unwrap() = provider.jwks();
    // A clock that is set back lets nobody wait for it to come round.
    clock.set(clock.now() - Duration::from_secs(3_600));
    assert_eq!(reason(&provider.sign("one", &claims(&clock))).await, "accepted");
    // The provider goes away: what is known stays good, and nobody waits for it.
    server.abort();
    clock.advance(Duration::from_secs(400));
    assert_eq!(reason(&provider.sign("two", &claims(&clock))).await, "accepted");
}

#[test]
fn unsafe_and_contradictory_configurations_are_refused() {
    let good = config(Path::new("jwks.json"));
    let wrong = [
        IssuerConfig { jwks_file: None, ..good.clone() },
        IssuerConfig { jwks_url: Some("https://id.example.com/jwks".to_owned()), ..good.clone() },
        IssuerConfig { organization: None, ..good.clone() },
        IssuerConfig { organization: Some("ACME".to_owned()), ..good.clone() },
        IssuerConfig { organization_claim: Some("org".to_owned()), ..good.clone() },
        IssuerConfig { algorithms: vec![], ..good.clone() },
        IssuerConfig { audience: String::new(), ..good.clone() },
        IssuerConfig {
            jwks_file: None,
            jwks_url: Some("http://id.example.com/jwks".to_owned()),
            ..good.clone()
        },
        IssuerConfig { jwks_file: None, jwks_url: Some("file:///etc/passwd".to_owned()), ..good.clone() },
    ];
    for config in wrong {
        assert!(TokenVerifier::new(vec![config.clone()], clock()).is_err(), "{config:?}");
    }
    assert!(TokenVerifier::new(vec![good.clone(), good.clone()], clock()).is_err());
    assert!(TokenVerifier::new(vec![good], clock()).is_ok());
    assert!(serde_json::from_str::<Algorithm>("\"HS256\"").is_err());
}

#[tokio::test]
async fn development_tokens_are_accepted_where_their_issuer_is_configured_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let issuer = DevIssuer::open(dir.path(), clock.clone(), ids()).unwrap();
    let who = DevClaims {
        subject: "alice".to_owned(),
        organization: "acme".to_owned(),
        groups: vec!["payments".to_owned()],
        ..Default::default()
    };
    let token = issuer.mint(&who, time::Duration::hours(1)).unwrap();
    let admins = vec!["organizations/acme/users/root".to_owned()];
    let organizations = ["acme", "other"].map(str::to_owned).to_vec();
    let verifier = TokenVerifier::new(vec![issuer.config(organizations, admins)], clock.clone()).unwrap();
    let caller = verifier.verify(&token).await.unwrap();
    assert_eq!(caller.principal.name, "organizations/acme/users/alice");
    assert_eq!(caller.issuer, DEV_ISSUER);
    for (organization, admin) in [("acme", true), ("other", false)] {
        let root = DevClaims {
            subject: "root".to_owned(),
            organization: organization.to_owned(),
            ..Default::default()
        };
        let token = issuer.mint(&root, time::Duration::hours(1)).unwrap();
        assert_eq!(
            verifier.verify(&token).await.unwrap().principal.installation_operator,
            admin,
            "{organization}"
        );
    }
    let robot = DevClaims { kind: "service_account".to_owned(), subject: "ci".to_owned(), ..who.clone() };
    let token = issuer.mint(&robot, time::Duration::hours(1)).unwrap();
    let caller = verifier.verify(&token).await.unwrap();
    assert_eq!(caller.principal.name, "organizations/acme/serviceAccounts/ci");
    // A second opening is the same issuer.
    let again = DevIssuer::open(dir.path(), clock.clone(), ids()).unwrap();
    let token = again.mint(&who, time::Duration::hours(1)).unwrap();
    assert!(verifier.verify(&token).await.is_ok());
    let refused: Unauthenticated = World::new().verifier.verify(&token).await.unwrap_err();
    assert_eq!(refused.reason(), "issuer");
}

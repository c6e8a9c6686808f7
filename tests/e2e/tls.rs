//! The gateway's listener with TLS, and with certificates asked of callers.

use anyhow::{Result, ensure};
use pavior::cli::client::{Client, Connection, request_id};
use pavior_proto::pavior::identity::v1::CreateOrganizationRequest;
use pavior_proto::pavior::platform::v1::WhoAmIRequest;
use pavior_tests::Embedded;

#[tokio::test(flavor = "multi_thread")]
async fn callers_reach_the_gateway_over_tls_only() -> Result<()> {
    let files = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    std::fs::write(&certificate, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;
    let system = Embedded::with(|config| {
        config.tls.certificate_file = Some(certificate);
        config.tls.key_file = Some(key);
        Ok(())
    })
    .await?;
    let server = system.system().server();
    ensure!(server.starts_with("https://"), "{server}");
    let operator = pavior::serve::DEV_OPERATOR;
    let token = pavior::quickstart::mint(system.data(), operator, "acme", &[], time::Duration::hours(1))?;
    let connection = |server: String, ca_pem: Option<Vec<u8>>| Connection {
        server,
        token: Some(token.clone()),
        organization: None,
        ca_pem,
    };
    let trusting = Client::new(&connection(server.clone(), Some(certified.cert.pem().into_bytes())))?;
    let me = trusting.platform().who_am_i(WhoAmIRequest {}).await?.into_inner();
    ensure!(me.principal.is_some_and(|p| p.installation_operator), "somebody else");
    let request = CreateOrganizationRequest {
        organization_id: "acme".to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    trusting.identity().create_organization(request).await?;
    for (other, ca) in [(server.clone(), None), (server.replace("https://", "http://"), None)] {
        let answer = Client::new(&connection(other.clone(), ca))?.platform().who_am_i(WhoAmIRequest {}).await;
        ensure!(answer.is_err(), "{other} answered without a trusted certificate");
    }
    system.stop().await
}

use std::sync::Arc;

use pavior_proto::pavior::audit::v1::AuditRecord;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_rpc::ClientTls;
use pavior_rpc::server::{Peer, ServeOptions, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tonic::Status;

use crate::harness::{Fake, get, serve};

struct Pki {
    ca: String,
    cert: String,
    key: String,
}

fn pki() -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &ca).unwrap();
    Pki { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() }
}

async fn negotiated(address: std::net::SocketAddr, ca: &str, offer: &[&[u8]]) -> Option<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offer.iter().map(|name| name.to_vec()).collect();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
}

#[tokio::test]
async fn tls_offers_h2_and_http_1_1() {
    let pki = pki();
    let tls = ServerTls::from_pem(pki.cert.as_bytes(), pki.key.as_bytes(), None).unwrap();
    let fake = Fake::get(|_| async { Ok(AuditRecord::default()) });
    let options = ServeOptions { tls: Some(tls.clone()), http1: true, ..ServeOptions::default() };
    let served = serve(fake.stack(), options).await;
    let address = served.address;
    assert_eq!(negotiated(address, &pki.ca, &[b"h2", b"http/1.1"]).await.unwrap(), b"h2");
    assert_eq!(negotiated(address, &pki.ca, &[b"http/1.1"]).await.unwrap(), b"http/1.1");
    assert_eq!(negotiated(address, &pki.ca, &[]).await, None);

    let endpoint = format!("https://localhost:{}", address.port());
    let trust = ClientTls { ca_pem: pki.ca.clone().into_bytes(), identity: None, domain: None };
    let mut client = AuditServiceClient::new(pavior_rpc::remote(&endpoint, Some(trust)));
    client.get_audit_record(get()).await.unwrap();

    // Another certificate for connections from now on.
    let other = self::pki();
    tls.reload(other.cert.as_bytes(), other.key.as_bytes(), None).unwrap();
    assert_eq!(negotiated(address, &other.ca, &[b"h2"]).await.unwrap(), b"h2");
    assert!(tls.reload(b"", b"", None).is_err());
}

#[tokio::test]
async fn mutual_tls_shows_the_peer_and_refuses_strangers() {
    let pki = pki();
    let tls = ServerTls::from_pem(pki.cert.as_bytes(), pki.key.as_bytes(), Some(pki.ca.as_bytes())).unwrap();
    let fake = Fake::get(|request| async move {
        let peer = request.extensions().get::<Peer>().ok_or(Status::internal("no peer"))?;
        Ok(AuditRecord { index: i64::try_from(peer.certificates.len()).unwrap(), ..AuditRecord::default() })
    });
    let served = serve(fake.stack(), ServeOptions { tls: Some(tls), ..ServeOptions::default() }).await;
    let endpoint = format!("https://localhost:{}", served.address.port());
    let identity = Some((pki.cert.clone().into_bytes(), pki.key.clone().into_bytes()));
    let known = ClientTls { ca_pem: pki.ca.clone().into_bytes(), identity, domain: None };
    let mut client = AuditServiceClient::new(pavior_rpc::remote(&endpoint, Some(known.clone())));
    assert_eq!(client.get_audit_record(get()).await.unwrap().into_inner().index, 1);
    let stranger = ClientTls { identity: None, ..known };
    let mut client = AuditServiceClient::new(pavior_rpc::remote(&endpoint, Some(stranger)));
    assert_eq!(client.get_audit_record(get()).await.unwrap_err().code(), tonic::Code::Unavailable);
}

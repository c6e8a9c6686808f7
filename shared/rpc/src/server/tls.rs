//! TLS of our servers: one acceptor that offers `h2` and `http/1.1` (tonic's offers `h2` only), whose certificate can
//! be exchanged while it runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// TLS settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or nothing in it.
    #[error("the certificate chain is not PEM")]
    Certificate,
    /// Not PEM, or nothing in it.
    #[error("the private key is not PEM")]
    Key,
    /// Not PEM, or nothing in it.
    #[error("the certificate authorities of clients are not PEM")]
    ClientCa,
    /// What rustls has against them, for example a key that does not belong to the certificate.
    #[error("the TLS settings do not fit together")]
    Config(#[source] rustls::Error),
    /// As above, for the verification of clients.
    #[error("the certificate authorities of clients cannot be used")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// TLS of a listener; clones share the present certificate.
#[derive(Debug, Clone)]
pub struct ServerTls(Arc<ArcSwap<ServerConfig>>);

impl ServerTls {
    /// From PEM: chain, private key, and, where clients have to show a certificate, the authorities to check it with.
    pub fn from_pem(chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(config(chain, key, client_ca)?))))
    }

    /// Takes another certificate for connections from now on.
    pub fn reload(&self, chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<(), TlsError> {
        self.0.store(Arc::new(config(chain, key, client_ca)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!list.is_empty()).then_some(list)
}

fn config(chain: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<ServerConfig, TlsError> {
    let chain = certificates(chain).ok_or(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
    // The provider is named here, so that it does not depend on what the process installed.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem).ok_or(TlsError::ClientCa)? {
                roots.add(certificate).map_err(TlsError::Config)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(TlsError::Verifier)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Config)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

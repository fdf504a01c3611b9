//! TLS between daemons: both sides present certificates of one authority, and the name in the
//! certificate is the name of the host.
//!
//! Does not decide what a peer may do: [`PeerIdentity`] is handed to the API with each connection.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::{HostName, TlsFiles};

/// Why the TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not a readable PEM file of the kind that is expected.
    #[error("read {what} from {path}; `symvirt pki init` makes it", path = path.display())]
    File {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The parts do not fit together.
    #[error("use certificate {path}", path = path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Both ends of this host's TLS.
#[derive(Clone)]
pub struct Tls {
    /// For connections to this host.
    pub server: Arc<ServerConfig>,
    /// For connections to other hosts.
    pub client: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Certificate {
            path: files.cert.clone(),
            source,
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::Certificate {
                    path: files.ca.clone(),
                    source: error.into(),
                })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
            what: "a private key",
            path: files.key.clone(),
            source,
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| unusable(error.into()))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.into()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| unusable(error.into()))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.into()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(error.into()))?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrap = |source| TlsError::File {
        what: "certificates",
        path: path.clone(),
        source,
    };
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(wrap)?
        .collect::<Result<_, _>>()
        .map_err(wrap)?;
    if found.is_empty() {
        return Err(wrap(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// Who is at the other end of a TLS connection: the configured peers that its certificate names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity(pub Option<HostName>);

impl PeerIdentity {
    /// The one of `peers` whose name stands in `certificate`.
    pub fn of(certificate: Option<&CertificateDer<'_>>, peers: &[HostName]) -> Self {
        let Some(parsed) = certificate.and_then(|der| ParsedCertificate::try_from(der).ok()) else {
            return Self(None);
        };
        let named = peers.iter().find(|peer| {
            ServerName::try_from(peer.as_str())
                .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        });
        Self(named.cloned())
    }
}

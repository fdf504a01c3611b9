//! TLS between daemons: both sides present certificates of one authority, and the name in the
//! certificate is the name of the host.
//!
//! Certificates are replaced under a running daemon: it looks at the files now and then, and the
//! connections that begin after that use what it found. Files that do not fit together, as in the
//! middle of a replacement, change nothing.
//!
//! Does not decide what a peer may do: an [`Identity`](super::Identity) is handed to the API with each
//! connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::{info, warn};

use crate::api::error::chain;
use crate::config::TlsFiles;

/// Interval of looking at the files.
const LOOK: Duration = Duration::from_secs(10);

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

/// Both ends of this host's TLS; clones change together.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    ends: Arc<Mutex<Ends>>,
}

#[derive(Clone)]
struct Ends {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    read: Stamps,
}

/// When each file was last written, and its length.
type Stamps = [Option<(SystemTime, u64)>; 3];

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] naming the file.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let ends = Ends::load(files)?;
        Ok(Self {
            files: files.clone(),
            ends: Arc::new(Mutex::new(ends)),
        })
    }

    /// For connections to this host.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.ends().server.clone()
    }

    /// For connections to other hosts.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.ends().client.clone()
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again if they have changed; whether they had.
    ///
    /// # Errors
    /// [`TlsError`]; what was read before stays in use.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        if self.ends().read == stamps(&self.files) {
            return Ok(false);
        }
        let ends = Ends::load(&self.files)?;
        *self.ends() = ends;
        Ok(true)
    }

    /// Looks at the files for ever.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.refresh() {
                Ok(true) => {
                    info!(certificate = %self.files.cert.display(), "certificates replaced")
                }
                Ok(false) => {}
                Err(error) => warn!(
                    error = chain(&error),
                    "certificates were changed and cannot be used; the earlier ones are"
                ),
            }
        }
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [&files.ca, &files.cert, &files.key].map(|file| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

impl Ends {
    fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        // Before they are read: what changes meanwhile is seen at the next look.
        let read = stamps(files);
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
            read,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn made_in(directory: &Path) -> TlsFiles {
        let host = ("a".parse().unwrap(), [127, 0, 0, 1].into());
        crate::pki::init(directory, &[host]).unwrap();
        TlsFiles {
            ca: directory.join("ca.pem"),
            cert: directory.join("a.pem"),
            key: directory.join("a.key"),
        }
    }

    #[test]
    fn replaced_certificates_are_used_from_the_next_look_on_and_broken_ones_never() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = made_in(first.path());
        let newer = made_in(second.path());
        let tls = Tls::load(&files).unwrap();
        let before = tls.server();
        assert!(!tls.refresh().unwrap());
        assert!(Arc::ptr_eq(&before, &tls.server()));

        std::fs::write(&files.key, "no key at all").unwrap();
        assert!(tls.refresh().is_err());
        assert!(
            Arc::ptr_eq(&before, &tls.server()),
            "the earlier ones are kept"
        );

        for (from, to) in [
            (&newer.ca, &files.ca),
            (&newer.cert, &files.cert),
            (&newer.key, &files.key),
        ] {
            std::fs::copy(from, to).unwrap();
        }
        assert!(tls.refresh().unwrap());
        assert!(!Arc::ptr_eq(&before, &tls.server()));
        assert!(!tls.refresh().unwrap(), "nothing has changed since");
    }
}

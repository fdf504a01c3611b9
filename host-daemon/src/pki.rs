//! A certificate authority and one certificate per host, for a start (`symvirt pki init`).
//!
//! ```text
//!   DIR/ca.pem  ca.key          signs
//!   DIR/<host>.pem  <host>.key  names: the host's name, its address
//! ```
//!
//! A site with an authority of its own needs none of this: any certificates do whose common name is
//! the host's, whose subject alternative names contain it, and that allow both server and client use, digital
//! signatures and key encipherment. There is
//! no revocation here.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::config::HostName;

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// An authority is there already; another one would lock out every host that has the first.
    #[error("{} exists: an authority was made here before; give another --dir", .0.display())]
    Exists(PathBuf),
    /// No host was named.
    #[error("no host given: expected at least one --host NAME=ADDRESS")]
    NoHosts,
    /// A file could not be written; earlier ones of this call remain.
    #[error("write {path}; files made before it remain", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificate could not be made.
    #[error("make the certificate of {subject}")]
    Certificate {
        /// Whose.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// Makes an authority in `dir` and signs a certificate for each host.
///
/// Returns the files, in the order they were written.
///
/// # Errors
/// [`PkiError`]; an existing authority is never replaced.
pub fn init(dir: &Path, hosts: &[(HostName, IpAddr)]) -> Result<Vec<PathBuf>, PkiError> {
    if hosts.is_empty() {
        return Err(PkiError::NoHosts);
    }
    let ca_file = dir.join("ca.pem");
    if ca_file.exists() {
        return Err(PkiError::Exists(ca_file));
    }
    std::fs::create_dir_all(dir).map_err(|source| PkiError::Write {
        path: dir.to_owned(),
        source,
    })?;

    let wrap = |subject: &str| {
        let subject = subject.to_owned();
        move |source| PkiError::Certificate { subject, source }
    };
    let ca_key = KeyPair::generate().map_err(wrap("the authority"))?;
    let params = authority();
    let ca = params.self_signed(&ca_key).map_err(wrap("the authority"))?;
    let mut written = Vec::new();
    write(&ca_file, &ca.pem(), 0o644, &mut written)?;
    write(
        &dir.join("ca.key"),
        &ca_key.serialize_pem(),
        0o600,
        &mut written,
    )?;

    let issuer = Issuer::new(params, ca_key);
    for (host, address) in hosts {
        let name = host.as_str();
        let key = KeyPair::generate().map_err(wrap(name))?;
        let certificate = member(host, *address)
            .and_then(|params| params.signed_by(&key, &issuer))
            .map_err(wrap(name))?;
        write(
            &dir.join(format!("{name}.pem")),
            &certificate.pem(),
            0o644,
            &mut written,
        )?;
        write(
            &dir.join(format!("{name}.key")),
            &key.serialize_pem(),
            0o600,
            &mut written,
        )?;
    }
    Ok(written)
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named("SymVirt authority");
    params
}

fn member(host: &HostName, address: IpAddr) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_string(), address.to_string()])?;
    params.distinguished_name = named(host.as_str());
    // QEMU's migration streams insist on the second.
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn write(path: &Path, text: &str, mode: u32, written: &mut Vec<PathBuf>) -> Result<(), PkiError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| PkiError::Write {
            path: path.to_owned(),
            source,
        })?;
    written.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_authority_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = [("a".parse().unwrap(), [10, 0, 0, 1].into())];
        let files = init(dir.path(), &hosts).unwrap();
        assert_eq!(files.len(), 4);
        let before = std::fs::read(dir.path().join("ca.pem")).unwrap();
        assert!(matches!(init(dir.path(), &hosts), Err(PkiError::Exists(_))));
        assert_eq!(std::fs::read(dir.path().join("ca.pem")).unwrap(), before);
    }
}

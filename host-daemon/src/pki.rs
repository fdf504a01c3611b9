//! A certificate authority and one certificate per host, for a start (`symvirt pki init`), and one
//! for each user at another machine (`symvirt pki user`).
//!
//! ```text
//!   DIR/ca.pem  ca.key          signs
//!   DIR/<host>.pem  <host>.key  names: the host's name, its address
//!   DIR/<user>.pem  <user>.key  common name: the user's; organizational unit: the role
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
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::config::{HostName, Role, UserName};

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// An authority is there already; another one would lock out every host that has the first.
    #[error("{} exists: an authority was made here before; give another --dir", .0.display())]
    Exists(PathBuf),
    /// No host was named.
    #[error("no host given: expected at least one --host NAME=ADDRESS")]
    NoHosts,
    /// There is no authority that could sign.
    #[error("read {}: `symvirt pki init` makes an authority, and only its directory can sign", path.display())]
    NoAuthority {
        /// Its certificate or key.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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
    write_pair(dir, "ca", &ca, &ca_key, &mut written)?;

    let issuer = Issuer::new(params, ca_key);
    for (host, address) in hosts {
        let name = host.as_str();
        let key = KeyPair::generate().map_err(wrap(name))?;
        let certificate = member(host, *address)
            .and_then(|params| params.signed_by(&key, &issuer))
            .map_err(wrap(name))?;
        write_pair(dir, name, &certificate, &key, &mut written)?;
    }
    Ok(written)
}

/// Signs a certificate that gives `name` a role, by the authority in `dir`.
///
/// Returns the files, in the order they were written.
///
/// # Errors
/// [`PkiError`]; a certificate that exists is never replaced.
pub fn user(dir: &Path, name: &UserName, role: Role) -> Result<Vec<PathBuf>, PkiError> {
    let read = |file: &str| {
        let path = dir.join(file);
        std::fs::read_to_string(&path).map_err(|source| PkiError::NoAuthority { path, source })
    };
    let wrap = |source| PkiError::Certificate {
        subject: name.to_string(),
        source,
    };
    let ca_key = KeyPair::from_pem(&read("ca.key")?).map_err(wrap)?;
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, ca_key).map_err(wrap)?;
    let key = KeyPair::generate().map_err(wrap)?;
    let certificate = holder(name, role).signed_by(&key, &issuer).map_err(wrap)?;
    let mut written = Vec::new();
    write_pair(dir, name.as_str(), &certificate, &key, &mut written)?;
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

/// Without alternative names: it is no host's.
fn holder(name: &UserName, role: Role) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name.as_str());
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, role.unit());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// `name.pem` and `name.key`.
fn write_pair(
    dir: &Path,
    name: &str,
    certificate: &Certificate,
    key: &KeyPair,
    written: &mut Vec<PathBuf>,
) -> Result<(), PkiError> {
    let file = |end: &str| dir.join(format!("{name}.{end}"));
    write(&file("pem"), &certificate.pem(), 0o644, written)?;
    write(&file("key"), &key.serialize_pem(), 0o600, written)
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

    #[test]
    fn a_user_is_never_given_the_file_of_a_host_nor_signed_without_an_authority() {
        let dir = tempfile::tempdir().unwrap();
        let a: UserName = "a".parse().unwrap();
        let refused = user(dir.path(), &a, Role::Admin).unwrap_err();
        assert!(matches!(refused, PkiError::NoAuthority { .. }), "{refused}");
        let hosts = [("a".parse().unwrap(), [10, 0, 0, 1].into())];
        init(dir.path(), &hosts).unwrap();
        let before = std::fs::read(dir.path().join("a.pem")).unwrap();
        let refused = user(dir.path(), &a, Role::Admin).unwrap_err();
        assert!(matches!(refused, PkiError::Write { .. }), "{refused}");
        assert_eq!(std::fs::read(dir.path().join("a.pem")).unwrap(), before);
    }
}

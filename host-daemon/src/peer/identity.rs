//! Who is at the other end of a TLS connection, as its certificate says.
//!
//! | the certificate | is shown by |
//! |---|---|
//! | names a configured peer (subject alternative name) | the daemon of that host |
//! | has an organizational unit of [`Role::unit`] | a user with that role, called like its common name |
//! | is another one of the authority's | nobody that may ask for anything |

use std::fmt;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

use crate::config::{HostName, Role, UserName};

/// Somebody with a certificate of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The common name.
    pub name: UserName,
    /// The highest that the certificate gives.
    pub role: Role,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Who is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Another daemon.
    Peer(HostName),
    /// A user.
    User(User),
    /// Somebody whom the authority knows, and this host does not.
    Unknown,
}

impl Identity {
    /// Whose `certificate` it is. A host that is one of `peers` is no user.
    pub fn of(certificate: Option<&CertificateDer<'_>>, peers: &[HostName]) -> Self {
        let Some(certificate) = certificate else {
            return Self::Unknown;
        };
        let peer = peer(certificate, peers).map(Self::Peer);
        let user = || user(certificate).map(Self::User);
        peer.or_else(user).unwrap_or(Self::Unknown)
    }
}

fn peer(certificate: &CertificateDer<'_>, peers: &[HostName]) -> Option<HostName> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let is_named = |peer: &&HostName| {
        ServerName::try_from(peer.as_str())
            .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    };
    peers.iter().find(is_named).cloned()
}

fn user(certificate: &CertificateDer<'_>) -> Option<User> {
    fn text<'a>(value: &'a AttributeTypeAndValue<'_>) -> Option<&'a str> {
        value.as_str().ok()
    }
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let units = subject.iter_organizational_unit().filter_map(text);
    let role = units.filter_map(Role::of_unit).max()?;
    let name = subject.iter_common_name().find_map(text)?.parse().ok()?;
    Some(User { name, role })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn peers() -> Vec<HostName> {
        vec!["b".parse().unwrap()]
    }

    fn shown(directory: &std::path::Path, file: &str) -> Identity {
        let certificate = CertificateDer::from_pem_file(directory.join(file)).unwrap();
        Identity::of(Some(&certificate), &peers())
    }

    #[test]
    fn hosts_are_peers_if_they_are_configured_and_users_have_the_role_of_their_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let host = |name: &str| (name.parse().unwrap(), [127, 0, 0, 1].into());
        crate::pki::init(dir.path(), &[host("b"), host("c")]).unwrap();
        let alice: UserName = "alice".parse().unwrap();
        crate::pki::user(dir.path(), &alice, Role::Operator).unwrap();

        assert_eq!(
            shown(dir.path(), "b.pem"),
            Identity::Peer(peers().remove(0))
        );
        assert_eq!(shown(dir.path(), "c.pem"), Identity::Unknown);
        let role = Role::Operator;
        assert_eq!(
            shown(dir.path(), "alice.pem"),
            Identity::User(User { name: alice, role })
        );
        assert_eq!(Identity::of(None, &peers()), Identity::Unknown);
        let garbage = CertificateDer::from(b"no certificate".to_vec());
        assert_eq!(Identity::of(Some(&garbage), &peers()), Identity::Unknown);
    }
}

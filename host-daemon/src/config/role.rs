//! What users are allowed, as the authority writes it into their certificates.

use std::fmt;

/// What a user may ask for; each may all that those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// To see.
    Viewer,
    /// To start and cancel operations: a scheduler that drains hosts.
    Operator,
    /// To start and end VMs, whose specifications name files of the host, and to say what no daemon
    /// can know.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The organizational unit that gives this role.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Viewer => "symvirt-viewer",
            Self::Operator => "symvirt-operator",
            Self::Admin => "symvirt-admin",
        }
    }

    /// The role that a unit gives, if it gives one.
    pub fn of_unit(unit: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.unit() == unit)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

//! Names and quantities of the configuration, checked where they are read.
//!
//! Names end up in file names and QEMU ids, so their alphabet is small.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a string is not a name, an address or a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Characters or length outside what is allowed.
    #[error(
        "`{0}` is not a name: expected 1 to 32 characters of a-z, A-Z, 0-9, `-`, `_`, `.`, \
         beginning with a letter or digit"
    )]
    Name(String),
    /// Not a MAC address.
    #[error("`{0}` is not a MAC address: expected six hexadecimal bytes like 52:54:00:12:34:56")]
    Mac(String),
    /// Not a size.
    #[error("`{0}` is not a size: expected a number with KiB, MiB, GiB or TiB, like \"512MiB\"")]
    Size(String),
}

fn check_name(text: &str) -> Result<(), NameError> {
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if first && rest && text.len() <= 32 {
        Ok(())
    } else {
        Err(NameError::Name(text.to_owned()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check_name(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A host, as its daemon and its certificate call it.
    HostName
);
name!(
    /// Somebody who may ask a daemon for something, as their certificate calls them.
    UserName
);
name!(
    /// A VM; the same on every host.
    VmName
);
name!(
    /// A gang: the VMs of one job.
    GangName
);
name!(
    /// An HCA of a host's pool.
    HcaName
);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Mac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A number of bytes, written like `512MiB`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl ByteSize {
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl FromStr for ByteSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        UNITS
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
            .and_then(|(number, shift)| number.parse::<u64>().ok()?.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| NameError::Size(text.to_owned()))
    }
}

impl TryFrom<String> for ByteSize {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that divides it; what is no multiple of 1 KiB is rounded down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS
            .iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
            .copied()
            .unwrap_or(("KiB", 10));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_what_they_print() {
        for text in ["512MiB", "1GiB", "3KiB", "2TiB", "1536MiB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        assert_eq!("1024MiB".parse::<ByteSize>().unwrap().to_string(), "1GiB");
    }

    #[test]
    fn names_that_would_leave_a_directory_are_refused() {
        for text in [
            "",
            "..",
            "a/b",
            "-x",
            "a b",
            "123456789012345678901234567890123",
        ] {
            assert!(text.parse::<VmName>().is_err(), "{text}");
        }
        assert!("vm-1.a_B".parse::<VmName>().is_ok());
    }

    #[test]
    fn mac_addresses_need_six_bytes() {
        assert!("52:54:00:12:34".parse::<MacAddress>().is_err());
        assert!("52:54:00:12:34:56:78".parse::<MacAddress>().is_err());
        assert!("52:54:00:+2:34:56".parse::<MacAddress>().is_err());
        let mac = "52:54:00:AB:34:56".parse::<MacAddress>().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:34:56");
    }
}

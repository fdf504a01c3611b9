//! What makes a request that is asked again, because its answer was lost, the same request.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest id.
const LONGEST: usize = 64;

/// Whoever asks makes it up, a new one for each request: 1 to 64 letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(String);

/// Not an id of a request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no id of a request: expected 1 to 64 letters, digits and hyphens")]
pub struct NotARequestId(String);

impl RequestId {
    /// One that nobody has made up before: 128 random bits.
    ///
    /// # Errors
    /// When the machine has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let (high, low) = (getrandom::u64()?, getrandom::u64()?);
        Ok(Self(format!("{high:016x}{low:016x}")))
    }
}

impl FromStr for RequestId {
    type Err = NotARequestId;

    fn from_str(text: &str) -> Result<Self, NotARequestId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        match (1..=LONGEST).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotARequestId(text.to_owned())),
        }
    }
}

impl TryFrom<String> for RequestId {
    type Error = NotARequestId;

    fn try_from(text: String) -> Result<Self, NotARequestId> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> String {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_accepted_and_never_twice_the_same() {
        let (one, other) = (RequestId::random().unwrap(), RequestId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.to_string().parse(), Ok(one));
    }

    #[test]
    fn what_does_not_fit_into_an_address_is_refused() {
        for text in ["", "a b", "a/b", "ä", "a&b=c", &"a".repeat(65)] {
            let parsed = text.parse::<RequestId>();
            assert_eq!(parsed, Err(NotARequestId(text.to_owned())));
        }
    }
}

//! What the demo claims, and whether it was observed.

use std::fmt;

/// One claim.
#[derive(Clone, Debug)]
struct Claim {
    text: String,
    observed: bool,
    detail: String,
}

/// All claims in the order they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Vec<Claim>);

impl Claims {
    /// Adds one.
    pub fn note(&mut self, text: impl Into<String>, observed: bool, detail: impl Into<String>) {
        self.0.push(Claim {
            text: text.into(),
            observed,
            detail: detail.into(),
        });
    }

    /// Whether there are claims, and all were observed.
    pub fn all_observed(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|claim| claim.observed)
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for claim in &self.0 {
            let mark = if claim.observed {
                "seen    "
            } else {
                "NOT SEEN"
            };
            write!(f, "{mark}  {}", claim.text)?;
            if !claim.detail.is_empty() {
                write!(f, ": {}", claim.detail)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_claim_at_all_is_not_success() {
        assert!(!Claims::default().all_observed());
    }

    #[test]
    fn one_claim_that_was_not_seen_spoils_it() {
        let mut claims = Claims::default();
        claims.note("it flies", true, "");
        assert!(claims.all_observed());
        claims.note("it swims", false, "it sank");
        assert!(!claims.all_observed());
        assert!(claims.to_string().contains("NOT SEEN  it swims: it sank"));
    }
}

//! What the demo claims, and whether it was observed.

use std::fmt;

/// How a claim stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Observed,
    NotObserved,
    /// A measurement: the reader judges.
    Measured,
}

/// One claim.
#[derive(Clone, Debug)]
struct Claim {
    text: String,
    standing: Standing,
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
            standing: if observed {
                Standing::Observed
            } else {
                Standing::NotObserved
            },
            detail: detail.into(),
        });
    }

    /// Adds a measurement. It spoils nothing, whatever it is: times on a shared machine vary too
    /// much to fail by.
    pub fn report(&mut self, text: impl Into<String>) {
        self.0.push(Claim {
            text: text.into(),
            standing: Standing::Measured,
            detail: String::new(),
        });
    }

    /// Whether there are claims, and all were observed.
    pub fn all_observed(&self) -> bool {
        let with = |standing| self.0.iter().any(|claim| claim.standing == standing);
        with(Standing::Observed) && !with(Standing::NotObserved)
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for claim in &self.0 {
            let mark = match claim.standing {
                Standing::Observed => "seen    ",
                Standing::NotObserved => "NOT SEEN",
                Standing::Measured => "measured",
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
    fn measurements_alone_are_not_success_and_spoil_none() {
        let mut claims = Claims::default();
        claims.report("it took 5 ms");
        assert!(!claims.all_observed());
        claims.note("it flies", true, "");
        assert!(claims.all_observed());
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

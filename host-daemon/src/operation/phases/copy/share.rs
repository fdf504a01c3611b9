//! How a gang's bandwidth is shared among its copies. Pure.
//!
//! Each gets as much as its VM dirties, and of the rest a part in proportion to what it has left: so
//! what is left of all shrinks by the same factor in the same time, and all end together. Where
//! they dirty more than there is, nobody can be helped, and each gets a part of that.

/// What one copy needs, in bytes to send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    /// For the rest of its pass.
    pub left: u64,
    /// For what its VM dirties in a second.
    pub dirty_rate: u64,
}

/// Slowest that a copy is let go, in bytes per second: nothing left now may be much a moment later.
pub(super) const CRAWL: u64 = 4 << 10;

/// The shares of `limit`, in bytes per second: at least [`CRAWL`] each, otherwise no more than
/// `limit` together.
pub(super) fn shares(limit: u64, needs: &[Need]) -> Vec<u64> {
    let sum = |of: fn(&Need) -> u64| needs.iter().map(|need| u128::from(of(need))).sum::<u128>();
    let (left, dirtied) = (sum(|need| need.left), sum(|need| need.dirty_rate));
    let limit = u128::from(limit);
    let part = |whole: u128, of: u64, all: u128| match all {
        0 => whole / needs.len() as u128,
        all => whole * u128::from(of) / all,
    };
    let share = |need: &Need| {
        let share = match limit.checked_sub(dirtied) {
            Some(rest) => u128::from(need.dirty_rate) + part(rest, need.left, left),
            None => part(limit, need.dirty_rate, dirtied),
        };
        u64::try_from(share).unwrap_or(u64::MAX).max(CRAWL)
    };
    needs.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn need(left: u64, dirty_rate: u64) -> Need {
        Need {
            left: left * MIB,
            dirty_rate: dirty_rate * MIB,
        }
    }

    #[test]
    fn what_is_left_shrinks_alike_after_what_is_dirtied() {
        let shares = shares(100 * MIB, &[need(300, 10), need(100, 50)]);
        assert_eq!(shares, [(10 + 30) * MIB, (50 + 10) * MIB]);
    }

    #[test]
    fn a_gang_that_dirties_too_much_shares_by_that() {
        let shares = shares(30 * MIB, &[need(1, 10), need(500, 50)]);
        assert_eq!(shares, [5 * MIB, 25 * MIB]);
    }

    #[test]
    fn all_get_the_same_when_nothing_is_known() {
        assert_eq!(shares(30 * MIB, &[need(0, 0); 3]), [10 * MIB; 3]);
    }

    proptest! {
        #[test]
        fn shares_are_no_more_than_there_is(
            limit in any::<u64>(),
            needs in prop::collection::vec((any::<u64>(), any::<u64>()), 1..20),
        ) {
            let needs: Vec<_> = needs.into_iter().map(|(left, dirty_rate)| Need { left, dirty_rate }).collect();
            let shares = shares(limit, &needs);
            let above: u128 = shares.iter().filter(|share| **share > CRAWL).map(|share| u128::from(*share)).sum();
            prop_assert_eq!(shares.len(), needs.len());
            prop_assert!(above <= u128::from(limit));
            prop_assert!(shares.iter().all(|share| *share >= CRAWL));
        }
    }
}

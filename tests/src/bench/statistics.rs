//! A handful of numbers from many.

use std::fmt;

/// Median and range of some ratios.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Ratio {
    /// Half of them are not above.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Ratio {
    /// Of pairs (with, without). `None` if there are none.
    pub fn of_pairs(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        let mut ratios: Vec<f64> = pairs
            .into_iter()
            .map(|(with, without)| with / without)
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some(Ratio {
            median: median(&ratios)?,
            min: *ratios.first()?,
            max: *ratios.last()?,
        })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ({:.3}..{:.3})", self.median, self.min, self.max)
    }
}

/// Of sorted values.
pub fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        Some(upper)
    } else {
        Some((sorted[middle - 1] + upper) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_formed_within_each_pair() {
        // The second pair ran on a machine that was ten times slower: that does not matter.
        let ratio = Ratio::of_pairs([(11.0, 10.0), (120.0, 100.0), (13.0, 10.0)]);
        assert_eq!(
            ratio,
            Some(Ratio {
                median: 1.2,
                min: 1.1,
                max: 1.3
            })
        );
        assert_eq!(Ratio::of_pairs([]), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 8.0]), Some(3.0));
    }
}

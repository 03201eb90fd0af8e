//! Medians, quartiles and ratios.

use serde::{Deserialize, Serialize};

/// What several rounds of one figure come to.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The middle.
    pub median: f64,
    /// The lower quartile.
    pub low: f64,
    /// The upper quartile.
    pub high: f64,
}

/// The value below which the part `at` of `sorted` lies, between neighbours in proportion.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let last = sorted.len() - 1;
    #[expect(clippy::cast_precision_loss, reason = "a count of rounds is small")]
    let place = at * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

impl Summary {
    /// Of `values`; of none there is no summary.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Summary> {
        if values.is_empty() {
            return None;
        }
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Summary {
            median: quantile(&sorted, 0.5),
            low: quantile(&sorted, 0.25),
            high: quantile(&sorted, 0.75),
        })
    }

    /// The distance between the quartiles.
    #[must_use]
    pub fn range(&self) -> f64 {
        self.high - self.low
    }
}

/// `values` over `base`, round by round.
#[must_use]
pub fn ratios(values: &[f64], base: &[f64]) -> Vec<f64> {
    values.iter().zip(base).filter(|(_, base)| **base > 0.0).map(|(v, base)| v / base).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quartiles() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[7.0]).expect("a value");
        assert_eq!(one, Summary { median: 7.0, low: 7.0, high: 7.0 });
        let odd = Summary::of(&[3.0, 1.0, 2.0, 5.0, 4.0]).expect("values");
        assert_eq!(odd, Summary { median: 3.0, low: 2.0, high: 4.0 });
        let even = Summary::of(&[4.0, 1.0, 2.0, 3.0]).expect("values");
        assert_eq!(even, Summary { median: 2.5, low: 1.75, high: 3.25 });
        assert!((even.range() - 1.5).abs() < 1e-12);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        assert_eq!(ratios(&[4.0, 3.0, 9.0], &[2.0, 1.0]), [2.0, 3.0]);
        assert_eq!(ratios(&[1.0], &[0.0]), Vec::<f64>::new());
    }
}

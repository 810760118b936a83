//! Medians of ratios with an interval that assumes nothing about how they are spread. Pure.

use serde::Serialize;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Median {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
}

/// The median of the values and the order statistics that enclose the true one with at least 95 %
/// (binomial with p = 1/2; below six values there are none, and the extremes are given).
///
/// # Panics
/// If there are no values.
pub fn median(values: &[f64]) -> Median {
    assert!(!values.is_empty(), "a median needs a value");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let middle = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    // The largest rank whose two tails together stay below 5 %.
    let mut tail = 0.0;
    let mut rank = 0;
    let mut term = 0.5f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
    while rank < n / 2 && 2.0 * (tail + term) <= 0.05 {
        tail += term;
        term *= (n - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let index = rank.saturating_sub(1);
    Median {
        middle,
        low: sorted[index],
        high: sorted[n - 1 - index],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_values_are_enclosed_by_the_second_and_the_ninth() {
        let values: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let found = median(&values);
        assert_eq!((found.middle, found.low, found.high), (5.5, 2.0, 9.0));
    }

    #[test]
    fn few_values_are_enclosed_by_their_extremes() {
        let found = median(&[3.0, 1.0, 2.0]);
        assert_eq!((found.middle, found.low, found.high), (2.0, 1.0, 3.0));
    }
}

//! Rows of two sides' figures: medians, the median of the ratios of each round, and marks. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use crate::bench::case::Mark;
use crate::bench::statistics::median;

/// How a ratio is formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better: ours divided by the other's, at least so much.
    More,
    /// Less is better, and the mark says how many times less: the other's divided by ours, at least so much.
    TimesLess,
    /// Less is better: ours divided by the other's, at most so much.
    Less,
}

/// One row that is there before anything was measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
    /// None: shown beside the row above, without a mark of its own.
    pub mark: Option<f64>,
}

/// The figures of a case, one a round.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub ours: Vec<f64>,
    pub real: Vec<f64>,
}

/// A finished row.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub case: &'static str,
    pub unit: &'static str,
    pub ours: f64,
    pub real: Option<f64>,
    pub ratio: Option<f64>,
    pub low: f64,
    pub high: f64,
    pub mark: Option<String>,
    pub met: Option<bool>,
}

impl Case {
    pub fn row(&self, figures: &Figures) -> Row {
        let pairs = figures.ours.iter().zip(&figures.real);
        let ratios: Vec<f64> = pairs
            .map(|(ours, real)| match self.better {
                Better::More | Better::Less => ours / real,
                Better::TimesLess => real / ours,
            })
            .collect();
        let ratio = median(&ratios);
        let (sign, mark) = match self.better {
            Better::More | Better::TimesLess => ("≥", self.mark.map(Mark::AtLeast)),
            Better::Less => ("≤", self.mark.map(Mark::AtMost)),
        };
        Row {
            case: self.name,
            unit: self.unit,
            ours: median(&figures.ours).middle,
            real: Some(median(&figures.real).middle),
            ratio: Some(ratio.middle),
            low: ratio.low,
            high: ratio.high,
            mark: mark.map(|mark| format!("{sign} {}", plain(mark.limit()))),
            met: mark.map(|mark| mark.is_met(ratio.middle)),
        }
    }
}

impl Row {
    /// A figure of ours alone.
    pub fn alone(case: &'static str, unit: &'static str, value: f64, at_most: Option<f64>) -> Self {
        Self {
            case,
            unit,
            ours: value,
            real: None,
            ratio: None,
            low: value,
            high: value,
            mark: at_most.map(|limit| format!("≤ {} {unit}", plain(limit))),
            met: at_most.map(|limit| value <= limit),
        }
    }
}

/// Beside another server, which the table calls `other`. A table for a page, which is aligned enough for a screen.
pub fn markdown(rows: &[Row], other: &str) -> String {
    let mut text =
        format!("| | ours | {other} | ratio (95 %) | mark | |\n|---|---:|---:|---:|---:|---|\n");
    for row in rows {
        let quantity = |value: f64| format!("{} {}", plain(value), row.unit);
        let ratio = row.ratio.map(|ratio| {
            let [ratio, low, high] = [ratio, row.low, row.high].map(plain);
            format!("{ratio} ({low}–{high})")
        });
        let sign = row.met.map(|met| if met { "✓" } else { "✗" });
        let _ = writeln!(
            text,
            "| {:<38} | {:>14} | {:>14} | {:>20} | {:>9} | {} |",
            row.case,
            quantity(row.ours),
            row.real.map(quantity).unwrap_or_default(),
            ratio.unwrap_or_default(),
            row.mark.as_deref().unwrap_or_default(),
            sign.unwrap_or_default()
        );
    }
    text
}

/// Three significant digits, thousands with a comma.
fn plain(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let whole = (value.round() as i64).to_string();
            let (front, back) = whole.split_at(whole.len() - 3);
            format!("{front},{back}")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => trimmed(format!("{value:.1}")),
        size if size >= 1.0 => trimmed(format!("{value:.2}")),
        _ => trimmed(format!("{value:.3}")),
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_its_round_and_held_against_its_mark() {
        let figures = Figures {
            ours: vec![3000.0, 6000.0],
            real: vec![1000.0, 2000.0],
        };
        let case = |better, mark| Case {
            name: "a",
            unit: "/s",
            better,
            mark: Some(mark),
        };
        let row = case(Better::More, 2.5).row(&figures);
        assert_eq!((row.ratio, row.met), (Some(3.0), Some(true)));
        let row = case(Better::Less, 0.25).row(&figures);
        assert_eq!((row.ratio, row.met), (Some(3.0), Some(false)));
        let row = case(Better::TimesLess, 0.3).row(&figures);
        assert_eq!((row.met, row.mark.as_deref()), (Some(true), Some("≥ 0.3")));
    }

    #[test]
    fn quantities_have_three_digits() {
        let texts = [43_600.4, 123.4, 18.26, 4.0, 0.19999].map(plain);
        assert_eq!(texts, ["43,600", "123", "18.3", "4", "0.2"]);
    }
}

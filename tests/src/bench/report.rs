//! The table on screen, the picture for the README and the list for machines. Pure.

use std::fmt::Write as _;

use super::case::Outcome;

/// The widest bar on screen, and the ratio that it stands for.
const BAR: usize = 20;
const BAR_RATIO: f64 = 2.0;

/// An aligned table with a bar a row.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<28} {:>8} {:>4} {:<16} {:>11} {:>11} {:>6} {:>13} {:>5}  \n",
        "CASE", "SERVICES", "ENDP", "VERSUS", "OURS/s", "THEIRS/s", "RATIO", "95 %", "MARK"
    );
    for outcome in outcomes {
        let mark = outcome
            .mark
            .map_or(String::new(), |mark| format!("{mark:.2}"));
        let sign = match outcome.met {
            Some(true) => "✓",
            Some(false) => "✗",
            None => " ",
        };
        let _ = writeln!(
            text,
            "{:<28} {:>8} {:>4} {:<16} {:>11} {:>11} {:>6.2} {:>6.2}–{:<6.2} {:>5} {sign} {}",
            outcome.case,
            outcome.services,
            outcome.endpoints,
            outcome.versus,
            count(outcome.ours),
            count(outcome.theirs),
            outcome.ratio,
            outcome.low,
            outcome.high,
            mark,
            bar(outcome.ratio)
        );
    }
    text
}

/// The ratios as horizontal bars around 1, one row a case.
pub fn svg(outcomes: &[Outcome], caption: &str) -> String {
    const ROW: usize = 18;
    const LEFT: f64 = 360.0;
    const UNIT: f64 = 160.0;
    let height = ROW * (outcomes.len() + 3);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"12\">\n<rect width=\"900\" height=\"{height}\" \
         fill=\"white\"/>\n<text x=\"10\" y=\"16\">{caption}</text>\n"
    );
    for (row, outcome) in outcomes.iter().enumerate() {
        let y = ROW * (row + 2);
        let width = (outcome.ratio.min(3.0) * UNIT).max(1.0);
        let colour = match outcome.met {
            Some(false) => "#d08770",
            _ => "#5e81ac",
        };
        let size = match outcome.services {
            0 => String::new(),
            n => format!(" {n}×{}", outcome.endpoints),
        };
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}{size} / {}</text><rect x=\"{LEFT}\" y=\"{}\" \
             width=\"{width:.0}\" height=\"12\" fill=\"{colour}\"/><text x=\"{:.0}\" \
             y=\"{}\">{:.2}</text>",
            y + 11,
            outcome.case,
            outcome.versus,
            y + 1,
            LEFT + width + 6.0,
            y + 11,
            outcome.ratio
        );
    }
    let one = LEFT + UNIT;
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" y1=\"{ROW}\" x2=\"{one}\" y2=\"{height}\" stroke=\"black\"/>\n</svg>"
    );
    svg
}

/// `12.3k`, `4.56M`, `1.20G`
fn count(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

fn bar(ratio: f64) -> String {
    let full = (ratio / BAR_RATIO * BAR as f64)
        .round()
        .clamp(0.0, BAR as f64) as usize;
    "█".repeat(full)
}

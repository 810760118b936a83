//! The table on screen, the picture for the README and the list for machines. Pure.

use std::fmt::Write as _;

use super::case::{Outcome, Relation};

/// The widest bar on screen, and the ratio that it stands for.
const BAR: usize = 20;
const BAR_RATIO: f64 = 2.0;

/// An aligned table with a bar for each ratio.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<32} {:>8} {:>4}  {:<15} {:>11} {:>11} {:>9} {:>15} {:>8}  \n",
        "CASE", "SERVICES", "ENDP", "VERSUS", "OURS", "THEIRS", "RATIO", "95 %", "MARK"
    );
    for outcome in outcomes {
        let with_unit = |value: f64| quantity(value, outcome.unit);
        let value = match outcome.relation {
            Relation::Ratio => format!("{:.2}", outcome.value),
            Relation::Difference => format!("{:+.1} {}", outcome.value, outcome.unit),
            Relation::Alone => String::new(),
        };
        let _ = writeln!(
            text,
            "{:<32} {:>8} {:>4}  {:<15} {:>11} {:>11} {value:>9} {:>15} {:>8} {} {}",
            outcome.case,
            outcome.services,
            outcome.endpoints,
            outcome.versus,
            with_unit(outcome.ours),
            outcome.theirs.map(with_unit).unwrap_or_default(),
            format!("{}–{}", short(outcome.low), short(outcome.high)),
            mark(outcome),
            sign(outcome),
            outcome.ratio.map(bar).unwrap_or_default()
        );
    }
    text
}

/// The rows that have a mark, at the ends of the sizes, for the README.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| case | Services × endpoints | against | ours | theirs | ratio (95 %) | mark | |\n\
         |---|---|---|---:|---:|---:|---:|---|\n",
    );
    for outcome in outcomes.iter().filter(|outcome| outcome.is_at_an_end()) {
        let size = match outcome.services {
            0 => String::from("–"),
            services => format!("{services} × {}", outcome.endpoints),
        };
        let with_unit = |value: f64| quantity(value, outcome.unit);
        let range = format!("{}–{}", short(outcome.low), short(outcome.high));
        let value = match outcome.relation {
            Relation::Ratio => format!("{:.2} ({range})", outcome.value),
            Relation::Difference => format!("{:+.1} {} ({range})", outcome.value, outcome.unit),
            Relation::Alone => format!("({range})"),
        };
        let _ = writeln!(
            text,
            "| {} | {size} | {} | {} | {} | {value} | {} | {} |",
            outcome.case,
            outcome.versus,
            with_unit(outcome.ours),
            outcome.theirs.map(with_unit).unwrap_or_default(),
            mark(outcome),
            sign(outcome)
        );
    }
    text
}

/// The ratios that have a mark as horizontal bars: whiskers are the 95 % interval, a tick the mark.
pub fn svg(outcomes: &[Outcome], caption: &str) -> String {
    const ROW: usize = 18;
    const LEFT: f64 = 400.0;
    const UNIT: f64 = 150.0;
    const WIDEST: f64 = 3.0;
    let rows: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| outcome.ratio.is_some() && outcome.mark.is_some())
        .collect();
    let height = ROW * (rows.len() + 3);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"920\" height=\"{height}\" \
         font-family=\"monospace\" font-size=\"12\">\n<rect width=\"920\" height=\"{height}\" \
         fill=\"white\"/>\n<text x=\"10\" y=\"16\">{caption}</text>\n"
    );
    let at = |ratio: f64| LEFT + ratio.clamp(0.0, WIDEST) * UNIT;
    for (row, outcome) in rows.into_iter().enumerate() {
        let y = ROW * (row + 2);
        let colour = if outcome.met == Some(false) {
            "#d08770"
        } else {
            "#5e81ac"
        };
        let size = match outcome.services {
            0 => String::new(),
            n => format!(" {n}×{}", outcome.endpoints),
        };
        let text = y + 11;
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{text}\">{}{size} / {}</text><rect x=\"{LEFT}\" y=\"{}\" \
             width=\"{:.0}\" height=\"12\" fill=\"{colour}\"/>",
            outcome.case,
            outcome.versus,
            y + 1,
            at(outcome.value) - LEFT,
        );
        let middle = y + 7;
        let _ = writeln!(
            svg,
            "<line x1=\"{:.0}\" y1=\"{middle}\" x2=\"{:.0}\" y2=\"{middle}\" stroke=\"black\"/>\
             <text x=\"{:.0}\" y=\"{text}\">{:.2}</text>",
            at(outcome.low),
            at(outcome.high),
            at(outcome.high.max(outcome.value)) + 6.0,
            outcome.value
        );
        let mark = at(outcome.mark.unwrap_or_default());
        let _ = writeln!(
            svg,
            "<line x1=\"{mark:.0}\" y1=\"{y}\" x2=\"{mark:.0}\" y2=\"{}\" stroke=\"#a3be8c\" \
             stroke-width=\"3\"/>",
            y + 14
        );
    }
    let one = at(1.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" y1=\"{ROW}\" x2=\"{one}\" y2=\"{height}\" stroke=\"black\" \
         stroke-dasharray=\"2\"/>\n</svg>"
    );
    svg
}

impl Outcome {
    /// The smallest and the largest tables, and what stands by itself.
    fn is_at_an_end(&self) -> bool {
        let ends = matches!(
            (self.services, self.endpoints),
            (0, _) | (1, 1) | (10_000, 10)
        );
        self.mark.is_some() && (ends || self.relation == Relation::Alone)
    }
}

fn sign(outcome: &Outcome) -> &'static str {
    match outcome.met {
        Some(true) => "✓",
        Some(false) => "✗",
        None => " ",
    }
}

fn mark(outcome: &Outcome) -> String {
    let sign = if outcome.at_most { "≤" } else { "≥" };
    let text = |mark| format!("{sign} {mark}");
    outcome.mark.map(text).unwrap_or_default()
}

/// `12.3k/s`, `1.20GB/s`, `29.1 us`
fn quantity(value: f64, unit: &str) -> String {
    match (value, unit) {
        (v, "/s" | "B/s") if v >= 1e9 => format!("{:.2}G{unit}", v / 1e9),
        (v, "/s" | "B/s") if v >= 1e6 => format!("{:.2}M{unit}", v / 1e6),
        (v, "/s" | "B/s") if v >= 1e4 => format!("{:.1}k{unit}", v / 1e3),
        (v, "/s" | "B/s") => format!("{v:.0}{unit}"),
        (v, _) => format!("{} {unit}", short(v)),
    }
}

/// Three figures or so.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn bar(ratio: f64) -> String {
    let full = (ratio / BAR_RATIO * BAR as f64)
        .round()
        .clamp(0.0, BAR as f64) as usize;
    "█".repeat(full)
}

//! The table: a row a figure, a column a size.

use std::fmt::Write as _;
use std::time::Instant;

/// One measured value, with its mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    mark: Option<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub fn of(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            name,
            unit,
            value,
            mark: None,
        }
    }

    /// Seconds since then.
    pub fn new(name: &'static str, unit: &'static str, began: Instant) -> Self {
        Self::of(name, unit, began.elapsed().as_secs_f64())
    }

    pub fn at_most(self, limit: f64) -> Self {
        let mark = Some(Mark::AtMost(limit));
        Self { mark, ..self }
    }

    pub fn at_least(self, limit: f64) -> Self {
        let mark = Some(Mark::AtLeast(limit));
        Self { mark, ..self }
    }

    pub fn is_met(&self) -> bool {
        match self.mark {
            Some(Mark::AtMost(limit)) => self.value <= limit,
            Some(Mark::AtLeast(limit)) => self.value >= limit,
            None => true,
        }
    }
}

/// As Markdown; the marks are those of the last size, and are judged there alone.
pub fn markdown(sizes: &[String], columns: &[Vec<Figure>]) -> String {
    let mut text = format!("| | {} | mark |\n|---|", sizes.join(" | "));
    text.push_str(&"--:|".repeat(sizes.len() + 1));
    let Some(last) = columns.last() else {
        return text;
    };
    for (row, figure) in last.iter().enumerate() {
        let _ = write!(text, "\n| {}, {} |", figure.name, figure.unit);
        for column in columns {
            let value = column.get(row).map(|it| plain(it.value));
            let _ = write!(text, " {} |", value.unwrap_or_default());
        }
        let mark = match figure.mark {
            Some(Mark::AtMost(limit)) => format!("≤ {}", plain(limit)),
            Some(Mark::AtLeast(limit)) => format!("≥ {}", plain(limit)),
            None => String::new(),
        };
        let missed = if figure.is_met() { "" } else { ", **missed**" };
        let _ = write!(text, " {mark}{missed} |");
    }
    text.push('\n');
    text
}

fn plain(value: f64) -> String {
    match value.abs() {
        1000.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

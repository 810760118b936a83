//! The table that keeps the last result of each application: what came of it, the day and the commit.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::conformance::stamp;

const HEADING: &str = "## Last results\n\n| application | result | when |\n|---|---|---|\n";

/// A line about the checks of an application: fresh, with a dead node, after the node's return.
pub fn passed(times: &[Duration]) -> String {
    let names = ["", " with a dead node", " after its return"];
    let mut line = "works:".to_owned();
    for (name, time) in names.iter().zip(times) {
        let _ = write!(line, " {} s{name},", time.as_secs());
    }
    line.trim_end_matches(',').to_owned()
}

pub fn failed(error: &anyhow::Error) -> String {
    format!("FAILED {error:#}").replace('\n', " ")
}

/// Puts the result into the README of the applications, in the place of the former one.
pub fn write(directory: &Path, name: &str, result: &str) -> Result<()> {
    let path = directory.join("README.md");
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let row = format!("| {name} | {} | {} |", result.replace('|', "\\|"), stamp()?);
    fs::write(&path, replaced(&old, name, &row)).with_context(|| path.display().to_string())
}

/// The table is the end of the file; its rows are sorted by name.
fn replaced(old: &str, name: &str, row: &str) -> String {
    let (text, table) = old.split_once(HEADING).unwrap_or((old, ""));
    let start = format!("| {name} |");
    let others = table.lines().filter(|line| !line.starts_with(&start));
    let mut rows: Vec<&str> = others.chain([row]).collect();
    rows.sort_unstable();
    format!("{}\n\n{HEADING}{}\n", text.trim_end(), rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_replaces_that_of_the_same_application_only() {
        let first = replaced("# Applications\n", "etcd", "| etcd | FAILED | then |");
        let second = replaced(&first, "ci", "| ci | works | then |");
        let third = replaced(&second, "etcd", "| etcd | works | now |");
        let rows = "| ci | works | then |\n| etcd | works | now |\n";
        assert_eq!(third, format!("# Applications\n\n{HEADING}{rows}"));
    }

    #[test]
    fn a_line_says_how_long_each_check_took() {
        let times = [3, 61, 9].map(Duration::from_secs);
        assert_eq!(
            passed(&times),
            "works: 3 s, 61 s with a dead node, 9 s after its return"
        );
        assert_eq!(passed(&times[..1]), "works: 3 s");
    }
}

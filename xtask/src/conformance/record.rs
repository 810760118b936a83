//! The file that keeps the last result of each focus: date, commit, counts, failures.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use super::output::{Outcome, Verdict};
use crate::command;

const HEAD: &str = "# Conformance\n\n\
    The last results of `cargo xtask conformance [FOCUS]`, which runs Kubernetes' own end-to-end tests of 1.20\n\
    against a dev cluster. The command writes this file.\n";

/// What a run gave.
pub struct Summary {
    passed: usize,
    skipped: usize,
    pub failed: Vec<(String, String)>,
    elapsed: Duration,
}

impl Summary {
    pub fn of(outcomes: &[Outcome], elapsed: Duration) -> Self {
        let count = |verdict| outcomes.iter().filter(|it| it.verdict == verdict).count();
        let mut failed: Vec<(String, String)> = outcomes
            .iter()
            .filter(|it| it.verdict == Verdict::Failed)
            .map(|it| (it.name.clone(), it.reason.clone()))
            .collect();
        failed.sort();
        Self {
            passed: count(Verdict::Passed),
            skipped: count(Verdict::Skipped),
            failed,
            elapsed,
        }
    }

    pub fn line(&self) -> String {
        let minutes = self.elapsed.as_secs().div_ceil(60);
        format!(
            "{} passed, {} failed, {} skipped, {minutes} minutes",
            self.passed,
            self.failed.len(),
            self.skipped
        )
    }

    fn section(&self, title: &str, stamp: &str) -> String {
        let mut text = format!("## {title}\n\n{stamp}: {}\n", self.line());
        if !self.failed.is_empty() {
            text += "\n| failed | why |\n|---|---|\n";
        }
        for (name, reason) in &self.failed {
            let cell = |text: &str| text.replace('|', "\\|");
            text += &format!("| {} | {} |\n", cell(name), cell(reason));
        }
        text
    }
}

/// Puts the section of this focus in the place of the former one.
pub fn write(path: &Path, title: &str, stamp: &str, summary: &Summary) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let new = replaced(&old, title, &summary.section(title, stamp));
    fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

/// The day and the commit, with a sign for what is not committed.
pub fn stamp() -> Result<String> {
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        command::output(git.current_dir(crate::cluster::workspace()).args(arguments))
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    let day = command::run("date", ["-u", "+%Y-%m-%d"])?;
    let changed = if changed { " with changes" } else { "" };
    Ok(format!("{}, commit {}{changed}", day.trim(), commit.trim()))
}

/// Sections begin with `## `; that of the title is replaced, or added at the end.
fn replaced(old: &str, title: &str, section: &str) -> String {
    let heading = format!("## {title}\n");
    let mut sections: Vec<String> = Vec::new();
    for line in old.lines() {
        if line.starts_with("## ") {
            sections.push(String::new());
        }
        if let Some(last) = sections.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    match sections.iter_mut().find(|it| it.starts_with(&heading)) {
        Some(found) => *found = section.to_owned(),
        None => sections.push(section.to_owned()),
    }
    let sections: Vec<&str> = sections.iter().map(|it| it.trim_end()).collect();
    format!("{HEAD}\n{}\n", sections.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_replaces_the_section_of_its_focus_only() {
        let first = replaced("", "`a`", "## `a`\n\nold\n");
        let second = replaced(&first, "`b`", "## `b`\n\nother\n");
        let third = replaced(&second, "`a`", "## `a`\n\nnew\n");
        assert_eq!(third, format!("{HEAD}\n## `a`\n\nnew\n\n## `b`\n\nother\n"));
    }
}
